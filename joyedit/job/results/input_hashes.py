"""The sha256 of an item's pictures, without reading those that are as a record saw them."""

from __future__ import annotations

import os
from typing import Any

from joyedit.job.contained import ContainedPicture
from joyedit.job.containers.files import stamp_of
from joyedit.job.data_picture import DataPicture, Reference
from joyedit.job.hashing import HashCache
from joyedit.job.results.records import mask_seen
from joyedit.job.spec import EditItem


def input_hashes(item: EditItem, record: dict[str, Any], hashes: HashCache, *, trust: bool) -> list[str]:
    """The sha256 of each reference of `item`, in order, and behind them that of its mask.

    With `trust`, a picture whose size and times are those in `record` is not read. Raises OSError.
    """
    seen = record.get("inputs_seen")
    if not trust or not isinstance(seen, list) or len(seen) != len(item.images):
        seen = [None] * len(item.images)
    found = [_hash(reference, then, hashes) for reference, then in zip(item.images, seen, strict=True)]
    if item.mask is not None:
        found.append(_hash(item.mask, mask_seen(record) if trust else None, hashes))
    return found


def _hash(reference: Reference, then: object, hashes: HashCache) -> str:
    if isinstance(reference, DataPicture):
        return reference.sha256
    picture = reference if isinstance(reference, ContainedPicture) else os.fspath(reference)
    path = picture if isinstance(picture, str) else picture.file
    if isinstance(then, list) and len(then) == 4 and then[1:] == [*stamp_of(path)]:
        return str(then[0])
    return hashes.sha256(picture).sha256
