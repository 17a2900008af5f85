"""Threads check each item ahead of the plan: is it already done, and how large are its pictures?

Both checks read from disks that may be slow or gone. The plan gets the results in the order of the source. Items
that are done leave the flow here.

Where a check takes long (a slow disk, large files to hash), the threads work a few dozen items ahead. Where it
takes less time than handing an item over, the threads and the source take turns: two busy threads of Python slow
each other down.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from joyedit.errors import ItemError
from joyedit.job import failpoints
from joyedit.job.data_picture import MOST_HELD, Reference, held_by
from joyedit.job.pause import Pause
from joyedit.job.pictures.decode import header_size
from joyedit.job.plan import failed
from joyedit.job.results.resume import Decision, Resume
from joyedit.job.sizes import Size
from joyedit.job.spec import EditItem, FailedItem
from joyedit.job.turns import EARLIER_FAILED
from joyedit.runtime.pipeline.read_mask import of_mask
from joyedit.runtime.pipeline.threads import Task, Workers

AHEAD = 128
CHUNK = 16
"""Items that a thread checks in one go where a check takes long; where it is quick, as many as may be ahead."""
QUICK = 2e-4
"""Where a check takes fewer seconds an item, the threads and the source take turns."""
MEASURE = 32
"""After so many chunks in parallel, one is checked alone again, to measure how long it takes."""
WORKERS = 4
_HELD = MOST_HELD // (AHEAD // CHUNK)
"""A chunk is complete where its items hold so many bytes of pictures: as many chunks as may be ahead are no more than
items may hold elsewhere."""

Entry = EditItem | FailedItem


@dataclass(frozen=True, slots=True)
class _Looked:
    """The result for one item: whether to edit it, and if so the sizes of its pictures, or what is wrong with them."""

    decision: Decision
    sizes: dict[Reference, Size]
    fault: ItemError | None = None


class _Chunk(NamedTuple):
    """The results for some items in a row, and the seconds that the checks took."""

    looked: list[_Looked]
    seconds: float


class Checker:
    """Iterate over it for the items to edit. `size_of` knows the pictures of the item that was given last.

    Up to `ahead` items are checked before they are asked for; 1 where a person or a program sends items one by
    one, and each may take long. `on_skip` is called for each item that is not to be edited. `admit` is called for each
    item that is, before its pictures are touched; it says whether they
    may be touched now, and may raise ItemError. A `Pause` of the items comes out when nothing before it is left here.
    """

    def __init__(
        self,
        items: Iterable[Entry | Pause],
        resume: Resume,
        workers: Workers,
        on_skip: Callable[[EditItem, Decision], None],
        *,
        admit: Callable[[EditItem], bool] = lambda item: True,
        max_pixels: int,
        ahead: int = AHEAD,
    ) -> None:
        self._items = items
        self._resume = resume
        self._workers = workers
        self._on_skip = on_skip
        self._admit = admit
        self._max_pixels = max_pixels
        self._ahead = ahead
        self._chunk = min(CHUNK, ahead)
        self._under_way = 1
        self._at_once = 0
        self._sizes: dict[Reference, Size] = {}

    def __iter__(self) -> Iterator[Entry | Pause]:
        waiting: deque[tuple[list[Entry], Task[_Chunk], bool]] = deque()
        items = iter(self._items)
        fault: Exception | None = None
        chunk: list[Entry] = []
        held = 0  # bytes of pictures that stood in the lines of the items in the chunk
        while fault is None:
            try:
                item = next(items, None)
            except Exception as error:  # of the source: raised after the items before it
                fault, item = error, None
            pause = item if isinstance(item, Pause) else None
            if item is not None and not isinstance(item, Pause):
                chunk.append(item)
                held += held_by(_inputs(item))
            if chunk and (item is None or pause is not None or len(chunk) >= self._chunk or held > _HELD):
                alone = self._is_alone(waiting)
                waiting.append((chunk, self._workers.submit(partial(self._look_at, chunk)), alone))
                chunk, held = [], 0
            if item is None:
                break
            if pause is not None and not waiting:
                yield pause
            while waiting and (pause is not None or len(waiting) >= self._under_way):
                yield from self._found(*waiting.popleft())
        while waiting:
            yield from self._found(*waiting.popleft())
        if fault is not None:
            raise fault

    def size_of(self, path: Reference) -> Size:
        """The (height, width) of a picture of the item that was given last."""
        return self._sizes[path]

    def _look_at(self, items: Sequence[Entry]) -> _Chunk:
        """What a worker does."""
        start = time.perf_counter()
        known: dict[Reference, Size] = {}
        looked = [self._look(item, known) for item in items]
        return _Chunk(looked, time.perf_counter() - start)

    def _is_alone(self, waiting: Sized) -> bool:
        """Whether the next chunk is looked at while nothing else goes on here; only then its time tells."""
        if self._under_way > 1:
            self._at_once += 1
            if self._at_once >= MEASURE:
                self._under_way, self._at_once = 1, 0
        return self._under_way == 1 and not waiting

    def _adapt(self, seconds: float) -> None:
        """To the seconds that an item took."""
        quick = seconds < QUICK
        self._chunk = self._ahead if quick else min(CHUNK, self._ahead)
        self._under_way = 1 if quick else max(1, self._ahead // CHUNK)

    def _look(self, item: Entry, known: dict[Reference, Size]) -> _Looked:
        """`known` are the sizes of pictures of the items before: items that a matrix multiplies follow each other."""
        if isinstance(item, FailedItem):
            later_turn = item.item if item.code == EARLIER_FAILED else None
            return _Looked("edit" if later_turn is None else self._resume.decide_failed(later_turn), {})
        decision = self._resume.decide(item)
        if decision != "edit":
            return _Looked(decision, {})
        try:
            if not self._admit(item):
                return _Looked(decision, {})
            failpoints.reached("header")
            for path in item.images:
                if path not in known:
                    known[path] = header_size(path, self._max_pixels)
            if item.mask is not None and item.mask not in known:
                with of_mask():
                    known[item.mask] = header_size(item.mask, self._max_pixels)
            return _Looked(decision, {path: known[path] for path in item.inputs})
        except ItemError as error:
            return _Looked(decision, {}, error)
        except OSError as error:
            return _Looked(decision, {}, ItemError("unreadable_picture", f"{item.id}: {error.strerror or error}"))

    def _found(self, items: list[Entry], task: Task[_Chunk], alone: bool = False) -> Iterator[Entry]:
        """The items of a chunk that are to be edited."""
        try:
            looked, seconds = self._workers.result(task, "some pictures")
            if alone:
                self._adapt(seconds / len(items))
        except ItemError as error:
            if len(items) > 1:  # one of them hangs: each is looked at alone
                for item in items:
                    yield from self._found([item], self._workers.submit(partial(self._look_at, [item])))
                return
            message = ", ".join(map(str, _inputs(items[0])))
            looked = [_Looked("edit", {}, ItemError(error.code, str(error).replace("some pictures", message, 1)))]
        for item, found in zip(items, looked, strict=True):
            edited = item if isinstance(item, EditItem) else item.item
            if found.decision != "edit" and edited is not None:
                self._on_skip(edited, found.decision)
            elif found.fault is not None and isinstance(item, EditItem):
                yield failed(item, found.fault.code, str(found.fault))
            else:
                self._sizes = found.sizes
                yield item


def _inputs(entry: Entry) -> tuple[Reference, ...]:
    return entry.inputs if isinstance(entry, EditItem) else entry.images
