"""Parts of a panorama wait for each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.plan import size_item
from joyedit.job.spec import EditItem, Origin, Sampling, Seen, SizedItem, Stamp
from joyedit.runtime.pipeline.join import EditedPart, Joiner
from joyedit.runtime.protocol import ReadyItem


def parts(name: str = "a") -> list[EditedPart]:
    item = EditItem(
        id=name,
        images=(Path("a.png"),),
        instruction="x",
        sampling=Sampling(),
        basesize=256,
        size=None,
        output=f"{name}.png",
        origin=Origin(file="m.jsonl"),
        result_size="input",
        fit="auto",
    )
    sized = size_item(item, lambda path: (100, 500), "parts")
    assert isinstance(sized, SizedItem)
    made = []
    for number, one in enumerate(sized.as_parts):
        image = Image.new("RGB", (one.target[1], one.target[0]), (number, 0, 0))
        seen = (Seen("same", Stamp(1, 2, 3)),)
        ready = ReadyItem(sized=one, pictures=(image,), notes=("a note",), seen=seen)
        made.append(EditedPart(ready, image, {"read": 1.0, "denoise": 0.5}))
    return made


def test_the_last_part_brings_the_whole() -> None:
    joiner = Joiner(lambda item: False)
    found = parts()
    assert [joiner.add(part) for part in reversed(found[1:])] == [None] * (len(found) - 1)
    whole = joiner.add(found[0])
    assert whole is not None
    sized = whole.ready.sized
    assert sized.part is None
    assert sized.parts is not None
    assert (whole.image.height, whole.image.width) == sized.parts.frame == sized.target
    assert whole.image.getpixel((0, 0)) == (0, 0, 0)
    assert whole.image.getpixel((whole.image.width - 1, 0)) == (len(found) - 1, 0, 0)
    assert whole.seconds == {"read": len(found) * 1.0, "denoise": len(found) * 0.5}
    assert whole.ready.notes == ("a note",)
    assert joiner.add(whole) is whole, "what is no part passes"


def test_parts_of_an_item_that_failed_are_dropped() -> None:
    failed: set[str] = set()
    joiner = Joiner(lambda item: item.id in failed)
    first, other = parts("first"), parts("other")
    joiner.add(first[0])
    failed.add("first")
    assert joiner.add(other[0]) is None
    assert [joiner.add(part) for part in first] == [None] * len(first)
    assert [joiner.add(part) is None for part in other[1:]] == [True] * (len(other) - 2) + [False]


def test_a_picture_that_changed_between_its_parts_fails() -> None:
    joiner = Joiner(lambda item: False)
    first, *others = parts()
    changed = first.ready.seen[0]._replace(sha256="other")
    joiner.add(first._replace(ready=ReadyItem(sized=first.ready.sized, pictures=first.ready.pictures, seen=(changed,))))
    *most, last = others
    assert [joiner.add(part) for part in most] == [None] * len(most)
    with pytest.raises(ItemError, match="the file changed while its parts were read"):
        joiner.add(last)
