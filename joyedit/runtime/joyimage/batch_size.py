"""How many items go together when nobody says: the smallest batch that fills the device, if it has the room.

On a GPU that is measured once for each device, model, dtype, attention, kernels and number of tokens, and remembered
in the user's cache folder. Larger batches only wait for each other longer.
"""

from __future__ import annotations

from collections.abc import Callable

from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.runtime.protocol import OutOfMemory

SIZES = (1, 2, 4, 8)
NEAR = 1.05
"""A batch whose time an item is within this factor of the best fills the device."""


def smallest_saturating_batch(seconds: Callable[[int], float], sizes: tuple[int, ...] = SIZES) -> int:
    """The smallest of `sizes` (ascending, from 1) whose `seconds(size)` an item are near the best.

    Goes on to the next larger size while that gains something; a size that runs out of memory ends it.
    """
    an_item: dict[int, float] = {}
    for size in sizes:
        try:
            an_item[size] = seconds(size) / size
        except OutOfMemory:
            break
        if len(an_item) > 1 and an_item[size] > min(list(an_item.values())[:-1]) / NEAR:
            break
    best = min(an_item.values(), default=0.0)
    return next((size for size, time in an_item.items() if time <= best * NEAR), 1)


def remembered_size(found: object) -> int | None:
    """A batch size as it was kept; None if there is something else."""
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 1 else None


def denoising_bytes(cfg: DiTConfig, tokens: int, steps: int, itemsize: int) -> int:
    """Activations of one forward over `tokens` (image and text, all branches), and the run's modulations.

    What a block holds at its widest: the residual stream, the attention's output, the MLP's input, its inner
    layer before and after the activation, and its output; and of the schedule six rows a block and stream.
    """
    widest = 4 * cfg.hidden_size + 2 * cfg.mlp_dim
    return tokens * widest * itemsize + 2 * steps * cfg.num_layers * 12 * cfg.hidden_size * 4


def decoding_bytes(cfg: VAEConfig, height: int, width: int, itemsize: int) -> int:
    """Activations of decoding one picture: at full resolution the residual, the convolution's input and
    output in the network's dtype, and the norm's input in fp32, twice."""
    return height * width * cfg.decoder_base_dim * (3 * itemsize + 2 * 4)


def largest_batch_that_fits(bytes_of: Callable[[int], int], free: int, sizes: tuple[int, ...] = SIZES) -> int:
    """The largest of `sizes` that takes no more than `free` bytes; 1 if none does."""
    return max((size for size in sizes if bytes_of(size) <= free), default=1)
