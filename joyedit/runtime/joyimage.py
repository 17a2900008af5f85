"""The real backend: it owns the device and the three networks."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.job.spec import AttentionName, RunConfig, Size
from joyedit.models.attention import BACKENDS
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.models.qwen import Prefix, TextEncoder, load_image_processor, load_tokenizer
from joyedit.models.schedule import SHIFT, ScheduleName, sigmas
from joyedit.models.vae import VAE
from joyedit.runtime.backend import BackendInfo, BatchInput
from joyedit.runtime.cache import ContentCache
from joyedit.runtime.compiling import Compilation, compile_dit, keep_compiled_code, worth_compiling
from joyedit.runtime.conditioning import (
    Conditioner,
    PromptBuilder,
    TokenizerError,
    picture_of,
    pixels_of,
)
from joyedit.runtime.denoise import Conditioning, denoise, initial_noise
from joyedit.runtime.device import DTYPES, choose_device, choose_dtype
from joyedit.runtime.kernels import AttentionChoice, choose_attention
from joyedit.runtime.memory import memory_faults
from joyedit.weights import random
from joyedit.weights.defaults import nano_folder
from joyedit.weights.layouts import open_checkpoint, resolve
from joyedit.weights.load import check, load
from joyedit.weights.random import SizeName

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


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The networks on their device, and what belongs to them."""

    dit: DiT
    vae: VAE
    text_encoder: TextEncoder
    tokenizer_folder: Path
    processor_folder: Path
    schedule: ScheduleName
    shift: float
    layout: str
    attention: AttentionChoice


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Device and dtype with every `auto` decided."""

    device: torch.device
    dtype: str

    @classmethod
    def of(cls, config: RunConfig) -> Wanted:
        """Raises DeviceError for what is not to be had."""
        device = choose_device(config.device)
        return cls(device=device, dtype=choose_dtype(config.dtype, device))

    def attention(self, wish: AttentionName, dit: DiTConfig) -> AttentionChoice:
        """The attention backend for this DiT. Raises DeviceError."""
        return choose_attention(wish, self.device, DTYPES[self.dtype], dit.num_heads, dit.head_dim)

    def dtype_of(self, network: str, parameter: str) -> torch.dtype:
        """Everything in the run's dtype, but the time embedder in fp32: its input spans 0 to 1000."""
        if network == "transformer" and ".time_embedder." in parameter:
            return torch.float32
        return DTYPES[self.dtype]


class JoyImageBackend:
    """Encoder, DiT and VAE of one checkpoint on one device."""

    def __init__(self, parts: Parts, wanted: Wanted, config: RunConfig, model: str, started: float) -> None:
        """`parts` are on the device already. `started`: when loading began, on time.perf_counter's clock.

        Raises CheckpointError for a tokenizer or an image processor that cannot be used.
        """
        self.device = wanted.device
        self.dit, self.vae, self.text_encoder = parts.dit, parts.vae, parts.text_encoder
        self.attention = parts.attention
        self.dit.attend = BACKENDS[parts.attention.name]
        if self.device.type == "cuda":  # what the tensor cores read; a CPU is faster with planes of channels
            self.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.shift = parts.shift
        self.schedule: ScheduleName = parts.schedule if config.schedule == "auto" else config.schedule
        try:
            builder = PromptBuilder(load_tokenizer(parts.tokenizer_folder), parts.text_encoder.image_token)
            processor = load_image_processor(parts.processor_folder)
        except (TokenizerError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{parts.tokenizer_folder}: the tokenizer or image processor cannot be used ({error})"
            ) from error
        self.cache = ContentCache(CACHE_BYTES)
        self.conditioner = Conditioner(parts.text_encoder, builder, processor)
        self.compilation = Compilation(on=False)
        if worth_compiling(config, self.device):
            self.compilation = compile_dit(self.dit, self.device)
        notes = tuple(note for note in (self.attention.note, self.compilation.note) if note)
        self.info = BackendInfo(
            model=model,
            layout=parts.layout,
            device=_device_name(self.device),
            dtype=wanted.dtype,
            attention=self.attention.name,
            schedule=self.schedule,
            load_seconds=time.perf_counter() - started,
            compiled=self.compilation.on,
            compile_seconds=self.compilation.seconds,
            notes=notes,
        )

    @memory_faults()
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

    @memory_faults()
    @torch.inference_mode()
    def denoise(self, encoded: Encoded, on_step: Callable[[int, int], None]) -> Tensor:
        """Latents (B, C, h, w), fp32."""
        levels = sigmas(encoded.steps, self.schedule, self.shift)
        return denoise(self.dit, encoded.conditioning, levels, on_step)

    def not_finite(self, latents: Tensor) -> tuple[int, ...]:
        """Which items' latents hold a NaN or an infinity."""
        fine: list[bool] = latents.isfinite().flatten(1).all(dim=1).tolist()
        return tuple(place for place, is_fine in enumerate(fine) if not is_fine)

    @memory_faults()
    @torch.inference_mode()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """One RGB picture for each item, decoded one by one, so that none depends on its company."""
        return [picture_of(self.vae.decode(latent[None])[0]) for latent in latents]

    @memory_faults()
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

    def free_memory(self) -> None:
        """Drop what is only kept for later: the pictures' openings and latents, and freed blocks."""
        self.cache.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        del self.dit, self.vae, self.text_encoder, self.conditioner
        self.free_memory()

    def _latent_size(self, target: Size) -> Size:
        factor = self.vae.cfg.spatial_factor
        return target[0] // factor, target[1] // factor

    def _noise(self, seed: int, target: Size) -> Tensor:
        return initial_noise(seed, self.vae.cfg.z_dim, *self._latent_size(target))


