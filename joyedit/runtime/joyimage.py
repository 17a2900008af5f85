"""The real backend: it owns the device and the three networks."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.job.spec import RunConfig, Size
from joyedit.models.attention import BACKENDS
from joyedit.models.dit import DoubleBlock
from joyedit.models.qwen import PictureFeatures, load_image_processor, load_tokenizer
from joyedit.models.schedule import ScheduleName, sigmas
from joyedit.runtime.backend import BackendInfo, BatchInput
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

        A picture that several items or slots share goes through the vision tower and the VAE once.
        """
        seen: dict[int, tuple[PictureFeatures, Tensor]] = {}
        for picture in (p for pictures in batch.pictures for p in pictures):
            if id(picture) not in seen:
                latent = self.vae.encode(pixels_of(picture, self.device))
                seen[id(picture)] = (self.conditioner.see(picture), latent)
        prompts, guided = [], []
        for sized, pictures in zip(batch.batch.items, batch.pictures, strict=True):
            features = [seen[id(picture)][0] for picture in pictures]
            prompts.append(self.conditioner.prompt(sized.item.instruction, features))
            if sized.item.sampling.guidance_scale > 1:
                guided.append(self.conditioner.prompt(sized.item.sampling.negative_prompt, features))
        texts = self.conditioner.features([*prompts, *guided])
        rest = iter(texts[len(prompts) :])
        samplings = [sized.item.sampling for sized in batch.batch.items]
        slots = range(len(batch.pictures[0]))
        conditioning = Conditioning(
            noise=torch.cat([self._noise(s.item.sampling.seed, s.target) for s in batch.batch.items]).to(self.device),
            references=tuple(torch.cat([seen[id(pictures[slot])][1] for pictures in batch.pictures]) for slot in slots),
            positive=tuple(texts[: len(prompts)]),
            negative=tuple(next(rest) if s.guidance_scale > 1 else None for s in samplings),
            scales=tuple(s.guidance_scale for s in samplings),
        )
        return Encoded(conditioning=conditioning, steps=samplings[0].steps)

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
