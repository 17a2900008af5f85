"""Parts of a panorama wait here until all are planned: they go out in one batch, because one task joins them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from joyedit.job.pause import Pause
from joyedit.job.spec import Batch, FailedItem

Planned = Iterable[Batch | FailedItem | Pause]


def whole_items(planned: Planned) -> Iterator[Batch | FailedItem | Pause]:
    """The same items; each that goes through in parts is a batch of its own, at the place of its last part.

    In memory are the items of which some parts have come.
    """
    came: dict[str, int] = {}
    for entry in planned:
        if not isinstance(entry, Batch):
            yield entry
            continue
        whole = tuple(sized for sized in entry.items if sized.part is None)
        if whole:
            yield replace(entry, items=whole)
        for sized in entry.items:
            if sized.part is None or sized.parts is None:
                continue
            name = sized.item.id
            came[name] = came.get(name, 0) + 1
            if came[name] == len(sized.parts.begins):
                del came[name]
                yield replace(entry, items=sized.whole.as_parts)
