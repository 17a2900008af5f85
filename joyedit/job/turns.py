"""Turns: items that begin with the result of another item, which a source names `@` and the other item's id.

Until that result is there, a `Path` of the written name holds its place among the item's pictures, and
`EditItem.earlier` says whose result it is. Behind `Turns` in the runtime every item has the paths of files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from joyedit.job.data_picture import Reference, address_of
from joyedit.job.spec import EditItem, FailedItem

MARK = "@"
"""`@a` is the result of the item `a`. A file whose own name begins like this is `./@a`."""

EARLIER_FAILED = "earlier_turn_failed"
"""The error code of an item that begins with the result of an item which failed."""

TURNS = "turns"
"""The key of several instructions that follow each other."""

MOST_TURNS = 64
"""The most instructions under `turns` of one line."""


def earlier_id(written: str) -> str | None:
    """The id of the item whose result this is; None for a path, or for a picture in the line."""
    return written[1:] if written[:1] == MARK and len(written) > 1 else None


def as_path(written: str) -> str:
    """The same path where `@` would name a result."""
    return f"./{written}" if written[:1] == MARK else written


def place_holder(name: str) -> Path:
    """What stands for the result of the item `name` until that is there."""
    return Path(MARK + name)


def chain_of(item: EditItem | FailedItem) -> str:
    """The id by which the shard of this item is chosen: that of the first item of its chain."""
    edit = item if isinstance(item, EditItem) else item.item
    return item.id if edit is None or edit.chain is None else edit.chain


def earlier_of(item: EditItem) -> tuple[str, ...]:
    """The ids of the items that must be finished before this one, each once."""
    return tuple(dict.fromkeys(name for name in item.earlier if name is not None))


def with_results(item: EditItem, results: Mapping[str, Reference]) -> EditItem:
    """The item with the files of these results in their places; places of other results stay as they are."""
    images = tuple(
        image if name is None or name not in results else results[name]
        for image, name in zip(item.images, item.earlier, strict=True)
    )
    return replace(item, images=images)


def addresses_of(item: EditItem) -> tuple[str, ...]:
    """What a record says of the item's pictures: of a result that never was, `@` and the id."""
    names = item.earlier or (None,) * len(item.images)
    return tuple(
        MARK + name if name is not None and image == place_holder(name) else address_of(image)
        for image, name in zip(item.images, names, strict=True)
    )


def in_folder(folder: Path, output: str) -> Path:
    """The file of a result, `output` below the output folder."""
    return Path(os.path.join(folder, output))


def has_turns(line: Mapping[str, object]) -> bool:
    """Whether an unchecked line may begin with results: its keys are those of `ITEM_KEYS`."""
    if TURNS in line:
        return True
    given = line.get("images")
    images = [line.get("image"), *(given if isinstance(given, list) else ())]
    return any(isinstance(image, str) and earlier_id(image) is not None for image in images)


def named_path(image: str) -> str:
    """What gives an item of this picture its default id: `a-edited` where it begins with the result of `a`."""
    name = earlier_id(image)
    return image if name is None else f"{name}-edited.png"