def load_backend(config: RunConfig) -> JoyImageBackend:
    """Find, recognise, check and load the checkpoint that `config.model` names.

    Raises CheckpointError, DeviceError or UsageError, with nothing half loaded.
    """
    if config.model is None:
        raise CheckpointError("no model is given")
    started = time.perf_counter()
    keep_compiled_code(config)
    wanted = Wanted.of(config)
    checkpoint = open_checkpoint(resolve(config.model))
    check(checkpoint.components, checkpoint.layout)
    attention = wanted.attention(config.attention, checkpoint.dit.cfg)
    for component in checkpoint.components:
        load(component, wanted.device, partial(wanted.dtype_of, component.name))
    checkpoint.text_encoder.rebuild_rotary(wanted.device)
    parts = Parts(
        dit=checkpoint.dit,
        vae=checkpoint.vae,
        text_encoder=checkpoint.text_encoder,
        tokenizer_folder=checkpoint.tokenizer_folder,
        processor_folder=checkpoint.processor_folder,
        schedule=checkpoint.schedule,
        shift=checkpoint.shift,
        layout=checkpoint.layout + (" (Edit-Plus)" if checkpoint.edit_plus else ""),
        attention=attention,
    )
    return JoyImageBackend(parts, wanted, config, config.model, started)


def random_backend(size: SizeName, config: RunConfig) -> JoyImageBackend:
    """A backend of a size with random weights, built on the device; tokenizer and processor are nano's."""
    started = time.perf_counter()
    keep_compiled_code(config)
    wanted = Wanted.of(config)
    folder = nano_folder()
    tokens = load_tokenizer(folder / "tokenizer")
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    ids = {f"{name}_token_id": int(tokens.convert_tokens_to_ids(token)) for name, token in names.items()}
    dit, vae, text_encoder = random.build(size, wanted.device, wanted.dtype_of, ids)
    parts = Parts(
        dit=dit,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer_folder=folder / "tokenizer",
        processor_folder=folder / "processor",
        schedule="diffusers",
        shift=SHIFT,
        layout="random weights",
        attention=wanted.attention(config.attention, random.configs(size)[0]),
    )
    return JoyImageBackend(parts, wanted, config, f"random {size}", started)


def content_key(picture: Image.Image) -> bytes:
    """A digest of an RGB picture's size and pixels."""
    digest = hashlib.sha256(f"{picture.width}x{picture.height}".encode())
    digest.update(picture.tobytes())
    return digest.digest()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
