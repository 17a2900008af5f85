"""Memory of the device: what a batch will take, how much there is, and how torch says that there is none.

The memory model counts tensors by their shapes. The report shows its prediction beside the measured peak.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from joyedit.errors import first_line
from joyedit.job.pictures import machine_memory
from joyedit.job.sizes import Size
from joyedit.job.spec import PrecisionName
from joyedit.job.speed.settings import EXACT, Speed, StepReuse
from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.runtime.protocol import OutOfMemory

TEXT_TOKENS = 64
"""Tokens of an instruction and of the turns around it, without its picture: an assumption of this model."""

RESERVE = 2 * 2**30
"""Left free on a GPU: kernels' own workspaces, and what the allocator cannot piece together."""

CACHE_LEAST, CACHE_MOST = 128 * 2**20, 512 * 2**20
CACHE_SHARE = 1 / 32
"""The part of the free memory that prefixes and latents of pictures may take. At full size and 1024 pixels a
picture takes 170 MB. The planner puts equal pictures next to each other, so three are enough, and everything
resident at full size stays under 52 GB."""

# What allocators say beside torch.OutOfMemoryError: cuBLAS and the driver, the CPU's own, and Metal's.
_NO_ROOM = (
    "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory", "can't allocate memory", "MPS backend out of memory",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """What a batch takes beside the weights. `itemsize`: bytes of one number in the networks' dtype.

    With `precision` int8, sums of integers are there before they become such numbers.
    """

    dit: DiTConfig
    vae: VAEConfig
    itemsize: int
    precision: PrecisionName = "exact"
    speed: Speed = EXACT
    """What steps leave out: what stands for it is kept for each branch."""

    def latent_size(self, target: Size) -> Size:
        """(height, width) of a picture's latent."""
        factor = self.vae.spatial_factor
        return target[0] // factor, target[1] // factor

    def tokens(self, target: Size) -> int:
        """Image tokens of a picture in the DiT."""
        height, width = self.latent_size(target)
        ph, pw = self.dit.patch
        return (height // ph) * (width // pw)

    def batch_bytes(self, target: Size, items: int, steps: int = 50, references: int = 1) -> int:
        """The most bytes that activations of a batch take at once, with guidance."""
        return max(self.denoising_bytes(target, items, steps, references), self.decoding_bytes(target))

    def denoising_bytes(self, target: Size, items: int, steps: int = 50, references: int = 1) -> int:
        """The same for the denoising alone."""
        tokens = self.tokens(target)
        branch = (1 + references) * tokens + references * tokens // 4 + TEXT_TOKENS
        sums = 2 * items * branch * self.dit.mlp_dim * (4 if self.precision == "int8" else 0)
        kept, speed = 0, self.speed
        if speed.reuse is not None:  # residuals of each branch
            kept += 2 * items * reuse_bytes(self.dit, tokens, branch, speed.reuse, self.itemsize)
        if speed.regions is not None:
            kept += 2 * items * keys_bytes(self.dit, branch, self.itemsize)
        return sums + kept + denoising_bytes(self.dit, 2 * items * branch, steps, self.itemsize)

    def decoding_bytes(self, target: Size) -> int:
        """The same for the decoding alone: pictures are decoded one by one."""
        return decoding_bytes(self.vae, *target, self.itemsize)

    def conditioning_bytes(self, target: Size) -> int:
        """What an encoded edit waits with: its texts' features in both branches. Latents are small beside them."""
        return 2 * (self.tokens(target) // 4 + TEXT_TOKENS) * self.dit.text_dim * self.itemsize

    def encoding_bytes(self, target: Size, text: Any) -> int:
        """The same for encoding one reference of this size. `text` is the text part of the encoder's configuration.

        The VAE's encoder takes most. Keys and values of the prompt wait meanwhile.
        """
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        tokens = self.tokens(target) // 4 + TEXT_TOKENS
        known = int(2 * tokens * text.num_hidden_layers * text.num_key_value_heads * head * self.itemsize)
        return encoding_bytes(self.vae, *target, self.itemsize) + known


def denoising_bytes(cfg: DiTConfig, tokens: int, steps: int, itemsize: int) -> int:
    """Activations of one forward over `tokens` (image and text, all branches), and the run's modulations.

    A block at its widest holds the residual stream, the attention's output, the MLP's input, its inner layer
    before and after the activation, and its output. The schedule adds six rows a block and stream.
    """
    widest = 4 * cfg.hidden_size + 2 * cfg.mlp_dim
    return tokens * widest * itemsize + 2 * steps * cfg.num_layers * 12 * cfg.hidden_size * 4


def reuse_bytes(cfg: DiTConfig, target: int, tokens: int, reuse: StepReuse, itemsize: int) -> int:
    """What step reuse takes of one branch with `target` image tokens of the target, and `tokens` in all.

    From earlier steps it keeps the residuals of the first block and of the others, as many as the order needs; of the
    step that runs, the first block's residual and the stream behind it.
    """
    return ((reuse.order + 3) * target + tokens) * cfg.hidden_size * itemsize


def keys_bytes(cfg: DiTConfig, tokens: int, itemsize: int) -> int:
    """What regions take of one branch of so many tokens: keys and values of all blocks."""
    return 2 * cfg.num_layers * tokens * cfg.hidden_size * itemsize


def decoding_bytes(cfg: VAEConfig, height: int, width: int, itemsize: int) -> int:
    """Activations of decoding one picture, at full resolution.

    These are the residual, the convolution's input and output in the networks' dtype, and the norm's input in
    fp32, twice.
    """
    return height * width * cfg.decoder_base_dim * (3 * itemsize + 2 * 4)


def encoding_bytes(cfg: VAEConfig, height: int, width: int, itemsize: int) -> int:
    """Activations of encoding one picture, at full resolution: as those of decoding one."""
    return height * width * cfg.base_dim * (3 * itemsize + 2 * 4)


def available_bytes(device: torch.device) -> int:
    """Bytes of the device that a model could take: what is free, and what torch keeps without using it.

    What another model of this process uses is not among them.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":  # what Metal advises to use of the memory that both share
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return machine_memory.available_bytes() or 0  # 0 where the system does not say


def empty_cache(device: torch.device) -> None:
    """Give what torch keeps of the device's memory, and does not use, back to the system."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def cache_bytes(free: int) -> int:
    """The capacity of the content cache, where `free` bytes are left beside the weights."""
    return max(CACHE_LEAST, min(CACHE_MOST, int(CACHE_SHARE * free)))


@contextmanager
def memory_faults() -> Iterator[None]:
    """A context, or a decorator, that raises `OutOfMemory` for any lack of memory inside it.

    The caller must drop the error's context before it goes on: its traceback holds the tensors that fill the device.
    """
    message: str | None = None
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        message = first_line(error)
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_ROOM):
            raise
        message = first_line(error)
    if message is not None:
        raise OutOfMemory(message)
