"""A stream of items -> a stream of batches, with a bounded window.

It decides which items share a batch, and the order of the batches. It reads only the headers of pictures, so
planning costs no decoding, and it keeps only the items that still wait. Items with the same picture follow
each other, so that the run computes the picture's features once. The same stream always gives the same
batches: neither time nor threads change them. Where items wait for results of others, the stream itself is another
one from run to run.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from joyedit.errors import ItemError, JoyeditError, place
from joyedit.job.boxes import box_fault
from joyedit.job.buckets import choose_bucket
from joyedit.job.data_picture import MOST_HELD, Reference, held_by
from joyedit.job.fit import bucket_of_least_loss, fit_to, parse_size, result_size
from joyedit.job.masks import mask_fault
from joyedit.job.parts import Parts, parts_of
from joyedit.job.pause import Pause
from joyedit.job.pictures.decode import header_size
from joyedit.job.run_config import RunConfig
from joyedit.job.sizes import Size
from joyedit.job.spec import Batch, EditItem, FailedItem, PanoramaName, SizedItem

BatchSize = int | Callable[[Size], int]
"""The number of items in a full batch, or a function that gives it for the target's (height, width)."""


def plan(
    items: Iterable[EditItem | FailedItem | Pause],
    batch_size: BatchSize,
    window: int,
    size_of: Callable[[Reference], Size] = header_size,
    *,
    look_ahead: bool = True,
    most_held: int = MOST_HELD,
    panorama: PanoramaName = "whole",
) -> Iterator[Batch | FailedItem | Pause]:
    """Batches of items with equal `batch_key`, in the order in which the run edits them.

    At most `window` items wait at any time: when the oldest one has waited for `window` items of the stream,
    batches of its key leave until it is among them. Such a batch may be smaller than a full one. The same happens
    where the waiting items hold more than `most_held` bytes of pictures that stood in their lines. Within a
    key, items with the same pictures (the same paths) follow each other; pictures keep the order in which
    they first came, and the items of one picture keep the order of the stream.

    Without `look_ahead` a batch leaves as soon as it is full. This is for a source whose next item may wait
    for the result of the last one. If a picture cannot be sized, its item becomes a `FailedItem` and leaves
    at once. At a `Pause` of the stream the oldest item leaves with its batch; where nothing waits, the pause goes on to
    whoever takes the batches. With the `panorama` "parts", each part of a picture beyond 4:1 is planned like an item.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    waiting = _Waiting(batch_size)
    stream, position = iter(items), 0
    source_error: JoyeditError | None = None
    while True:
        try:
            entry = next(stream, None)
        except JoyeditError as error:  # the source failed: the items before it are planned first
            source_error, entry = error, None
        if entry is None:
            break
        if isinstance(entry, Pause):
            oldest = waiting.oldest()
            yield entry if oldest is None else waiting.leave(oldest[1])
            continue
        sized = size_item(entry, size_of, panorama) if isinstance(entry, EditItem) else entry
        if isinstance(sized, FailedItem):
            yield sized
            position += 1
        for one in () if isinstance(sized, FailedItem) else sized.as_parts:
            waiting.put(position, one)
            if not look_ahead and waiting.is_full(one.batch_key):
                yield waiting.leave(one.batch_key)
            position += 1
        while (oldest := waiting.oldest()) is not None and (position - oldest[0] >= window or waiting.held > most_held):
            yield waiting.leave(oldest[1])
    while (oldest := waiting.oldest()) is not None:
        yield waiting.leave(oldest[1])
    if source_error is not None:
        raise source_error


_Key = tuple[Any, ...]
_Pictures = dict[tuple[Reference, ...], deque[tuple[int, SizedItem]]]
"""The items of each picture with their positions in the stream, pictures in the order in which they came."""


def _position(entry: tuple[tuple[Reference, ...], deque[tuple[int, SizedItem]]]) -> int:
    """The position of the first item of a picture."""
    return entry[1][0][0]


class _Waiting:
    """The items that wait for their batch."""

    def __init__(self, batch_size: BatchSize) -> None:
        self._batch_size = batch_size
        self._keys: dict[_Key, _Pictures] = {}
        self._counts: dict[_Key, int] = {}
        self._order: deque[tuple[int, _Key]] = deque()  # oldest first; some of these have left
        self._left: set[int] = set()  # the positions of the items that have left
        self._index = 0
        self.held = 0
        """The bytes of pictures that the items hold."""

    def put(self, position: int, sized: SizedItem) -> None:
        key = sized.batch_key
        self.held += held_by(sized.item.inputs)
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
        order: Iterable[tuple[Reference, ...]] = pictures
        if self._counts[key] < 2 * size:  # the rest cannot fill a batch, so the oldest item must not stay
            oldest = min(pictures.items(), key=_position)[0]
            before = itertools.takewhile(lambda entry: entry[0] is not oldest, pictures.items())
            if sum(len(items) for _, items in before) >= size:
                order = (oldest, *(shown for shown in pictures if shown is not oldest))
        taken: list[SizedItem] = []
        done: list[tuple[Reference, ...]] = []
        for shown in order:
            items = pictures[shown]
            while items and len(taken) < size:
                position, sized = items.popleft()
                taken.append(sized)
                self._left.add(position)
            if not items:
                done.append(shown)
            if len(taken) == size:  # the other pictures are not looked at: there may be thousands
                break
        for shown in done:
            del pictures[shown]
        self._counts[key] -= len(taken)
        self.held -= sum(held_by(sized.item.inputs) for sized in taken)
        if not pictures:
            del self._keys[key], self._counts[key]
        batch = Batch(index=self._index, items=tuple(taken))
        self._index += 1
        return batch

    def _size(self, key: _Key) -> int:
        return self._batch_size(key[0]) if callable(self._batch_size) else self._batch_size


def planner(config: RunConfig, batch_size: BatchSize) -> Callable[..., Iterator[Batch | FailedItem | Pause]]:
    """`plan` as a run has it."""
    return partial(plan, batch_size=batch_size, window=config.window, panorama=config.panorama)


def size_item(
    item: EditItem, size_of: Callable[[Reference], Size] = header_size, panorama: PanoramaName = "whole"
) -> SizedItem | FailedItem:
    """The item with a bucket for each reference and for its target, and the size of its result.

    The target gets the bucket that is nearest to the size of the item; without a size, the bucket of the last
    reference; without references, the square of the base size. A single reference gets the bucket of the
    target, because the model was trained on edits of one shape. With the `panorama` "parts", the only reference is
    cut into parts where it is beyond 4:1 and the item asks for no other proportions and no crop.
    """
    choose = choose_bucket if item.fit == "crop" else bucket_of_least_loss
    try:
        sources = [size_of(path) for path in item.images]
    except ItemError as error:
        return failed(item, error.code, str(error))
    fault = None if item.box is None or not sources else box_fault(item.box, sources[0])
    if fault is not None:
        return failed(item, "bad_box", f"{item.images[0]}: {fault}")
    wrong = None if item.mask is None else _wrong_mask(item, item.mask, size_of, sources[-1])
    if wrong is not None:
        return wrong
    parts = _parts(item, sources) if panorama == "parts" else None
    if parts is not None:
        return _in_parts(item, parts)
    references = tuple(choose(size, item.basesize) for size in sources)
    if item.size is not None:
        target = choose(item.size, item.basesize)
        if len(references) == 1:
            references = (target,)
    elif references:
        target = references[-1]
    else:
        target = (item.basesize, item.basesize)
    wish = parse_size(item.result_size)
    is_undone = wish.kind != "bucket" and item.size is None
    frame = None
    if len(references) == 1 and item.size is not None:
        frame = wish.exact or (None if item.fit == "crop" else target)
    last = len(references) - 1
    fits = tuple(
        fit_to(size, bucket, item.fit, is_undone=is_undone and place == last, frame=frame)
        for place, (size, bucket) in enumerate(zip(sources, references, strict=True))
    )
    follows = (
        fits[-1]
        if fits and (item.size is None or len(fits) == 1)
        else fit_to(item.size or target, target, "stretch", is_undone=True)
    )
    return SizedItem(
        item=item,
        target=target,
        references=references,
        fits=fits,
        shown=follows.shown,
        result=result_size(wish, follows),
    )


def _in_parts(item: EditItem, parts: Parts) -> SizedItem:
    whole = parts.whole()
    return SizedItem(
        item=item,
        target=parts.frame,
        references=(parts.frame,),
        fits=(whole,),
        shown=whole.shown,
        result=result_size(parse_size(item.result_size), whole),
        parts=parts,
    )


def _wrong_mask(
    item: EditItem, mask: Reference, size_of: Callable[[Reference], Size], picture: Size
) -> FailedItem | None:
    """The failed item where its mask cannot be read, or does not fit a picture of this size."""
    try:
        fault = mask_fault(size_of(mask), picture)
    except ItemError as error:
        return failed(item, error.code, f"mask {error}")
    if fault is None:
        return None
    return failed(item, "bad_mask", f"{place(item.origin.file, item.origin.line)}: {mask}: {fault}")


def _parts(item: EditItem, sources: Sequence[Size]) -> Parts | None:
    """The parts that an item is edited in; None if it goes through as a whole. A red box is for a whole picture."""
    if len(sources) != 1 or item.size is not None or item.box is not None or item.fit not in ("auto", "pad"):
        return None
    return parts_of(sources[0], item.basesize)


def failed(item: EditItem, code: str, message: str) -> FailedItem:
    """`item` as a failed item that joined no batch."""
    return FailedItem(
        id=item.id,
        images=item.images,
        instruction=item.instruction,
        origin=item.origin,
        code=code,
        message=message,
        item=item,
    )
