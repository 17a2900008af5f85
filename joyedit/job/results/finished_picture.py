"""The file of a finished picture as it is now: as its record says, changed by somebody, or damaged or gone."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from joyedit.errors import ItemError, OutputError, system_limit
from joyedit.job.hashing import sha256_of
from joyedit.job.pictures import heif
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.headers import HEAD, open_image
from joyedit.job.results.placed import packed_state
from joyedit.job.results.records import packed_in
from joyedit.job.results.safe_open import open_to_read

State = Literal["recorded", "changed", "lost"]
"""`recorded`: the bytes that joyedit wrote. `changed`: another whole picture, so somebody put it there on purpose.
`lost`: no file, or a damaged one, as a disk or a broken copy leaves it."""

_NO_LIMIT = 1 << 62
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_TAIL = 64
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
"""What stands at the end of a whole file. WebP says at its beginning how long it is, AVIF and HEIC in their boxes."""


def picture_state(path: str, record: dict[str, Any], *, trust: bool) -> State:
    """What stands at `path`, where `record` says that joyedit wrote a picture. With `trust`, its size is enough.

    Raises `JoyeditError` where the system has no memory or no file handle left.
    """
    if packed_in(record) is not None:
        return packed_state(path, record, trust=trust)
    try:
        status = os.stat(path, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and status.st_size == record.get("output_bytes"):
            if trust:
                return "recorded"
            with open(os.open(path, _READ), "rb", buffering=0) as file:
                # Bits flip without a change of the size; whoever saves a picture anew changes it.
                return "recorded" if sha256_of(file) == record.get("output_sha256") else "lost"
    except (OSError, ValueError) as error:
        limit = system_limit(error)
        if limit is not None:
            raise limit from error
        return "lost"
    return "changed" if _is_whole_picture(path) else "lost"


def _is_whole_picture(path: str) -> bool:
    """Whether a picture can be read to the end of its file."""
    with suppress(ItemError, OutputError, OSError, ValueError):
        load_picture(path, _NO_LIMIT)
        return _has_end(path)
    return False


def _has_end(path: str) -> bool:
    """Whether the last bytes of the file are there; a decoder does without them. Raises what Pillow raises."""
    with open(open_to_read(Path(path)), "rb") as file:
        length = os.fstat(file.fileno()).st_size
        if heif.kind_of(file.read(HEAD)) is not None:
            return heif.stated_length(file) <= length
        file.seek(0)
        kind = str(open_image(file, path, _NO_LIMIT).format)
        file.seek(max(0, length - _TAIL))
        return _ENDS.get(kind, b"") in file.read()
