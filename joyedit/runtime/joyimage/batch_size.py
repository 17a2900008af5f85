"""How many items go together when nobody says: the smallest batch that fills the device, if there is room for it.

On a GPU that is measured once for each device, model, dtype, attention, kernels and number of tokens, and kept in
the user's cache folder. Items of a larger batch only wait longer for each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from joyedit.job.sizes import Size
from joyedit.models.dit import DiT
from joyedit.models.schedule import sigmas
from joyedit.runtime.joyimage.denoise import Conditioning, denoise
from joyedit.runtime.joyimage.memory import TEXT_TOKENS, MemoryModel, memory_faults
from joyedit.runtime.protocol import OutOfMemory
from joyedit.runtime.tuning.timing import timed

SIZES = (1, 2, 4, 8)
PASSING_SIZES = (*SIZES, 16, 32)
"""Where blocks pass through the device, a larger batch of small pictures gives their copies the time that they take."""
NEAR = 1.05
"""A batch whose time an item is within this factor of the best one fills the device."""

CPU_TOKENS = 4096
"""Image tokens of both guidance branches that one forward on a CPU should hold, for its caches."""
CPU_MOST = 8


def batch_size_on_cpu(tokens: int) -> int:
    """The batch size on a CPU, for targets of `tokens` image tokens with one reference each."""
    return max(1, min(CPU_MOST, CPU_TOKENS // (4 * tokens)))


def smallest_saturating_batch(seconds: Callable[[int], float], sizes: tuple[int, ...] = SIZES) -> int:
    """The smallest of `sizes` (ascending, from 1) whose `seconds(size)` an item are near the best.

    Tries the next larger size while that gains something. A size that runs out of memory ends the search.
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


def largest_batch_that_fits(bytes_of: Callable[[int], int], free: int, sizes: tuple[int, ...] = SIZES) -> int:
    """The largest of `sizes` that takes no more than `free` bytes; 1 if none does."""
    return max((size for size in sizes if bytes_of(size) <= free), default=1)


def kept_size(found: object) -> int | None:
    """A batch size from the cache folder; None if something else stands there."""
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 1 else None


def measured_batch_size(
    dit: DiT, memory: MemoryModel, target: Size, sizes: tuple[int, ...], synchronize: Callable[[], None]
) -> int:
    """The smallest batch of `sizes` that fills the device at this target."""
    return smallest_saturating_batch(partial(seconds_a_forward, dit, memory, target, synchronize), sizes)


@memory_faults()
@torch.inference_mode()
def seconds_a_forward(
    dit: DiT, memory: MemoryModel, target: Size, synchronize: Callable[[], None], items: int
) -> float:
    """The better of two passes of the DiT after a warm-up, with guidance and one reference each."""
    device = next(dit.parameters()).device
    height, width = memory.latent_size(target)
    latents = torch.randn(items, memory.vae.z_dim, height, width, device=device)
    text = torch.randn(memory.tokens(target) // 4 + TEXT_TOKENS, dit.cfg.text_dim, device=device)
    features = (text.to(dit.dtype),) * items
    given = Conditioning(
        noise=latents, references=(latents,), positive=features, negative=features, scales=(4.0,) * items
    )
    levels = sigmas(1, "original")  # which schedule makes no difference to the time
    seconds, _, _ = timed(lambda: denoise(dit, given, levels), synchronize, 2)
    return min(seconds)
