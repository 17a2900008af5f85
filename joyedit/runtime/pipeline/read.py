"""Pictures are read ahead of the device: planning in one thread, decoding in a few.

At most `depth` batches wait, one more is with the planner and one with the device, so memory does not
grow with the manifest. A picture that does not come in time fails its items and holds up nothing else.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from joyedit.errors import ItemError, concerns_the_run
from joyedit.job import failpoints
from joyedit.job.boxes import fractions_of, is_cropped
from joyedit.job.data_picture import Reference
from joyedit.job.fit import Fit
from joyedit.job.hashing import HashCache
from joyedit.job.pause import Pause
from joyedit.job.pictures.budget import Reading, shared_budget
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.fitted import fitted
from joyedit.job.pictures.properties import PictureProperties
from joyedit.job.pictures.red_box import with_red_box
from joyedit.job.sizes import Size
from joyedit.job.spec import MAX_PIXELS, READ_TIMEOUT, Batch, Box, FailedItem, Seen, SizedItem
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.read_mask import ReadMask
from joyedit.runtime.pipeline.threads import StoppedError, Task, Workers, running_call
from joyedit.runtime.protocol import ReadyBatch, ReadyItem

if TYPE_CHECKING:
    from PIL import Image

WORKERS = 4
DEPTH = 2
KEPT = 16
"""So many fitted pictures are kept: the same one may be edited with other steps, or other seeds, soon."""
CUT_BOX = "the crop to the bucket cuts off a part of the red box"
_POLL = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadItem:
    """A planned item whose pictures could not be read, and the error."""

    sized: SizedItem
    error: Exception


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadPicture:
    """One reference in memory, and what was done to it beyond the ordinary."""

    image: Image.Image
    properties: PictureProperties
    notes: tuple[str, ...]
    seconds: float
    seen: Seen


def read_picture(
    path: Reference,
    fit: Fit,
    clock: StageClock,
    hashes: HashCache,
    max_pixels: int = MAX_PIXELS,
    *,
    box: Box | None = None,
) -> ReadPicture:
    """Hash, decode, orient and fit one picture, with a red box on it where there is one.

    Raises `ItemError`, and `StoppedError` where it waits for memory.
    """
    with clock.stage("read") as lap, Reading(shared_budget(), running_call(), fit.bucket) as reading:
        failpoints.reached("read")
        picture = load_picture(path, max_pixels, hashes, reading)
        image, notes = picture.image, picture.notes
        if (image.height, image.width) != fit.source:
            raise ItemError("picture_changed", f"{path}: it has another size than before")
        if box is not None:
            drawn = fractions_of(box, fit.source)
            notes += (CUT_BOX,) if is_cropped(drawn, fit) else ()
            image = with_red_box(image, drawn)
        image = fitted(image, fit)
    assert picture.seen is not None  # it was asked for
    return ReadPicture(image=image, properties=picture.properties, notes=notes, seconds=lap.seconds, seen=picture.seen)


_Key = tuple[Reference, Fit | Size, Box | None]
"""A picture, its place in the bucket, and the box on it; or a mask, and the (height, width) of its picture."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A batch whose pictures are with the threads. What several items share is read once.

    `again` are those of an earlier batch.
    """

    batch: Batch
    pictures: dict[_Key, Task[ReadPicture | ReadMask]]
    again: frozenset[_Key] = frozenset()


@dataclass(frozen=True, slots=True)
class _Stop:
    """The end of the plan, or the fault that ended it."""

    error: BaseException | None = None


class ReadAhead:
    """A context that runs the plan and the reading in threads; iterate over it for what is ready.

    An error of the plan itself is raised from the iteration. The iteration ends when `stopped` says so;
    `finished` tells whether it came to the end of the plan. At a pause of the plan its thread waits. Leaving the
    context stops the threads; one that waits for standard input, or for a disk, is left to wait and does not hold up
    the exit.
    """

    def __init__(
        self,
        planned: Iterator[Batch | FailedItem | Pause],
        read: Callable[..., ReadPicture],
        look_at_mask: Callable[[Reference, Size], ReadMask] | None = None,
        *,
        depth: int = DEPTH,
        workers: int = WORKERS,
        timeout: float = READ_TIMEOUT,
        stopped: Callable[[], bool] = lambda: False,
        on_batch: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        """`read` takes a picture, its bucket, and the box if there is one; `look_at_mask` a mask and the size
        of its picture.

        `on_batch` hears of each batch before one of its pictures is read.
        """
        self.finished = False
        self._on_batch = on_batch
        self._planned = planned
        self._read = read
        self._look_at_mask = look_at_mask
        self._queue: queue.Queue[FailedItem | _Reading | Pause | _Stop] = queue.Queue(maxsize=depth)
        self._left = threading.Event()
        self._stopped = stopped
        self._kept: OrderedDict[_Key, Task[ReadPicture | ReadMask]] = (
            OrderedDict()
        )  # those that were used last are at the end
        self._workers = Workers(workers, "joyedit-read", timeout=timeout, stopped=stopped)
        self._planner = threading.Thread(target=self._feed, name="joyedit-plan", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._workers.__enter__()
        self._planner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._workers.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[FailedItem | UnreadItem | ReadyBatch | Pause]:
        while not self._stopped():
            try:
                entry = self._queue.get(timeout=_POLL)
            except queue.Empty:
                continue
            if isinstance(entry, _Stop):
                if entry.error is not None:
                    raise entry.error
                self.finished = True
                return
            if isinstance(entry, (FailedItem, Pause)):
                yield entry
                continue
            try:
                found = self._gather(entry)
            except StoppedError:
                return
            yield from found

    def _feed(self) -> None:
        """The planner's thread."""
        try:
            for entry in self._planned:
                if not self._put(self._submit(entry) if isinstance(entry, Batch) else entry):
                    return
                if isinstance(entry, Pause) and not self._waited(entry):
                    return
        except StoppedError:
            return
        except BaseException as error:
            self._put(_Stop(error))
        else:
            self._put(_Stop())

    def _submit(self, batch: Batch) -> _Reading:
        """Give the pictures to the threads, but for those that an earlier batch has."""
        self._on_batch(batch)
        keys = dict.fromkeys(key for sized in batch.items for key in _keys(sized))
        known = {key: self._kept.pop(key) for key in keys if key in self._kept}
        known = {key: task for key, task in known.items() if _is_good(task)}
        tasks = {key: known[key] if key in known else self._workers.submit(self._call(key)) for key in keys}
        self._kept.update(tasks)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return _Reading(batch, tasks, frozenset(known))

    def _call(self, key: _Key) -> Callable[[], ReadPicture | ReadMask]:
        path, bucket, box = key
        if not isinstance(bucket, Fit):
            assert self._look_at_mask is not None, "a run with masks says how these are read"
            return partial(self._look_at_mask, path, bucket)
        return partial(self._read, path, bucket) if box is None else partial(self._read, path, bucket, box=box)

    def _waited(self, pause: Pause) -> bool:
        """Wait until more may come; False when the run has stopped in the meantime."""
        while not self._left.is_set() and not self._stopped():
            if pause.wait(_POLL):
                return True
        return False

    def _put(self, entry: FailedItem | _Reading | Pause | _Stop) -> bool:
        """Wait for room; False when the run has stopped in the meantime."""
        while not self._left.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _gather(self, reading: _Reading) -> list[UnreadItem | ReadyBatch]:
        """Wait for the pictures of one batch. Items that share a picture share its seconds."""
        # Their seconds are in the records of the batches that were the first to have them.
        share = {key: 0.0 for key in reading.again}
        uses = Counter(key for sized in reading.batch.items for key in _keys(sized))
        ready: list[ReadyItem] = []
        unread: list[UnreadItem | ReadyBatch] = []
        for sized in reading.batch.items:
            keys = _keys(sized)
            try:
                read = [self._workers.result(reading.pictures[key], str(key[0])) for key in keys]
            except StoppedError:
                raise
            except Exception as error:
                if concerns_the_run(error):
                    raise
                unread.append(UnreadItem(sized=sized, error=error))
                continue
            seconds = sum(share.get(key, one.seconds / uses[key]) for key, one in zip(keys, read, strict=True))
            ready.append(_ready_item(sized, read, seconds))
        batch = ReadyBatch(index=reading.batch.index, items=tuple(ready))
        return [*unread, batch] if ready else unread


