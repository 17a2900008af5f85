"""The real backend: it owns the device and the three networks."""

from __future__ import annotations

import hashlib
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.job.spec import RunConfig, Size
from joyedit.models import flops
from joyedit.models.attention import BACKENDS
from joyedit.models.dit import DiT
from joyedit.models.qwen import Prefix, load_image_processor, load_tokenizer
from joyedit.models.schedule import ScheduleName, sigmas
from joyedit.runtime.joyimage.batch_size import (
    SIZES,
    decoding_bytes,
    denoising_bytes,
    largest_batch_that_fits,
    remembered_size,
    smallest_saturating_batch,
)
from joyedit.runtime.joyimage.conditioning import Conditioner, PromptBuilder, TokenizerError
from joyedit.runtime.joyimage.denoise import Conditioning, denoise, initial_noise
from joyedit.runtime.joyimage.feature_cache import ContentCache
from joyedit.runtime.joyimage.memory import memory_faults
from joyedit.runtime.joyimage.offload import WINDOW, NetworkSwapper
from joyedit.runtime.joyimage.pixels import levels_of, rounded, scaled
from joyedit.runtime.joyimage.streams import Streams
from joyedit.runtime.protocol import BackendInfo, BatchInput, DeviceStage, DeviceTimestamp
from joyedit.runtime.tuning.compile import Compilation, compile_dit, worth_compiling
from joyedit.runtime.tuning.device import DTYPES
from joyedit.runtime.tuning.fused_check import fuse
from joyedit.runtime.tuning.matmul_peak import matmul_tflops, timed
from joyedit.runtime.tuning.measurements import Measurements
from joyedit.weights.load import Loading

if TYPE_CHECKING:
    from joyedit.runtime.joyimage.networks import DeviceChoice, Networks

# Image tokens of both guidance branches that one forward on a CPU should hold, for its caches.
AUTO_TOKENS = 4096
AUTO_LARGEST = 8
TEXT_TOKENS = 64
"""Of an instruction and the turns around it, beside its picture: what the memory model and measurements assume."""

CACHE_LEAST, CACHE_MOST = 128 * 2**20, 512 * 2**20
CACHE_SHARE = 1 / 32
"""Of what is free after loading, for openings and latents of pictures: at full size and 1024 pixels a
picture takes 170 MB. The planner puts equal pictures next to each other, so three are enough, and all that
is resident at full size stays under 52 GB."""
RESERVE = 2 * 2**30
"""Left free on a GPU: kernels' own workspaces, and what the allocator cannot piece together."""

ContentKey = tuple[bytes, ...]
"""What an item's references look like, in order."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A batch, conditioned: what goes into the denoising loop, and its number of steps.

    `operations` are the floating-point operations that the conditioning took, by formula.
    """

    conditioning: Conditioning
    steps: int
    operations: int = 0


@dataclass(frozen=True, kw_only=True)
class PendingPictures:
    """Pictures on their way to the host. `levels`: uint8 (H, W, 3) each; `finite`: (B,) bool; both on the host.

    They are there when `copied` is reached.
    """

    levels: Sequence[Tensor]
    finite: Tensor
    copied: DeviceTimestamp

    def __len__(self) -> int:
        return len(self.levels)

    def is_finite(self, place: int) -> bool:
        """Whether the latents of this item hold neither a NaN nor an infinity."""
        self.copied.seconds()
        return bool(self.finite[place])

    def picture(self, place: int) -> Image.Image:
        """One picture, RGB."""
        self.copied.seconds()
        return Image.fromarray(self.levels[place].numpy(), "RGB")


