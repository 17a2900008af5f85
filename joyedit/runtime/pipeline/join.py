"""The edited parts of a panorama wait here until all of them are there; then they are one picture of one item."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from joyedit.errors import ItemError
from joyedit.job.pictures.joined import joined
from joyedit.job.spec import EditItem
from joyedit.job.speed.settings import BlockSteps
from joyedit.runtime.protocol import ReadyItem

if TYPE_CHECKING:
    from PIL import Image


class EditedPart(NamedTuple):
    """What the device made of a part of an item, or of a whole item, and the seconds of each stage.

    `work` is what ran of its steps; None where nothing was left out.
    """

    ready: ReadyItem
    image: Image.Image
    seconds: dict[str, float]
    work: BlockSteps | None = None


class Joiner:
    """Any thread may call the methods. In memory are the parts of pictures that are not complete.

    `has_failed` tells of items of which another part has failed: their parts are dropped.
    """

    def __init__(self, has_failed: Callable[[EditItem], bool]) -> None:
        self._has_failed = has_failed
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[int, EditedPart]] = {}

    def add(self, part: EditedPart) -> EditedPart | None:
        """The whole item if this was its last part, or is no part; None while parts are missing, or if one has failed.

        Raises ItemError where the picture changed between two of its parts.
        """
        sized = part.ready.sized
        if sized.part is None or sized.parts is None:
            return part
        with self._lock:
            for name, held in list(self._waiting.items()):
                if self._has_failed(next(iter(held.values())).ready.item):
                    del self._waiting[name]
            if self._has_failed(sized.item):
                return None
            held = self._waiting.setdefault(sized.item.id, {})
            held[sized.part] = part
            if len(held) < len(sized.parts.begins):
                return None
            del self._waiting[sized.item.id]
        return _whole([held[number] for number in sorted(held)])


def _whole(found: list[EditedPart]) -> EditedPart:
    first = found[0].ready
    parts = first.sized.parts
    assert parts is not None
    if len({one.ready.all_seen[0].sha256 for one in found}) > 1:
        raise ItemError("picture_changed", f"{first.item.images[0]}: the file changed while its parts were read")
    seconds: Counter[str] = Counter()
    for one in found:
        seconds.update(one.seconds)
    ready = replace(
        first,
        sized=first.sized.whole,
        pictures=(joined([one.ready.pictures[0] for one in found], parts),),
        notes=tuple(dict.fromkeys(note for one in found for note in one.ready.notes)),
    )
    works = [one.work for one in found if one.work is not None]
    return EditedPart(
        ready,
        joined([one.image for one in found], parts),
        dict(seconds),
        BlockSteps.total(works) if works else None,
    )
