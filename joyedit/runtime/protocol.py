"""What the run loop asks of a device: the protocol between `run` and the networks. No torch here.

One batch passes `encode`, `denoise` and `decode_later` in turn, all called from one thread. What goes
from one to the next is the backend's own affair, and `run` hands it on unopened. A call returns when the
device was given its work, not when that is done: `Pending` waits for the pictures, a `DeviceTimestamp` for the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from joyedit.errors import JoyeditError
from joyedit.job.pictures.properties import PictureProperties
from joyedit.job.sizes import Size
from joyedit.job.spec import EditItem, PrecisionName, Seen, SeenMask, SizedItem
from joyedit.job.speed.settings import BlockSteps

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendInfo:
    """What was loaded and what is in force; every `auto` is decided here.

    `layout` names the kind of checkpoint that was recognised; `load_seconds` is the time until the backend
    could take its first batch; `notes` are remarks for the user. `identity` tells checkpoints apart; where
    it is empty, the files of the checkpoint are looked at. `precision` is that of the DiT's products.
    `fused`: whether joyedit's own kernels run in the DiT.
    `compile_seconds` of `load_seconds` went into compiling, where `compiled`. `placement` says which weights stay on
    the device and which pass through it; empty where nobody knows.
    """

    model: str
    layout: str
    device: str
    dtype: str
    attention: str
    schedule: str
    identity: str = ""
    precision: PrecisionName = "exact"
    load_seconds: float = 0.0
    fused: bool = False
    compiled: bool = False
    compile_seconds: float = 0.0
    placement: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyItem:
    """An item with its pictures in memory: RGB, one for each reference, each of its bucket's size.

    `seconds` is the time that reading took; `seen` tells for each picture which file it was. `properties` are those of
    the last picture, which the result gets back. `mask` is what was read of the mask, where there is one.
    """

    sized: SizedItem
    pictures: tuple[Image.Image, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    seen: tuple[Seen, ...] = ()
    properties: PictureProperties | None = None
    mask: SeenMask | None = None

    @property
    def item(self) -> EditItem:
        """The edit that was asked for."""
        return self.sized.item

    @property
    def all_seen(self) -> tuple[Seen, ...]:
        """The files of all inputs of the item: its references, then its mask."""
        return self.seen if self.mask is None else (*self.seen, self.mask.seen)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyBatch:
    """Items of one planned batch, ready for the device; all of one `batch_key`. `one_by_one`: each goes alone."""

    index: int
    items: tuple[ReadyItem, ...]
    one_by_one: bool = False

    @classmethod
    def of(cls, sized: Sequence[SizedItem], pictures: Sequence[tuple[Image.Image, ...]]) -> ReadyBatch:
        """A batch of items whose pictures come from elsewhere than from files."""
        pairs = zip(sized, pictures, strict=True)
        return cls(index=0, items=tuple(ReadyItem(sized=item, pictures=shown) for item, shown in pairs))

    @property
    def target(self) -> Size:
        """(height, width) of every picture that comes out."""
        return self.items[0].sized.target

    @property
    def shape(self) -> tuple[Size, tuple[Size, ...]]:
        """The target and the references: what decides how many items fit on the device."""
        return self.target, self.items[0].sized.references


class OutOfMemory(Exception):  # noqa: N818 - what it is, in every backend
    """The device has no room for this batch. A smaller one may fit."""


class GroupLost(JoyeditError):  # noqa: N818 - as above
    """The devices that make a picture together are out of step, or one of them is gone: nothing more comes of them.

    `out_of_memory`: because one had no room for the batch. A new group may do the rest, with smaller batches then.
    """

    def __init__(self, message: str, *, out_of_memory: bool = False) -> None:
        self.out_of_memory = out_of_memory
        super().__init__(message)


DeviceStage = Literal["encode", "denoise", "decode"]


class DeviceTimestamp(Protocol):
    """A place in the device's work. May be asked from any thread."""

    def reached(self) -> bool:
        """Whether the device has come to it."""

    def seconds(self) -> float:
        """When the device came to it, on time.perf_counter's clock; waits until it has."""


class HostTimestamp:
    """The timestamp of a device that works while it is called: reached at once."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def reached(self) -> bool:
        """Always."""
        return True

    def seconds(self) -> float:
        """When it was made."""
        return self._at


class Pending(Protocol):
    """The pictures of a batch that the device may still be busy with. Any thread may ask; both calls wait."""

    def __len__(self) -> int: ...

    def is_finite(self, place: int) -> bool:
        """Whether the latents of this item of the batch hold neither a NaN nor an infinity."""

    def picture(self, place: int) -> Image.Image:
        """The picture of this item of the batch: RGB, of the target's size."""


class LoadedModel(Protocol):
    """What a run asks of a model that is loaded: by one backend in this process, or in several worker processes."""

    info: BackendInfo

    def matmul_tflops(self) -> float | None:
        """What the device reaches in a large matrix product, in TFLOP/s; None where that says nothing."""

    def peak_memory(self) -> int | None:
        """The most bytes in use on the device so far; None if that is not known."""

    def predicted_peak(self) -> int | None:
        """What `peak_memory` should be by the backend's memory model; None where it has none."""

    def auto_batch_size(self, target: Size) -> int:
        """How many items of this target (height, width) fit on the device at once; at least 1."""

    def close(self) -> None:
        """Give the device's memory back."""


class Backend(LoadedModel, Protocol):
    """A loaded model on a device, or on several that make each picture together.

    All that computes may raise `OutOfMemory`, and with several devices `GroupLost`.
    """

    encode_ahead: int
    """How many batches are encoded before the first of them is denoised."""

    def prepare(self, batches: Sequence[ReadyBatch]) -> None:
        """Do what these batches need at once, before each of them is encoded. It saves time, and decides nothing."""

    def encode(self, batch: ReadyBatch) -> Any:
        """Instructions and pictures -> conditioning."""

    def ready(self) -> None:
        """Wait until all networks are loaded: some may still be while the first batch is encoded.

        Raises what loading raises; `denoise` needs it.
        """

    def denoise(self, encoded: Any, on_step: Callable[[int, int], None]) -> Any:
        """Conditioning -> latents. `on_step(done, total)` is called after each step that was queued."""

    def decode_later(self, latents: Any) -> Pending:
        """Latents -> pictures that are asked for later."""

    def decode(self, latents: Any) -> list[Image.Image]:
        """Latents -> one RGB picture of the target's size for each item, in order; waits for them."""

    def timestamp(self, stage: DeviceStage) -> DeviceTimestamp:
        """A timestamp behind all that was queued for this stage."""

    def operations(self, encoded: Any) -> Mapping[DeviceStage, int]:
        """Floating-point operations of a batch by stage, by formula; empty where nobody knows."""

    def block_steps(self, encoded: Any) -> Sequence[BlockSteps]:
        """What ran of the steps of each item of a batch that was denoised; empty where nothing was left out."""

    def free_memory(self) -> None:
        """Give back what is kept for later use, after `OutOfMemory`."""
