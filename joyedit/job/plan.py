"""A stream of items becomes a stream of batches, inside a bounded window.

Owns which items share a batch. Pictures are sized from their headers alone, so planning costs no
decoding, and nothing is kept but the items that still wait for mates. The same stream always gives
the same batches: neither time nor threads enter the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from joyedit.errors import ItemError
from joyedit.job.buckets import choose_bucket
from joyedit.job.images import header_size
from joyedit.job.spec import Batch, EditItem, FailedItem, Size, SizedItem

BatchSize = int | Callable[[Size], int]
"""Items in a full batch: one number, or a function of the target's (height, width)."""


def plan(
    items: Iterable[EditItem | FailedItem],
    batch_size: BatchSize,
    window: int,
    size_of: Callable[[Path], Size] = header_size,
) -> Iterator[Batch | FailedItem]:
    """Batches of items of equal `batch_key`, in the order in which they are to be edited.

    A batch leaves as soon as it is full, or when `window` items were taken from the stream since
    its oldest item, or at the end of the stream; so at most `window` items wait at any time. Within
    a batch the items keep their order. A picture that cannot be sized makes its item a `FailedItem`,
    which leaves at once.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    waiting: dict[tuple[Any, ...], list[SizedItem]] = {}  # ordered by each group's oldest item
    since: dict[tuple[Any, ...], int] = {}  # the position in the stream of that oldest item
    index = 0

    def leave(key: tuple[Any, ...]) -> Batch:
        nonlocal index
        del since[key]
        batch = Batch(index=index, items=tuple(waiting.pop(key)))
        index += 1
        return batch

    for position, entry in enumerate(items):
        sized = size_item(entry, size_of) if isinstance(entry, EditItem) else entry
        if isinstance(sized, FailedItem):
            yield sized
        else:
            key = sized.batch_key
            group = waiting.setdefault(key, [])
            since.setdefault(key, position)
            group.append(sized)
            if len(group) >= (batch_size(sized.target) if callable(batch_size) else batch_size):
                yield leave(key)
        oldest = next(iter(waiting), None)
        if oldest is not None and position - since[oldest] + 1 >= window:
            yield leave(oldest)
    for key in list(waiting):
        yield leave(key)


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