def _ready_item(sized: SizedItem, read: Sequence[ReadPicture | ReadMask], seconds: float) -> ReadyItem:
    paths = sized.item.images
    pictures = [one for one in read if isinstance(one, ReadPicture)]
    mask = next((one for one in read if isinstance(one, ReadMask)), None)
    notes = [
        note if len(paths) == 1 else f"{path.name}: {note}"
        for path, picture, fit in zip(paths, pictures, sized.fits, strict=True)
        for note in (*picture.notes, *fit.notes())
    ]
    notes += () if mask is None else mask.notes
    return ReadyItem(
        sized=sized,
        pictures=tuple(picture.image for picture in pictures),
        notes=tuple(dict.fromkeys(notes)),
        seconds=seconds,
        seen=tuple(picture.seen for picture in pictures),
        properties=pictures[-1].properties if pictures else None,
        mask=None if mask is None else mask.seen,
    )


def _is_good(task: Task[ReadPicture | ReadMask]) -> bool:
    """Whether this may still become a picture: what failed is tried again for the next item."""
    return task.error is None and not task.lost


def _keys(sized: SizedItem) -> list[_Key]:
    item = sized.item
    keys: list[_Key] = [(path, fit, item.box) for path, fit in zip(item.images, sized.fits, strict=True)]
    if item.mask is not None:
        keys.append((item.mask, sized.fits[-1].source, None))
    return keys
