"""What runs where on a CUDA device, so that it always has something to do; elsewhere all of this is nothing.

Three streams. The DiT and the decoder work on the default one, the encoder on a second of higher
priority, and finished pixels go to the host on a third. The encoder of the next batch has to look at
its own results on the way (shapes come from token ids), and in a stream of its own it waits for
itself alone, not for the denoising that was queued before.

A tensor that is made on one stream and read on another is told to the allocator (`record_stream`), so its
memory is not given away before it was read. One thread queues all work; timestamps may be asked from any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from joyedit.models.transfer import to_device
from joyedit.runtime.joyimage.memory import memory_faults
from joyedit.runtime.protocol import DeviceStage, DeviceTimestamp, HostTimestamp
from joyedit.runtime.tuning.timing import synchronize


class CudaTimestamp:
    """A place in a stream; its time is counted from `base`, a timestamp whose time is known."""

    def __init__(self, stream: torch.cuda.Stream, base: CudaTimestamp | None) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record(stream)
        self._device = stream.device
        self._base = base
        self._at: float | None = None
        if base is None:
            self.event.synchronize()
            self._at = time.perf_counter()

    @property
    def is_known(self) -> bool:
        """Whether its time was asked for already."""
        return self._at is not None

    def reached(self) -> bool:
        """Whether the device has come to it."""
        with torch.cuda.device(self._device):
            return bool(self.event.query())

    def seconds(self) -> float:
        """When the device came to it, on time.perf_counter's clock; waits until it has."""
        with torch.cuda.device(self._device):  # any thread may ask, also one that has another device
            self.event.synchronize()
        base = self._base
        if self._at is None and base is not None:  # two threads may both do this, and get the same
            self._at = base.seconds() + base.event.elapsed_time(self.event) / 1000
            self._base = None
        assert self._at is not None
        return self._at


class Streams:
    """The streams of one device."""

    def __init__(self, device: torch.device, *, encoder_waits: bool = False) -> None:
        """`encoder_waits`: the encoder works on the default stream too, so that its memory and the DiT's are one."""
        self.device = device
        self._cuda = device.type == "cuda"
        if self._cuda:
            self._work = torch.cuda.current_stream(device)
            self._encoder = self._work if encoder_waits else torch.cuda.Stream(device, priority=-1)
            self._copies = torch.cuda.Stream(device)
            # Elapsed times are single precision: the base moves on with the run, so they stay short.
            self._base = self._next_base = CudaTimestamp(self._work, None)

    def timestamp(self, stage: DeviceStage) -> DeviceTimestamp:
        """A timestamp behind all that was queued for this stage."""
        if not self._cuda:
            synchronize(self.device)
            return HostTimestamp()
        if self._next_base.is_known:
            self._base = self._next_base
        timestamp = CudaTimestamp(self._encoder if stage == "encode" else self._work, self._base)
        if self._next_base is self._base:
            self._next_base = timestamp
        return timestamp

    @contextmanager
    def working(self) -> Iterator[None]:
        """What is queued inside goes to the stream of the DiT, whatever stream and device the calling thread has."""
        if not self._cuda:
            yield
            return
        with torch.cuda.device(self.device), torch.cuda.stream(self._work):
            yield

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """What is queued inside goes to the encoder's stream."""
        if not self._cuda:
            yield
            return
        with torch.cuda.stream(self._encoder):
            yield

    def work_waits_for_encoder(self, tensors: Iterable[Tensor]) -> None:
        """Let what is queued from now on read these tensors of the encoder's stream."""
        if self._cuda:
            self._work.wait_stream(self._encoder)
            for tensor in tensors:
                tensor.record_stream(self._work)

    def encoder_waits_for_work(self) -> None:
        """Let the encoder's stream use what was queued so far (weights that moved, say)."""
        if self._cuda:
            self._encoder.wait_stream(self._work)

    def to_device(self, tensor: Tensor) -> Tensor:
        """A host tensor on the device, through pinned memory; nobody waits for the copy."""
        return to_device(tensor, self.device)

    def to_host(self, tensors: Iterable[Tensor]) -> tuple[list[Tensor], DeviceTimestamp]:
        """Host copies of finished tensors, which are there when the timestamp is reached."""
        if not self._cuda:
            return [tensor.cpu() for tensor in tensors], HostTimestamp()
        self._copies.wait_stream(self._work)
        copies = []
        with torch.cuda.stream(self._copies):
            for tensor in tensors:
                copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                copies.append(copy.copy_(tensor, non_blocking=True))
                tensor.record_stream(self._copies)
        return copies, CudaTimestamp(self._copies, self._base)

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        synchronize(self.device)


class HasStreams(Protocol):
    """Whose methods compute on a device."""

    streams: Streams


Given = ParamSpec("Given")
Made = TypeVar("Made")
Owner = TypeVar("Owner", bound=HasStreams)


def computes(method: Callable[Concatenate[Owner, Given], Made]) -> Callable[Concatenate[Owner, Given], Made]:
    """A method that may be called in any thread: it computes on its owner's streams, and keeps nothing for gradients.

    It raises `OutOfMemory` for any lack of memory.
    """

    @wraps(method)
    @memory_faults()
    @torch.inference_mode()
    def computed(self: Owner, /, *args: Given.args, **kwargs: Given.kwargs) -> Made:
        with self.streams.working():
            return method(self, *args, **kwargs)

    return computed
