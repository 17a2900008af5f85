"""The real backend: it owns the device and the three networks."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.job.spec import RunConfig, Size
from joyedit.models.attention import BACKENDS
from joyedit.models.dit import DoubleBlock
from joyedit.models.qwen import Prefix, load_image_processor, load_tokenizer
from joyedit.models.schedule import ScheduleName, sigmas
from joyedit.runtime.backend import BackendInfo, BatchInput
from joyedit.runtime.cache import ContentCache
from joyedit.runtime.conditioning import (
    Conditioner,
    PromptBuilder,
    TokenizerError,
    picture_of,
    pixels_of,
)
from joyedit.runtime.denoise import Conditioning, denoise, initial_noise
from joyedit.runtime.device import DTYPES, choose_attention, choose_device, choose_dtype
from joyedit.weights.layouts import Checkpoint, open_checkpoint, resolve
from joyedit.weights.load import check, load

# Image tokens of both guidance branches that one forward should hold: enough to fill a large GPU
# without a second item at 1024 pixels, and small enough for a CPU's caches.
AUTO_TOKENS = {"cuda": 16384, "cpu": 4096}
AUTO_LARGEST = 8

CACHE_BYTES = 512 * 2**20
"""For openings and latents of pictures: at full size and 1024 pixels, three pictures."""

ContentKey = tuple[bytes, ...]
"""What an item's references look like, in order."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A batch, conditioned: what goes into the denoising loop, and its number of steps."""

    conditioning: Conditioning
    steps: int


