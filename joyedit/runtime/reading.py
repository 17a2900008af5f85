"""Pictures are read ahead of the device: planning in one thread, decoding in a few.

At most `depth` batches wait, one more is with the planner and one with the device, so memory does not
grow with the manifest.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from joyedit.job.images import fit, load_picture
from joyedit.job.spec import Batch, FailedItem, Size, SizedItem
from joyedit.runtime.timing import StageClock

if TYPE_CHECKING:
    from PIL import Image

WORKERS = 4
DEPTH = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyItem:
    """An item with its pictures in memory, each of its bucket's size. `seconds` is what reading took."""

    sized: SizedItem
    pictures: tuple[Image.Image, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyBatch:
    """A planned batch: the items that were read, and those that were not, each with its fault."""

    index: int
    items: tuple[ReadyItem, ...]
    unread: tuple[tuple[SizedItem, Exception], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadPicture:
    """One reference in memory, and what was done to it beyond the ordinary."""

    image: Image.Image
    notes: tuple[str, ...]
    seconds: float


def read_picture(path: Path, bucket: Size, clock: StageClock) -> ReadPicture:
    """Decode, orient and fit one picture. Raises `ItemError`."""
    with clock.stage("read") as lap:
        picture = load_picture(path)
        image = fit(picture.image, bucket)
    return ReadPicture(image=image, notes=picture.notes, seconds=lap.seconds)


_Key = tuple[Path, Size]


@dataclass(frozen=True, slots=True)
class _Reading:
    """A batch whose pictures are with the threads. What several items share is read once."""

    batch: Batch
    pictures: dict[_Key, Future[ReadPicture]]


@dataclass(frozen=True, slots=True)
class _Stop:
    """The end of the plan, or the fault that ended it."""

    error: BaseException | None = None


class ReadAhead:
    """A context that runs the plan and the reading in threads; iterate over it for what is ready.

    An error of the plan itself is raised from the iteration. Leaving the context stops both; a plan
    that waits for standard input is left to wait, in a thread that does not hold up the exit.
    """

    def __init__(
        self,
        planned: Iterator[Batch | FailedItem],
        read: Callable[[Path, Size], ReadPicture],
        depth: int = DEPTH,
        workers: int = WORKERS,
    ) -> None:
        self._planned = planned
        self._read = read
        self._queue: queue.Queue[FailedItem | _Reading | _Stop] = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="joyedit-read")
        self._planner = threading.Thread(target=self._feed, name="joyedit-plan", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._planner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[FailedItem | ReadyBatch]:
        while True:
            entry = self._queue.get()
            if isinstance(entry, _Stop):
                if entry.error is not None:
                    raise entry.error
                return
            yield _gather(entry) if isinstance(entry, _Reading) else entry

    def _feed(self) -> None:
        """The planner's thread."""
        try:
            for entry in self._planned:
                if isinstance(entry, Batch):
                    going_on = self._put(_Reading(entry, self._submit(entry)))
                else:
                    going_on = self._put(entry)
                if not going_on:
                    return
        except BaseException as error:
            self._put(_Stop(error))
        else:
            self._put(_Stop())

    def _submit(self, batch: Batch) -> dict[_Key, Future[ReadPicture]]:
        keys = dict.fromkeys(key for sized in batch.items for key in _keys(sized))
        return {key: self._pool.submit(self._read, *key) for key in keys}

    def _put(self, entry: FailedItem | _Reading | _Stop) -> bool:
        """Wait for room; False when the run has stopped in the meantime."""
        while not self._stopped.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False


def _keys(sized: SizedItem) -> list[_Key]:
    return list(zip(sized.item.images, sized.references, strict=True))


def _gather(reading: _Reading) -> ReadyBatch:
    """Wait for the pictures of one batch. Items that share a picture share its seconds."""
    items = []
    unread = []
    uses = Counter(key for sized in reading.batch.items for key in _keys(sized))
    for sized in reading.batch.items:
        keys = _keys(sized)
        try:
            pictures = [reading.pictures[key].result() for key in keys]
        except Exception as error:
            unread.append((sized, error))
            continue
        notes = [
            note if len(keys) == 1 else f"{path.name}: {note}"
            for (path, _), picture in zip(keys, pictures, strict=True)
            for note in picture.notes
        ]
        items.append(
            ReadyItem(
                sized=sized,
                pictures=tuple(picture.image for picture in pictures),
                notes=tuple(dict.fromkeys(notes)),
                seconds=sum(picture.seconds / uses[key] for key, picture in zip(keys, pictures, strict=True)),
            )
        )
    return ReadyBatch(index=reading.batch.index, items=tuple(items), unread=tuple(unread))