class JoyImageBackend:
    """Encoder, DiT and VAE of one checkpoint on one device."""

    def __init__(
        self,
        networks: Networks,
        wanted: DeviceChoice,
        config: RunConfig,
        model: str,
        started: float,
        loading: Loading | None = None,
    ) -> None:
        """`networks` are on the device already (with offload, the VAE alone), the DiT when `loading` has ended.

        `started`: when loading began, on time.perf_counter's clock. Raises CheckpointError for a tokenizer
        or an image processor that cannot be used.
        """
        self.device = wanted.device
        self.streams = Streams(wanted.device)
        self._dit, self.vae, self.text_encoder = networks.dit, networks.vae, networks.text_encoder
        self._loading = loading
        self._swapper: NetworkSwapper | None = None
        self.window = 1
        if config.offload == "encoder":
            self._swapper = NetworkSwapper(wanted.device, {"encoder": networks.text_encoder, "dit": networks.dit})
            self.window = WINDOW
        self.attention = networks.attention
        self._dit.attend = BACKENDS[networks.attention.name]
        if self.device.type == "cuda":  # what the tensor cores read; a CPU is faster with planes of channels
            self.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.shift = networks.shift
        self.schedule: ScheduleName = networks.schedule if config.schedule == "auto" else config.schedule
        try:
            builder = PromptBuilder(load_tokenizer(networks.tokenizer_folder), networks.text_encoder.image_token)
            processor = load_image_processor(networks.processor_folder)
        except (TokenizerError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{networks.tokenizer_folder}: the tokenizer or image processor cannot be used ({error})"
            ) from error
        self._weights = self._weights_on_device(DTYPES[wanted.dtype].itemsize)
        share = int(CACHE_SHARE * (self._available() - self._weights))
        self.cache = ContentCache(max(CACHE_LEAST, min(CACHE_MOST, share)))
        self._batch_sizes: dict[int, int] = {}
        self._predicted = self._peak = 0
        self._networks = threading.Lock()  # the planner's thread measures, the main one edits
        self._operations = 0  # of the conditioning, so far
        self.conditioner = Conditioner(networks.text_encoder, builder, processor)
        self.fusion = fuse(config.fused, self._dit, self.vae, self.device, DTYPES[wanted.dtype])
        self.compilation = Compilation(on=False)
        if worth_compiling(config, self.device, self.fusion.on):
            self.ready()
            with self._on_device("dit"):
                self.compilation = compile_dit(self._dit, self.device)
            if self.fusion.on and not self.compilation.on:
                self._dit.fuse_blocks()
        notes = tuple(note for note in (self.attention.note, self.fusion.note, self.compilation.note) if note)
        self.info = BackendInfo(
            model=model,
            layout=networks.layout,
            device=_device_name(self.device),
            dtype=wanted.dtype,
            attention=self.attention.name,
            schedule=self.schedule,
            load_seconds=time.perf_counter() - started,
            fused=self.fusion.on and not self.compilation.on,
            compiled=self.compilation.on,
            compile_seconds=self.compilation.seconds,
            notes=notes,
        )
        self.streams.encoder_waits_for_work()

    @property
    def dit(self) -> DiT:
        """The DiT with its weights; waits until they are there."""
        self.ready()
        return self._dit

    def ready(self) -> None:
        """Wait for the DiT's weights. Raises CheckpointError or DeviceError."""
        loading = self._loading
        if loading is not None:
            loading.wait()
            self._loading = None

    @memory_faults()
    @torch.inference_mode()
    def encode(self, batch: BatchInput) -> Encoded:
        """Text and picture features, reference latents and noise of a batch.

        What depends on the pictures alone is kept: their latents, and the opening of every prompt that
        shows them, which both guidance branches and all instructions for a picture share.
        """
        before = self._operations
        samplings = [sized.item.sampling for sized in batch.batch.items]
        known = {id(picture): content_key(picture) for pictures in batch.pictures for picture in pictures}
        keys = [tuple(known[id(picture)] for picture in pictures) for pictures in batch.pictures]
        slots = range(len(batch.pictures[0]))
        noise = torch.cat([self._noise(s.item.sampling.seed, s.target) for s in batch.batch.items])
        with self._on_device("encoder"), self.streams.encoding():
            texts = self._texts(batch, keys)
            conditioning = Conditioning(
                noise=self.streams.to_device(noise),
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
        self.streams.work_waits_for_encoder(conditioning.tensors())
        self._predict(batch, samplings[0].steps)
        return Encoded(conditioning=conditioning, steps=samplings[0].steps, operations=self._operations - before)

    def _predict(self, batch: BatchInput, steps: int) -> None:
        """Keep the largest peak that the memory model expects of a batch."""
        if self.device.type == "cuda":
            first = batch.batch.items[0]
            working = self._working_bytes(first.target, len(batch.pictures), steps, len(first.references))
            self._predicted = max(self._predicted, self._weights + self.cache.nbytes + working)

    @contextmanager
    def _on_device(self, network: str) -> Iterator[None]:
        """Have this network on the device, where networks take turns, and keep it there meanwhile."""
        with self._networks:
            if self._swapper is not None and self._swapper.activate(network):
                self.streams.encoder_waits_for_work()
            yield

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
            shared = len(opening.features) - self.conditioner.builder.dropped
            self._operations += sum(
                flops.text_encoder(self.text_encoder.config.text_config, len(f) - shared, len(opening.features))
                for f in features
                if len(f) > shared
            )
            found |= {(n, text): f for n in numbers for text, f in zip(wanted, features, strict=True)}
        return found

    def _opening(self, pictures: Sequence[Image.Image]) -> Prefix:
        seen = [self.conditioner.see(picture) for picture in pictures]
        opening = self.conditioner.open(seen)
        config = self.text_encoder.config
        merge = config.vision_config.spatial_merge_size
        shared = self.conditioner.builder.shared(len(opening.features))
        self._operations += flops.text_encoder(config.text_config, len(opening.features) - shared, shared)
        self._operations += sum(
            flops.vision_tower(config.vision_config, merge * rows, merge * columns)
            for rows, columns in (features.grid for features in seen)
        )
        return opening

    def _latent(self, picture: Image.Image, key: bytes) -> Tensor:
        return self.cache.get(("latent", key), partial(self._vae_encode, picture))

    def _vae_encode(self, picture: Image.Image) -> Tensor:
        self._operations += flops.vae_encode(self.vae.cfg, picture.height, picture.width)
        return self.vae.encode(scaled(self.streams.to_device(levels_of(picture))))

    @memory_faults()
    @torch.inference_mode()
    def denoise(self, encoded: Encoded, on_step: Callable[[int, int], None]) -> Tensor:
        """Latents (B, C, h, w), fp32."""
        self.ready()
        levels = sigmas(encoded.steps, self.schedule, self.shift)
        with self._on_device("dit"):
            return denoise(self._dit, encoded.conditioning, levels, on_step)

    @memory_faults()
    @torch.inference_mode()
    def decode_later(self, latents: Tensor) -> PendingPictures:
        """The pictures of latents (B, C, h, w), decoded one by one, so that none depends on its company."""
        levels = [rounded(self.vae.decode(latent[None])[0]) for latent in latents]
        finite = latents.isfinite().flatten(1).all(dim=1)
        copies, copied = self.streams.to_host([*levels, finite])
        return PendingPictures(levels=copies[:-1], finite=copies[-1], copied=copied)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """One RGB picture for each item; waits for them."""
        pending = self.decode_later(latents)
        return [pending.picture(place) for place in range(len(pending))]

    def timestamp(self, stage: DeviceStage) -> DeviceTimestamp:
        """A timestamp behind all that was queued for this stage."""
        return self.streams.timestamp(stage)

    def operations(self, encoded: Encoded) -> Mapping[DeviceStage, int]:
        """Floating-point operations of a batch by stage; what came from the cache took none."""
        given, vae = encoded.conditioning, self.vae.cfg
        texts = [len(features) for features in (*given.positive, *given.negative) if features is not None]
        target, *references = (self._dit.grid(latent) for latent in (given.noise, *given.references))
        tokens = [rows * columns for rows, columns in (target, *references)]
        height, width = (side * vae.spatial_factor for side in given.noise.shape[-2:])
        return {
            "encode": encoded.operations,
            "denoise": encoded.steps * flops.dit_step(self._dit.cfg, tokens[0], sum(tokens[1:]), texts),
            "decode": len(given.noise) * flops.vae_decode(vae, height, width),
        }

    def matmul_tflops(self) -> float | None:
        """Measured in a moment; None where the device has no room left for that, or does not answer."""
        try:
            return matmul_tflops(self.device, DTYPES[self.info.dtype])
        except RuntimeError:
            return None

    @memory_faults()
    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        self.streams.synchronize()

    def peak_memory(self) -> int | None:
        """Peak bytes allocated on the GPU; on the CPU, the process's largest resident size."""
        if self.device.type == "cuda":
            return max(self._peak, torch.cuda.max_memory_allocated(self.device))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def predicted_peak(self) -> int | None:
        """What the memory model says of the largest batch so far, in bytes; None on the CPU."""
        return self._predicted or None

    def auto_batch_size(self, target: Size) -> int:
        """As many items as fill the device at this target, if they fit: both guidance branches and a reference.

        On a GPU it is measured, once for targets of about the same size, and remembered on the disk.
        """
        tokens = self._tokens(target)
        if self.device.type != "cuda":
            return max(1, min(AUTO_LARGEST, AUTO_TOKENS // (4 * tokens)))
        room = self._available() - self._weights - self.cache.capacity - RESERVE
        most = largest_batch_that_fits(partial(self._working_bytes, target), room)
        place = round(2 * math.log2(tokens))  # one measurement for all buckets of a base size
        if place not in self._batch_sizes:
            cfg = self._dit.cfg
            key = "|".join(map(str, (
                torch.cuda.get_device_name(self.device), torch.__version__, f"{cfg.num_layers}x{cfg.hidden_size}",
                self.info.dtype, self.info.attention, self._blocks(), place,
            )))  # fmt: skip
            remembered = Measurements("batch-sizes.json")
            size = remembered_size(remembered.get(key))
            if size is None:
                size = self._measured_batch_size(target, most)
                remembered.put(key, size)
            self._batch_sizes[place] = size
        return min(self._batch_sizes[place], most)

    def _blocks(self) -> str:
        return "fused" if self.info.fused else "compiled" if self.info.compiled else "plain"

    def _measured_batch_size(self, target: Size, most: int) -> int:
        """Measure; what that takes of memory does not count as the run's peak."""
        self.ready()
        with self._on_device("dit"):
            self._peak = self.peak_memory() or 0
            sizes = tuple(size for size in SIZES if size <= most)
            size = smallest_saturating_batch(partial(self._seconds_a_forward, target), sizes)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        return size

    @memory_faults()
    @torch.inference_mode()
    def _seconds_a_forward(self, target: Size, items: int) -> float:
        """The better of two passes of the DiT after a first one, with guidance and one reference each."""
        height, width = self._latent_size(target)
        latents = torch.randn(items, self.vae.cfg.z_dim, height, width, device=self.device)
        text = torch.randn(self._tokens(target) // 4 + TEXT_TOKENS, self._dit.cfg.text_dim, device=self.device)
        features = (text.to(self._dit.dtype),) * items
        given = Conditioning(
            noise=latents, references=(latents,), positive=features, negative=features, scales=(4.0,) * items
        )
        levels = sigmas(1, self.schedule, self.shift)
        seconds, _, _ = timed(lambda: denoise(self._dit, given, levels), self.streams.synchronize, 2)
        return min(seconds)

    def _working_bytes(self, target: Size, items: int, steps: int = 50, references: int = 1) -> int:
        """What a batch takes beside the weights and the cache, by the memory model."""
        tokens = self._tokens(target)
        branch = (1 + references) * tokens + references * tokens // 4 + TEXT_TOKENS
        itemsize = DTYPES[self.info.dtype].itemsize
        return max(
            denoising_bytes(self._dit.cfg, 2 * items * branch, steps, itemsize),
            decoding_bytes(self.vae.cfg, *target, itemsize),
        )

    def _tokens(self, target: Size) -> int:
        height, width = self._latent_size(target)
        ph, pw = self._dit.cfg.patch
        return (height // ph) * (width // pw)

    def _available(self) -> int:
        """Bytes that this process has on the device or could still get, however far loading is."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)
        try:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):  # the system does not tell
            return 0

    def _weights_on_device(self, itemsize: int) -> int:
        """Bytes of the weights that are on the device at once, when all are loaded."""
        dit, encoder, vae = (
            sum(p.numel() for p in network.parameters()) * itemsize
            for network in (self._dit, self.text_encoder, self.vae)
        )
        return vae + (dit + encoder if self._swapper is None else max(dit, encoder))

    def free_memory(self) -> None:
        """Drop what is only kept for later: the pictures' openings and latents, and freed blocks."""
        self.cache.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
        del self._dit, self.vae, self.text_encoder, self.conditioner
        self.free_memory()

    def _latent_size(self, target: Size) -> Size:
        factor = self.vae.cfg.spatial_factor
        return target[0] // factor, target[1] // factor

    def _noise(self, seed: int, target: Size) -> Tensor:
        return initial_noise(seed, self.vae.cfg.z_dim, *self._latent_size(target))


def content_key(picture: Image.Image) -> bytes:
    """A digest of an RGB picture's size and pixels."""
    digest = hashlib.sha256(f"{picture.width}x{picture.height}".encode())
    digest.update(picture.tobytes())
    return digest.digest()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
