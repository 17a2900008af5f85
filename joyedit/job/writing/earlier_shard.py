"""Pictures of packed items whose own files are gone: the shard that holds the items holds these pictures too.

It is written anew when one of its items changes, and the others may have left the source long ago.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from joyedit.errors import ItemError
from joyedit.job.containers.pictures import contained_at, read_contained
from joyedit.job.results.records import file_of, output_of, packed_in
from joyedit.job.writing.picture_endings import ENDINGS

_ROW = re.compile(r"(row=[0-9]+)\..+", re.DOTALL)
_MEMBER = re.compile(r"(.+)\.(?:joyedit_)*edited_image\.[^.]+", re.DOTALL)


def picture_in_shard(folder: Path, record: Mapping[str, Any], columns: Iterable[str], sha256: str) -> bytes | None:
    """The picture of this content that the shard of a packed item holds in one of these columns; None if none is there.

    `folder` is the output folder.
    """
    if packed_in(record) is None:
        return None
    file, inner = str(file_of(record)), str(output_of(record)).partition("#")[2]
    for column in columns:
        for name in _names(inner, column):
            found = contained_at(os.path.join(folder, f"{file}#{name}"))
            try:
                data = b"" if found is None else read_contained(found)
            except (ItemError, OSError):
                continue
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
    return None


def _names(inner: str, column: str) -> Iterator[str]:
    """What a picture beside the edited one `inner` may be called in a table, or in an archive."""
    row, member = _ROW.fullmatch(inner), _MEMBER.fullmatch(inner)
    if row is not None:
        yield from (f"{row[1]}.{column}", f"{row[1]}.{column}.0")
    elif member is not None:
        yield from (f"{member[1]}.{column}{ending}" for ending in ("", *ENDINGS))
