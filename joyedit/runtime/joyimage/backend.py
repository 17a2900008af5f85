"""The real backend: it owns the device and the three networks."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from joyedit.job.results.report import host_peak_memory
from joyedit.job.run_config import RunConfig
from joyedit.job.sizes import Size
from joyedit.job.spec import AttentionName
from joyedit.job.speed.bundles import speed_of_run
from joyedit.job.speed.settings import BlockSteps
from joyedit.models.attention import BACKENDS
from joyedit.models.dit import DiT
from joyedit.models.schedule import ScheduleName, sigmas
from joyedit.runtime.joyimage.batch_size import (
    PASSING_SIZES,
    SIZES,
    batch_size_on_cpu,
    kept_size,
    largest_batch_that_fits,
    measured_batch_size,
)
from joyedit.runtime.joyimage.denoise import ALONE, Ranks, denoise
from joyedit.runtime.joyimage.encode import BatchEncoder
from joyedit.runtime.joyimage.encoded import Encoded, EncodedShare, operations_of
from joyedit.runtime.joyimage.feature_cache import ContentCache
from joyedit.runtime.joyimage.memory import RESERVE, MemoryModel, cache_bytes, empty_cache, memory_faults
from joyedit.runtime.joyimage.pixels import PendingPictures, rounded
from joyedit.runtime.joyimage.placing import lift_bound
from joyedit.runtime.joyimage.streams import Streams, computes
from joyedit.runtime.placement.lora_layers import LoraLayers
from joyedit.runtime.placement.plan import ENCODE_AHEAD, spare
from joyedit.runtime.protocol import BackendInfo, DeviceStage, DeviceTimestamp, ReadyBatch
from joyedit.runtime.tuning.attention_choice import choose_attention
from joyedit.runtime.tuning.compile import Compilation, compile_dit, worth_compiling
from joyedit.runtime.tuning.device import DTYPES
from joyedit.runtime.tuning.fused_check import fuse
from joyedit.runtime.tuning.matmul_peak import matmul_tflops
from joyedit.runtime.tuning.measurements import Measurements, cache_note
from joyedit.runtime.tuning.processor import processor_name
from joyedit.weights.load import Loading

if TYPE_CHECKING:
    from joyedit.runtime.joyimage.networks import DeviceChoice, Networks


class JoyImageBackend:
    """Encoder, DiT and VAE of one checkpoint on one device."""

    def __init__(
        self,
        networks: Networks,
        wanted: DeviceChoice,
        config: RunConfig,
        *,
        model: str,
        started: float,
        loading: Loading | None = None,
    ) -> None:
        """`networks` are where their placement says, the DiT when `loading` has ended.

        `started`: when loading began, on time.perf_counter's clock.
        """
        self.device = wanted.device
        self._note = wanted.note
        self.placement, self._placed = networks.placed.placement, networks.placed
        self.streams = Streams(wanted.device, encoder_waits=self.placement.encoder_streams)
        self._dit, self.vae, self.text_encoder = networks.dit, networks.vae, networks.text_encoder
        self._loading = loading
        self.encode_ahead = ENCODE_AHEAD if self.placement.encoder_streams else 1
        self.attention = networks.attention
        self._dit.attend = BACKENDS[networks.attention.name]
        if self.device.type == "cuda":  # what the tensor cores read; a CPU is faster with planes of channels
            self.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.shift = networks.shift
        self.schedule: ScheduleName = networks.schedule if config.schedule == "auto" else config.schedule
        self.speed = speed_of_run(config, self.schedule)
        self.conditioner = networks.conditioner
        itemsize = DTYPES[wanted.dtype].itemsize
        dit, vae = networks.dit.cfg, networks.vae.cfg
        self.memory = MemoryModel(dit=dit, vae=vae, itemsize=itemsize, precision=wanted.precision, speed=self.speed)
        self._weights = self.placement.weights
        self.cache = ContentCache(cache_bytes(self._placed.budget - self._weights))
        self._encoder = BatchEncoder(
            self.text_encoder,
            self.vae,
            self.conditioner,
            self.streams,
            self.cache,
            together=0 if self.placement.encoder_streams else 1,
            all_seen=self.release_encoder,
        )
        self._loras, self._sigmas = networks.loras, networks.sigmas
        beside = self._loras.device_bytes(itemsize)
        room = max(0, self._placed.budget - self.placement.predicted_peak - RESERVE) // 2 if beside else 0
        room = min(room, self._loras.changed_bytes(itemsize if wanted.precision == "exact" else 1))
        self._originals = networks.originals
        self._lora_layers = LoraLayers(self._dit, room, None if self._originals is None else self._originals.exact)
        self._weights += beside + room
        self._batch_sizes: dict[int, int] = {}
        self._predicted = self._peak = self._operations = 0
        self._on_device_lock = threading.Lock()  # the planner's thread measures, the main one edits
        self.ranks: Ranks = ALONE
        self.precision = wanted.precision
        self.fusion = fuse(config.fused, self._dit, self.vae, self.device, DTYPES[wanted.dtype], self.precision)
        self.compilation = self._compiled(config)
        self.info = self._describe(networks, model, wanted.dtype, time.perf_counter() - started)
        self.streams.encoder_waits_for_work()

    def _compiled(self, config: RunConfig) -> Compilation:
        """Compile the DiT's blocks where the run asks for it or it repays; else they run as they are."""
        if self.precision != "exact" or not worth_compiling(config, self.device, self.fusion.on):
            return Compilation(on=False)
        self.ready()
        with self._on_device_lock:
            compilation = compile_dit(self._dit, self.device)
        if self.fusion.on and not compilation.on:
            self._dit.fuse_blocks()
        return compilation

    def _describe(self, networks: Networks, model: str, dtype: str, load_seconds: float) -> BackendInfo:
        notes = (self._note, cache_note(), self.attention.note, self.fusion.note, self.compilation.note)
        return BackendInfo(
            model=model,
            layout=networks.layout,
            device=_device_name(self.device),
            dtype=dtype,
            precision=self.precision,
            attention=self.attention.name,
            schedule=self.schedule,
            load_seconds=load_seconds,
            fused=self.fusion.on and not self.compilation.on,
            compiled=self.compilation.on,
            compile_seconds=self.compilation.seconds,
            placement=self._placed.text(),
            notes=tuple(note for note in notes if note),
        )

    def use_attention(self, name: AttentionName) -> None:
        """Take this attention kernel from now on. Raises DeviceError where it does not serve."""
        if name == self.attention.name:
            return
        cfg = self._dit.cfg
        self.attention = choose_attention(name, self.device, DTYPES[self.info.dtype], cfg.num_heads, cfg.head_dim)
        self._dit.attend = BACKENDS[self.attention.name]
        self.info = replace(self.info, attention=self.attention.name)

    @property
    def dit(self) -> DiT:
        """The DiT; waits until its weights are there, or on their way in the order in which it needs them."""
        self.ready()
        return self._dit

    def ready(self) -> None:
        """Wait for the DiT's weights. Raises CheckpointError or DeviceError."""
        if self._placed.dit is not None:
            self._placed.dit.wait_for_rest()
        elif self._loading is not None:
            self._loading.wait()
            self._loading = None

    def encode(self, batch: ReadyBatch) -> Encoded:
        """Text and picture features, reference latents and noise of a batch; by this backend alone."""
        return self._encode(batch, ALONE).alone()

    def encode_share(self, batch: ReadyBatch) -> EncodedShare:
        """As `encode`: the parts of it that are this one's of its `ranks`."""
        return self._encode(batch, self.ranks)

    @computes
    def _encode(self, batch: ReadyBatch, ranks: Ranks) -> EncodedShare:
        loras = batch.items[0].item.loras
        self._loras.changes(loras, self.device)  # what is wrong with them is told before anything is done
        self._wait_for_encoder()
        with self._on_device_lock, self.streams.encoding():
            try:
                parts = self._encoder.encode(batch, ranks)
                whole = parts.whole() if ranks.world == 1 else None
            finally:
                self.release_encoder()
        self.streams.work_waits_for_encoder(parts.tensors() if whole is None else whole.tensors())
        steps = batch.items[0].item.sampling.steps
        self._predict(batch, steps)
        new, self._operations = self._encoder.operations - self._operations, self._encoder.operations
        return EncodedShare(parts=parts, whole=whole, steps=steps, operations=new, loras=loras)

    @computes
    def prepare(self, batches: Sequence[ReadyBatch]) -> None:
        """Read the texts of several batches in one pass over the text encoder's layers, if these pass."""
        if not self.placement.encoder_streams:
            return
        self._wait_for_encoder()
        with self._on_device_lock, self.streams.encoding():
            try:
                self._encoder.prepare(batches, self.ranks)
            finally:
                self.release_encoder()

    def _wait_for_encoder(self) -> None:
        """Wait for the weights of the text encoder that do not pass; the others are waited for one by one."""
        if self._placed.encoder is not None:
            self._placed.encoder.wait_for_rest()

    def release_encoder(self) -> None:
        """Give back what the text encoder's passing layers take of the device while it works."""
        if self._placed.encoder is not None:
            self._placed.encoder.release()

    def _predict(self, batch: ReadyBatch, steps: int) -> None:
        """Keep the largest peak that the memory model expects of a batch."""
        if self.device.type == "cuda":
            references = len(batch.items[0].sized.references)
            working = self.memory.batch_bytes(batch.target, len(batch.items), steps, references)
            self._predicted = max(self._predicted, self._weights + self.cache.nbytes + working)

    @computes
    def denoise(
        self, encoded: Encoded, on_step: Callable[[int, int], None], begin: Callable[[], None] = lambda: None
    ) -> Tensor:
        """Latents (B, C, h, w), fp32. `begin` is called when all is ready for what `ranks` do together."""
        self.ready()
        levels = self._levels(encoded)
        changes = self._loras.changes(encoded.loras, self.device)
        with self._on_device_lock, self._lora_layers.changed(encoded.loras, changes):
            begin()
            return denoise(
                self._dit,
                encoded.whole(self.ranks),
                levels,
                on_step,
                self.ranks,
                speed=self.speed.at(encoded.steps),
                work=encoded.work,
            )

    def block_steps(self, encoded: Encoded) -> Sequence[BlockSteps]:
        """What ran of the steps of each item; empty where nothing was left out."""
        return tuple(encoded.work)

    def _levels(self, encoded: Encoded) -> Tensor:
        """Noise levels of a batch, fp32, (steps + 1,): those that a LoRA or the checkpoint was made for, if it was made
        for so many steps, else those of the schedule.
        """
        for given in (*(lora.sigmas for lora in encoded.loras), self._sigmas):
            if len(given) == encoded.steps:
                return torch.tensor([*given, 0.0])
        return sigmas(encoded.steps, self.schedule, self.shift)

    @computes
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
        """Floating-point operations of a batch by stage. What came from the cache took none."""
        return operations_of(encoded, self._dit, self.vae.cfg)

    def matmul_tflops(self) -> float | None:
        """Measured in a moment; None where the device has no room left for it, or does not answer."""
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
        return host_peak_memory()

    def predicted_peak(self) -> int | None:
        """The memory model's prediction for the largest batch so far, in bytes; None on the CPU."""
        return self._predicted or None

    def reset_peaks(self) -> None:
        """Count both peaks from now on."""
        self._peak = self._predicted = 0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def auto_batch_size(self, target: Size) -> int:
        """As many items as fill the device at this target, if they fit: both guidance branches and a reference.

        On a GPU it is measured once for targets of about the same size, and kept in the cache folder.
        """
        tokens = self.memory.tokens(target)
        if self.device.type != "cuda":
            return batch_size_on_cpu(tokens)
        spare_bytes = RESERVE if self.placement.is_resident else spare(self._placed.budget)
        room = self._placed.budget - self._weights - self.cache.capacity - spare_bytes
        sizes = PASSING_SIZES if self.placement.streams_blocks else SIZES
        most = largest_batch_that_fits(partial(self.memory.batch_bytes, target), room, sizes)
        place = round(2 * math.log2(tokens))  # one measurement for all buckets of a base size
        if place not in self._batch_sizes:
            cfg = self._dit.cfg
            key = "|".join(map(str, (
                torch.cuda.get_device_name(self.device), torch.__version__, f"{cfg.num_layers}x{cfg.hidden_size}",
                self.info.dtype, self.info.attention, self._block_kind(), self.placement.key(), place,
            )))  # fmt: skip
            kept = Measurements("batch-sizes.json")
            size = kept_size(kept.get(key))
            if size is None:
                size = self._measure_batch_size(target, tuple(one for one in sizes if one <= most))
                kept.put(key, size)
            self._batch_sizes[place] = size
        return min(self._batch_sizes[place], most)

    def _block_kind(self) -> str:
        kind = "fused" if self.info.fused else "compiled" if self.info.compiled else "plain"
        return kind if self.precision == "exact" else f"{kind} {self.precision}"

    def _measure_batch_size(self, target: Size, sizes: tuple[int, ...]) -> int:
        """Measure. The memory that this takes does not count as the run's peak."""
        self.ready()
        with self._on_device_lock, self.streams.working():
            self._peak = self.peak_memory() or 0
            size = measured_batch_size(self._dit, self.memory, target, sizes, self.streams.synchronize)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        return size

    def free_memory(self) -> None:
        """Drop what is only kept for later: prefixes and latents of pictures, and freed blocks.

        Where some of the DiT's blocks pass through the device anyway, half of the others do so from now on.
        """
        self.cache.clear()
        self._lora_layers.keep_nothing()
        self._loras.drop()
        self._give_way()
        self._encoder.drop_ready()
        empty_cache(self.device)

    def _give_way(self) -> None:
        """Make room for a batch that is larger than the plan assumed, with more references, say."""
        placed = self._placed.dit
        if placed is None:
            return
        self.ready()
        with self._on_device_lock, self.streams.working():
            (blocks,) = placed.groups
            gone = blocks.give_way(-(-len(blocks.resident) // 2))
            self._weights -= gone * blocks.layers[0].nbytes

    def close(self) -> None:
        """Give the device's memory back, also where somebody holds this object still."""
        if self._loading is not None:
            self._loading.cancel()
        with suppress(RuntimeError):  # a device that has failed has nothing to wait for
            self.streams.synchronize()  # weights lie in memory of several streams, each of which may take it back
        self._placed.close()
        self._lora_layers.close()
        if self._originals is not None:
            self._originals.close()
        lift_bound(self.device)
        self.cache.clear()
        self._loras.drop()
        del self._dit, self.vae, self.text_encoder, self.conditioner, self._encoder, self._placed, self._lora_layers
        self._loading = self._originals = None  # which know the networks too
        empty_cache(self.device)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return f"mps ({processor_name() or 'Apple GPU'})"
    return f"cpu ({torch.get_num_threads()} threads)"
