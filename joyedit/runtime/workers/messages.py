"""What a parent and a worker say to each other. A worker needs of an item what its backend looks at, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from joyedit.job.run_config import RunConfig
from joyedit.job.sizes import Size
from joyedit.job.spec import SizedItem
from joyedit.job.speed.settings import BlockSteps
from joyedit.runtime.parallel.layout import ALONE, Layout
from joyedit.runtime.pipeline.running_batch import Span
from joyedit.runtime.protocol import BackendInfo, DeviceStage, ReadyBatch, ReadyItem
from joyedit.runtime.workers.faults import Fault

Purpose = Literal["edit", "describe", "count"]
Question = Literal["batch size", "matmul"]


@dataclass(frozen=True, slots=True)
class Start:
    """To a worker, first of all. `describe` and `count` ask one thing: what the model is, how many GPUs there are.

    With a `layout` of several ranks the worker leads a group. It takes at most `most` items at once (None: any number).
    """

    purpose: Purpose
    config: RunConfig | None = None
    one_by_one: bool = False
    layout: Layout = ALONE
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Pixels:
    """An RGB picture. Items that share one share this too, so it is sent once."""

    width: int
    height: int
    data: bytes

    @classmethod
    def of(cls, picture: Image.Image) -> Pixels:
        return cls(picture.width, picture.height, picture.tobytes())

    def picture(self) -> Image.Image:
        return Image.frombytes("RGB", (self.width, self.height), self.data)


@dataclass(frozen=True, slots=True)
class EditBatch:
    """To a worker: edit these. `at_once`: without waiting for batches to encode together."""

    index: int
    items: tuple[tuple[SizedItem, tuple[Pixels, ...]], ...]
    one_by_one: bool
    at_once: bool

    @classmethod
    def of(cls, batch: ReadyBatch, *, at_once: bool) -> EditBatch:
        """`batch` without what only the parent needs."""
        shown = {id(picture): picture for ready in batch.items for picture in ready.pictures}
        sent = {name: Pixels.of(picture) for name, picture in shown.items()}
        items = tuple((_lean(ready.sized), tuple(sent[id(one)] for one in ready.pictures)) for ready in batch.items)
        return cls(batch.index, items, batch.one_by_one, at_once)

    def batch(self) -> ReadyBatch:
        """For the backend: items that share a picture share it here too."""
        known = {id(pixels): pixels for _, shown in self.items for pixels in shown}
        pictures = {name: pixels.picture() for name, pixels in known.items()}
        items = tuple(
            ReadyItem(sized=sized, pictures=tuple(pictures[id(one)] for one in shown)) for sized, shown in self.items
        )
        return ReadyBatch(index=self.index, items=items, one_by_one=self.one_by_one)


def _lean(sized: SizedItem) -> SizedItem:
    """Without pictures in lines, columns and earlier ids, which may be large."""
    item = replace(sized.item, images=(), other_ids=(), owns="none", columns=None)
    return replace(sized, item=item, fits=(), shown=None, result=None)


@dataclass(frozen=True, slots=True)
class Flush:
    """To a worker: no batch may come for long, so edit those that wait for others."""


@dataclass(frozen=True, slots=True)
class StopWork:
    """To a worker: start no further batch, and say what was not begun."""


@dataclass(frozen=True, slots=True)
class Ask:
    """To a worker: answer this, also while it edits."""

    number: int
    question: Question
    target: Size = (0, 0)


@dataclass(frozen=True, slots=True)
class Started:
    """From a worker: it runs, and its time.perf_counter says `clock`."""

    clock: float


@dataclass(frozen=True, slots=True)
class Told:
    """From a worker with one question: what it found."""

    value: BackendInfo | int


@dataclass(frozen=True, slots=True)
class Loaded:
    """From a worker: it takes batches."""

    info: BackendInfo
    encode_ahead: int


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """From a worker: it could not load the model, or answer its one question."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class TooLarge:
    """From a worker that is about to end: its group had no room for a batch. It had batches of up to `size` items."""

    size: int


@dataclass(frozen=True, slots=True)
class AllThere:
    """From a worker: all networks were there at this time of its clock. `stages` are seconds since the last message."""

    at: float
    stages: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Made:
    """From a worker: the picture of an item (`id` is its `SizedItem.key`), and its share of each stage in seconds.

    `work` is what ran of its steps; None where nothing was left out.
    """

    id: str
    seconds: Mapping[str, float]
    pixels: Pixels
    work: BlockSteps | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """From a worker: an item that failed behind the networks; `seconds` as in `Made`."""

    id: str
    seconds: Mapping[str, float]
    fault: Fault


@dataclass(frozen=True, slots=True)
class Failed:
    """From a worker: an item that the networks could not edit."""

    id: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class BatchDone:
    """From a worker: a batch left the device. `spans` are on its clock, `stages` seconds since the last message.

    `peak` and `predicted` are bytes of the device, as `Backend.peak_memory` and `predicted_peak` have them. `exchanged`
    are the bytes that the first rank of a group has sent to others since it was loaded; None without a group.
    """

    images: int
    spans: Mapping[DeviceStage, Span]
    operations: Mapping[DeviceStage, int]
    stages: Mapping[str, float]
    peak: int | None
    predicted: int | None
    exchanged: int | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """From a worker: a line for joyedit.log."""

    text: str
    trace: str


@dataclass(frozen=True, slots=True)
class Step:
    """From a worker: a denoising step of its running batch is done."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Returned:
    """From a worker that was told to stop: the items that it did not begin."""

    ids: Sequence[str]
    stages: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunFault:
    """From a worker: an error that concerns the whole run."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Answer:
    """From a worker, to `Ask`."""

    number: int
    value: int | float | None
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Ended:
    """From the parent's own reader: the process is gone; `how` in words."""

    how: str
