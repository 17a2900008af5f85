"""Each item is looked at ahead of the plan: is it done already, and how large are its pictures?

Both read from disks that may be slow or gone, so threads do it, a few dozen items ahead, and the plan
gets what they found in the order of the source. What is done leaves the stream here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from joyedit.errors import ItemError
from joyedit.job import faults
from joyedit.job.images import header_size
from joyedit.job.plan import failed
from joyedit.job.resume import Decision, Resume
from joyedit.job.spec import EditItem, FailedItem, Size
from joyedit.runtime.workers import Task, Workers

AHEAD = 64
WORKERS = 4


@dataclass(frozen=True, slots=True)
class _Looked:
    """What came of one item: whether to edit it, and the sizes of its pictures if so."""

    decision: Decision
    sizes: dict[Path, Size]


class Checker:
    """Iterate over it for the items to edit; `size_of` then knows the pictures of the one given last.

    `ahead` items are looked at before they are asked for; 1 where items come one by one from a person or
    a program that waits for each. `passed_over` hears of each item that is not to be edited.
    """

    def __init__(
        self,
        items: Iterable[EditItem | FailedItem],
        resume: Resume,
        workers: Workers,
        passed_over: Callable[[Decision], None],
        *,
        max_pixels: int,
        ahead: int = AHEAD,
    ) -> None:
        self._items = items
        self._resume = resume
        self._workers = workers
        self._passed_over = passed_over
        self._max_pixels = max_pixels
        self._ahead = ahead
        self._sizes: dict[Path, Size] = {}

    def __iter__(self) -> Iterator[EditItem | FailedItem]:
        waiting: deque[tuple[EditItem | FailedItem, Task[_Looked] | None]] = deque()
        items = iter(self._items)
        fault: Exception | None = None
        while True:
            try:
                item = next(items, None)
            except Exception as error:  # of the source: told when what came before it is through
                fault = error
                break
            if item is None:
                break
            task = None if isinstance(item, FailedItem) else self._workers.submit(partial(self._look, item))
            waiting.append((item, task))
            if len(waiting) >= self._ahead:
                yield from self._found(*waiting.popleft())
        while waiting:
            yield from self._found(*waiting.popleft())
        if fault is not None:
            raise fault

    def size_of(self, path: Path) -> Size:
        """The (height, width) of a picture of the item that was given last."""
        return self._sizes[path]

    def _look(self, item: EditItem) -> _Looked:
        """What a worker does."""
        decision = self._resume.decide(item)
        if decision != "edit":
            return _Looked(decision, {})
        try:
            faults.reached("header")
            return _Looked(decision, {path: header_size(path, self._max_pixels) for path in item.images})
        except OSError as error:
            raise ItemError("unreadable_picture", f"{item.id}: {error.strerror or error}") from error

    def _found(self, item: EditItem | FailedItem, task: Task[_Looked] | None) -> Iterator[EditItem | FailedItem]:
        if task is None or isinstance(item, FailedItem):
            yield item
            return
        try:
            looked = self._workers.result(task, ", ".join(str(path) for path in item.images))
        except ItemError as error:
            yield failed(item, error.code, str(error))
            return
        if looked.decision != "edit":
            self._passed_over(looked.decision)
            return
        self._sizes = looked.sizes
        yield item