class JoyImageBackend:
    """Encoder, DiT and VAE of one checkpoint on one device."""

    def __init__(self, checkpoint: Checkpoint, config: RunConfig, model: str) -> None:
        """Load the weights. Raises CheckpointError or DeviceError, with nothing half loaded."""
        started = time.perf_counter()
        self.device = choose_device(config.device)
        dtype = choose_dtype(config.dtype, self.device)
        attention, why = choose_attention(config.attention, self.device, dtype)
        check(checkpoint.components, checkpoint.layout)
        for component in checkpoint.components:
            load(component, self.device, _dtype_rule(component.name, DTYPES[dtype]))
        checkpoint.text_encoder.rebuild_rotary(self.device)
        self.dit, self.vae = checkpoint.dit, checkpoint.vae
        self.dit.attend = BACKENDS[attention]
        self.shift = checkpoint.shift
        self.schedule: ScheduleName = checkpoint.schedule if config.schedule == "auto" else config.schedule
        try:
            builder = PromptBuilder(load_tokenizer(checkpoint.tokenizer_folder), checkpoint.text_encoder.image_token)
            processor = load_image_processor(checkpoint.processor_folder)
        except (TokenizerError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{checkpoint.tokenizer_folder}: the tokenizer or image processor cannot be used ({error})"
            ) from error
        self.cache = ContentCache(CACHE_BYTES)
        self.conditioner = Conditioner(checkpoint.text_encoder, builder, processor)
        notes = []
        if why and config.attention == "auto" and self.device.type == "cuda":
            notes.append(f"attention {attention}: {why}")
        if config.compile:
            compile_blocks()
        self.info = BackendInfo(
            model=model,
            layout=checkpoint.layout + (" (Edit-Plus)" if checkpoint.edit_plus else ""),
            device=_device_name(self.device),
            dtype=dtype,
            attention=attention,
            schedule=self.schedule,
            load_seconds=time.perf_counter() - started,
            notes=tuple(notes),
        )

    @torch.inference_mode()
    def encode(self, batch: BatchInput) -> Encoded:
        """Text and picture features, reference latents and noise of a batch.

        What depends on the pictures alone is kept: their latents, and the opening of every prompt that
        shows them, which both guidance branches and all instructions for a picture share.
        """
        samplings = [sized.item.sampling for sized in batch.batch.items]
        known = {id(picture): content_key(picture) for pictures in batch.pictures for picture in pictures}
        keys = [tuple(known[id(picture)] for picture in pictures) for pictures in batch.pictures]
        texts = self._texts(batch, keys)
        slots = range(len(batch.pictures[0]))
        conditioning = Conditioning(
            noise=torch.cat([self._noise(s.item.sampling.seed, s.target) for s in batch.batch.items]).to(self.device),
            references=tuple(
                torch.cat([self._latent(p[slot], key[slot]) for p, key in zip(batch.pictures, keys, strict=True)])
                for slot in slots
            ),
            positive=tuple(texts[i, s.item.instruction] for i, s in enumerate(batch.batch.items)),
            negative=tuple(
                texts[i, s.negative_prompt] if s.guidance_scale > 1 else None for i, s in enumerate(samplings)
            ),
            scales=tuple(s.guidance_scale for s in samplings),
        )
        return Encoded(conditioning=conditioning, steps=samplings[0].steps)

    def _texts(self, batch: BatchInput, keys: Sequence[ContentKey]) -> dict[tuple[int, str], Tensor]:
        """Features by item and text. Items with the same references follow one opening, in one call."""
        groups: dict[ContentKey, list[int]] = {}
        for number, key in enumerate(keys):
            groups.setdefault(key, []).append(number)
        found: dict[tuple[int, str], Tensor] = {}
        for key, numbers in groups.items():
            pictures = batch.pictures[numbers[0]]
            opening = self.cache.get(("opening", key), partial(self._opening, pictures))
            wanted: dict[str, None] = {}
            for number in numbers:
                item = batch.batch.items[number].item
                wanted[item.instruction] = None
                if item.sampling.guidance_scale > 1:
                    wanted[item.sampling.negative_prompt] = None
            features = self.conditioner.follow(opening, list(wanted), bool(pictures))
            found |= {(n, text): f for n in numbers for text, f in zip(wanted, features, strict=True)}
        return found

    def _opening(self, pictures: Sequence[Image.Image]) -> Prefix:
        return self.conditioner.open([self.conditioner.see(picture) for picture in pictures])

    def _latent(self, picture: Image.Image, key: bytes) -> Tensor:
        return self.cache.get(("latent", key), lambda: self.vae.encode(pixels_of(picture, self.device)))

    @torch.inference_mode()
    def denoise(self, encoded: Encoded, on_step: Callable[[int, int], None]) -> Tensor:
        """Latents (B, C, h, w), fp32. Raises ArithmeticError when they are not finite."""
        levels = sigmas(encoded.steps, self.schedule, self.shift)
        latents = denoise(self.dit, encoded.conditioning, levels, on_step)
        if not torch.isfinite(latents).all():
            raise ArithmeticError("the latents are not finite (NaN or Inf) after denoising")
        return latents

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """One RGB picture for each item, decoded one by one, so that none depends on its company."""
        return [picture_of(self.vae.decode(latent[None])[0]) for latent in latents]

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_memory(self) -> int | None:
        """Peak bytes allocated on the GPU; on the CPU, the process's largest resident size."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def auto_batch_size(self, target: Size) -> int:
        """As many items as fill the device at this target, both guidance branches counted."""
        height, width = self._latent_size(target)
        ph, pw = self.dit.cfg.patch
        tokens = 2 * (height // ph) * (width // pw)  # the target and one reference
        return max(1, min(AUTO_LARGEST, AUTO_TOKENS[self.device.type] // (2 * tokens)))

    def close(self) -> None:
        self.cache.clear()
        del self.dit, self.vae, self.conditioner
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _latent_size(self, target: Size) -> Size:
        factor = self.vae.cfg.spatial_factor
        return target[0] // factor, target[1] // factor

    def _noise(self, seed: int, target: Size) -> Tensor:
        return initial_noise(seed, self.vae.cfg.z_dim, *self._latent_size(target))


def load_backend(config: RunConfig) -> JoyImageBackend:
    """Find, recognise, check and load the checkpoint that `config.model` names."""
    if config.model is None:
        raise CheckpointError("no model is given")
    return JoyImageBackend(open_checkpoint(resolve(config.model)), config, config.model)


def content_key(picture: Image.Image) -> bytes:
    """A digest of an RGB picture's size and pixels."""
    digest = hashlib.sha256(f"{picture.width}x{picture.height}".encode())
    digest.update(picture.tobytes())
    return digest.digest()


def compile_blocks() -> None:
    """Compile the two halves of the DiT's block, once for all blocks; the attention stays as it is.

    Text lengths change from prompt to prompt, so shapes are dynamic and no instruction recompiles.
    """
    for name in ("before_attention", "after_attention"):
        plain = getattr(DoubleBlock, name)
        if not hasattr(plain, "_torchdynamo_orig_callable"):
            setattr(DoubleBlock, name, torch.compile(plain, dynamic=True))


def _dtype_rule(component: str, dtype: torch.dtype) -> Callable[[str], torch.dtype]:
    """Everything in the run's dtype, but the time embedder in fp32: its input spans 0 to 1000."""
    if component != "transformer":
        return lambda name: dtype
    return lambda name: torch.float32 if ".time_embedder." in name else dtype


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
