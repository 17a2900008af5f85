"""Names of items and of their files: which names are allowed, and how joyedit makes one.

An id becomes the name of a file below the output folder ("/" makes sub-folders). So it must be a safe
name on every system to which somebody may copy the pictures.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Mapping

from joyedit.job.own_files import SHARDS, is_in_shard, is_own_file, is_temporary
from joyedit.job.pictures.can_write import can_write

EXTENSIONS: Mapping[str, tuple[str, ...]] = {
    "png": (".png",),
    "jpg": (".jpg", ".jpeg"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
    "heic": (".heic", ".heif"),
}
"""The file endings that fit each picture format; the first is the one given by default."""

SAME = "same"
"""The format of the picture that an item edits."""
_KINDS: Mapping[str, str] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"), "jpg"),
    **dict.fromkeys((".heic", ".heics", ".heif", ".heifs", ".hif"), "heic"),
    **dict.fromkeys((".avif", ".avifs"), "avif"),
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    ".webp": "webp",
}
"""What a picture becomes where the format stays the same, by its ending; all others become PNG."""

_MAX_PART = 200
_MAX_NAME = 1000
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{device}{n}" for device in ("com", "lpt") for n in "123456789¹²³"]
)
_PLAIN = re.compile("[0-9A-Za-z_-]+(?:/[0-9A-Za-z_-]+)*")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_FOREIGN = re.compile('[<>"|?*]')
"""What no name on Windows, exFAT and most file servers may hold, beside `:` and the backslash."""


def endings_of(format: str) -> tuple[str, ...]:
    """The endings that the outputs of a run in this format may have. Raises KeyError for another format."""
    if format != SAME:
        return EXTENSIONS[format]
    return sum((endings for name, endings in EXTENSIONS.items() if can_write(name)), ())


def default_ending(format: str, picture: str | None) -> str:
    """The ending of an output that is made from an id. `picture` is the path or the address of the last reference."""
    if format != SAME:
        return EXTENSIONS[format][0]
    name = "" if picture is None else picture.lower()
    if name.startswith("data:"):
        name = name.split(";", 1)[0].replace("data:image/", ".")
    format = _KINDS.get(os.path.splitext(name)[1], "png")
    return EXTENSIONS[format if can_write(format) else "jpg"][0]


def name_problem(name: str) -> str | None:
    """Why `name` cannot be an id or an output (without its file ending); None if it can."""
    problem = earlier_problem(name)
    if problem is None and (foreign := _FOREIGN.search(name)) is not None:
        return f"contains {foreign[0]}, which no name on Windows can hold"
    if problem is None and name[: len(SHARDS)].lower() == SHARDS and is_in_shard(fold(name)):
        return "lies in the folder of a shard, where joyedit itself writes"
    return problem


def earlier_problem(name: str) -> str | None:
    """The same as joyedit once checked it, without the characters of `_FOREIGN`: such pictures may be finished."""
    if len(name) <= _MAX_PART and _PLAIN.fullmatch(name) and _RESERVED.isdisjoint(name.lower().split("/")):
        return None  # most names end here; the checks below give the same answer, but take ten times as long
    if not name or name.isspace():
        return "is empty"
    if _CONTROL.search(name):
        return "contains a control character"
    if _SURROGATE.search(name):
        return "is not valid Unicode"
    if "\\" in name:
        return "contains a backslash"
    if ":" in name:
        return "contains a colon"
    if name.startswith("/"):
        return "is absolute"
    parts = name.split("/")
    for part in parts:
        if not part:
            return "has an empty part"
        if part in (".", ".."):
            return f"has the part '{part}'"
        if part[-1] in ". ":
            return "has a part that ends with a dot or a space"
        if len(part.encode()) > _MAX_PART:
            return f"has a part of more than {_MAX_PART} bytes"
        if part.split(".", 1)[0].rstrip().lower() in _RESERVED:
            return f"has the part '{part}', which Windows reserves"
        if is_temporary(fold(part)):
            return f"has the part '{part}', which is a name for unfinished files"
    if is_own_file(fold(parts[0])):
        return f"begins with '{parts[0]}', which is a file of joyedit itself"
    if len(name.encode()) > _MAX_NAME:
        return f"has more than {_MAX_NAME} bytes"
    return None


def safe_name(name: str) -> str:
    """An allowed name for the path of a picture. The same path always gives the same name."""
    return name if name_problem(name) is None else _made(_FOREIGN.sub("_", name))


def earlier_name(name: str) -> str:
    """What `safe_name` once gave: the picture may be finished under this name."""
    return name if earlier_problem(name) is None else _made(name)


def _made(name: str) -> str:
    parts = [_safe_part(part) for part in name.split("/") if part not in ("", ".", "..")]
    if parts and (is_own_file(fold(parts[0])) or is_in_shard(fold("/".join(parts)))):
        parts[0] += "_"
    made = "/".join(parts)
    if not made or made.isspace():
        made = "picture"
    if len(made.encode()) > _MAX_NAME:
        made = _shortened(made.replace("/", "_"))
    return made


def _safe_part(part: str) -> str:
    part = _SURROGATE.sub("_", _CONTROL.sub("_", part)).replace("\\", "_").replace(":", "_")
    if part.isspace():  # Unicode has more spaces than the one below
        return "_"
    if part[-1] in ". ":
        part = part.rstrip(". ") + "_"
    if part.split(".", 1)[0].rstrip().lower() in _RESERVED:
        part = "_" + part
    if is_temporary(fold(part)):
        part += "_"
    return _shortened(part) if len(part.encode()) > _MAX_PART else part


def _shortened(part: str) -> str:
    mark = hashlib.sha256(part.encode()).hexdigest()[:8]
    return part.encode()[: _MAX_PART - 20].decode(errors="ignore").rstrip(". ") + "-" + mark


def fold(name: str) -> str:
    """The same text for names that some system may take for one file: they differ only in case or Unicode form."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
