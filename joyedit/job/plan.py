"""A stream of items becomes a stream of batches, inside a bounded window.

Owns which items share a batch and in which order batches come. Pictures are sized from their headers
alone, so planning costs no decoding, and nothing is kept but the items that still wait. Items that show
the same picture leave one after the other, so that what was computed for it serves all of them. The same
stream always gives the same batches: neither time nor threads enter the decision.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from joyedit.errors import ItemError, JoyeditError
from joyedit.job.buckets import choose_bucket
from joyedit.job.pictures.decode import header_size
from joyedit.job.spec import Batch, EditItem, FailedItem, Size, SizedItem

BatchSize = int | Callable[[Size], int]
"""Items in a full batch: one number, or a function of the target's (height, width)."""


def plan(
    items: Iterable[EditItem | FailedItem],
    batch_size: BatchSize,
    window: int,
    size_of: Callable[[Path], Size] = header_size,
    *,
    look_ahead: bool = True,
) -> Iterator[Batch | FailedItem]:
    """Batches of items of equal `batch_key`, in the order in which they are to be edited.

    When `window` items were taken from the stream since the oldest that waits, batches of its key leave
    until it is among them; so at most `window` items wait at any time, and one that leaves in a batch
    that is not full has waited that long for mates. Within a key, items with the same pictures (the same
    paths) follow each other, pictures in the order in which they were met, items of one picture in the
    order of the stream. Without `look_ahead` a batch leaves as soon as it is full: for a source whose
    next item may wait for the last one's result. A picture that cannot be sized makes its item a
    `FailedItem`, which leaves at once.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    waiting = _Waiting(batch_size)
    stream, position = iter(items), 0
    fault: JoyeditError | None = None
    while True:
        try:
            entry = next(stream, None)
        except JoyeditError as error:  # of the source: told when what came before it is through
            fault, entry = error, None
        if entry is None:
            break
        sized = size_item(entry, size_of) if isinstance(entry, EditItem) else entry
        if isinstance(sized, FailedItem):
            yield sized
        else:
            waiting.put(position, sized)
            if not look_ahead and waiting.is_full(sized.batch_key):
                yield waiting.leave(sized.batch_key)
        position += 1
        while (oldest := waiting.oldest()) is not None and position - oldest[0] >= window:
            yield waiting.leave(oldest[1])
    while (oldest := waiting.oldest()) is not None:
        yield waiting.leave(oldest[1])
    if fault is not None:
        raise fault


_Key = tuple[Any, ...]
_Pictures = dict[tuple[Path, ...], deque[tuple[int, SizedItem]]]
"""By picture: items with their position in the stream. A picture keeps its place while one of its items waits."""


class _Waiting:
    """The items that were taken and have not left."""

    def __init__(self, batch_size: BatchSize) -> None:
        self._batch_size = batch_size
        self._keys: dict[_Key, _Pictures] = {}
        self._counts: dict[_Key, int] = {}
        self._order: deque[tuple[int, _Key]] = deque()  # all of them, oldest first, and some that have left
        self._left: set[int] = set()  # the positions of those
        self._index = 0

    def put(self, position: int, sized: SizedItem) -> None:
        key = sized.batch_key
        pictures = self._keys.setdefault(key, {})
        pictures.setdefault(sized.item.images, deque()).append((position, sized))
        self._counts[key] = self._counts.get(key, 0) + 1
        self._order.append((position, key))

    def is_full(self, key: _Key) -> bool:
        """Whether the items of this key fill a batch."""
        return self._counts[key] >= self._size(key)

    def oldest(self) -> tuple[int, _Key] | None:
        """Position and key of the item that has waited longest."""
        while self._order and self._order[0][0] in self._left:
            self._left.remove(self._order.popleft()[0])
        return self._order[0] if self._order else None

    def leave(self, key: _Key) -> Batch:
        """The next batch of this key."""
        pictures, size = self._keys[key], self._size(key)
        order = list(pictures)
        oldest = min(pictures, key=lambda shown: pictures[shown][0][0])
        if self._counts[key] < 2 * size:  # what stays cannot fill a batch, so the oldest does not stay
            before = itertools.takewhile(lambda shown: shown != oldest, order)
            if sum(len(pictures[shown]) for shown in before) >= size:
                order = [oldest, *(shown for shown in order if shown != oldest)]
        taken: list[SizedItem] = []
        for shown in order:
            items = pictures[shown]
            while items and len(taken) < size:
                position, sized = items.popleft()
                taken.append(sized)
                self._left.add(position)
            if not items:
                del pictures[shown]
        self._counts[key] -= len(taken)
        if not pictures:
            del self._keys[key], self._counts[key]
        batch = Batch(index=self._index, items=tuple(taken))
        self._index += 1
        return batch

    def _size(self, key: _Key) -> int:
        return self._batch_size(key[0]) if callable(self._batch_size) else self._batch_size


def size_item(item: EditItem, size_of: Callable[[Path], Size] = header_size) -> SizedItem | FailedItem:
    """The item with a bucket for each reference and for its target.

    The target takes the bucket nearest to the size that the item asks for; without one, the last
    reference's bucket; and without references, the square of its base size. A single reference follows
    the target into its bucket: the model was trained on edits of one shape.
    """
    try:
        references = tuple(choose_bucket(size_of(path), item.basesize) for path in item.images)
    except ItemError as error:
        return failed(item, error.code, str(error))
    if item.size is not None:
        target = choose_bucket(item.size, item.basesize)
        if len(references) == 1:
            references = (target,)
    elif references:
        target = references[-1]
    else:
        target = (item.basesize, item.basesize)
    return SizedItem(item=item, target=target, references=references)


def failed(item: EditItem, code: str, message: str) -> FailedItem:
    """`item` as one that failed before it joined a batch."""
    return FailedItem(
        id=item.id,
        images=item.images,
        instruction=item.instruction,
        origin=item.origin,
        code=code,
        message=message,
        item=item,
    )
