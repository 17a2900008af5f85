"""Paths as people write them in manifests -> paths as the system takes them.

`~` is the home folder, `$NAME/` and `${NAME}/` are environment variables that hold a folder, `file://` begins the
address of a file here. A file that really has such a name is taken as it is. A variable stands at the beginning only,
and only an absolute path is taken from it: no line of a stranger's manifest can bring a password into a record.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from joyedit.errors import Problem
from joyedit.job.source.data_uris import is_data, lacks_head
from joyedit.job.source.problems import shown

_FILE = "file://"
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})(?=/)", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")
_ODD_BEGINNINGS = frozenset("$~fFdD")


def is_plain(written: str) -> bool:
    """Whether the system can take this path as it is written, at once for most paths."""
    if written[:1] not in _ODD_BEGINNINGS:
        return True
    return written[0] not in "$~" and written[:7].lower() != _FILE and not is_data(written)


def system_path(written: str, base: str) -> str:
    """The path that `written` stands for, relative to the folder `base` or absolute."""
    if is_plain(written) or "\0" in written or os.path.lexists(os.path.join(base, written)):
        return written
    if written[:7].lower() == _FILE:
        return _of_address(written)
    variable = _VARIABLE.match(written)
    if variable is None:
        return os.path.expanduser(written)
    folder = os.environ.get(variable[1] or variable[2], "")
    return folder + written[variable.end() :] if folder.startswith("/") else written


def _of_address(written: str) -> str:
    host, slash, path = written[len(_FILE) :].partition("/")
    if host.lower() not in ("", "localhost") or not slash:
        return written
    plain = os.fsdecode(unquote_to_bytes(slash + path))
    return written if _SURROGATE.search(plain) or "\0" in plain else plain


def has_written_folder(written: str, base: str) -> bool:
    """Whether this path begins with a home folder or a variable: not where a file really has such a name."""
    if written[:1] not in "$~" or not (written[:1] == "~" or _VARIABLE.match(written)):
        return False
    return "\0" in written or not os.path.lexists(os.path.join(base, written))


def folder_as_written(written: str) -> str:
    """The path for the name of its folder: an id must not depend on a home folder, or on what a variable holds."""
    if written[:7].lower() == _FILE:
        return _of_address(written)
    variable = _VARIABLE.match(written)
    return written if variable is None else f"${variable[1] or variable[2]}{written[variable.end() :]}"


def other_spellings(path: str, base: str | None) -> Iterator[str]:
    """The absolute path as people may write it: as it is, from `base`, with `~`, with a variable."""
    yield path
    if base is not None:
        yield os.path.relpath(path, base)
    known = [("~", os.path.expanduser("~")), *((f"${name}", folder) for name, folder in os.environ.items())]
    for written, folder in known:
        if folder[:1] == "/" and path.startswith(os.path.join(os.path.normpath(folder), "")):
            yield written + path[len(os.path.normpath(folder)) :] if len(folder) > 1 else path


def path_problem(written: str) -> Problem | None:
    """Why nothing can lie at this path, if its own text says so."""
    if written[:7].lower() == _FILE:
        if _of_address(written) != written:
            return None
        message = f"{shown(written)} is the address of no file on this machine"
        return Problem(message, "write file:///folder/picture.png, or the path alone", key="image")
    if lacks_head(written):
        remedy = "write data:image/png;base64, in front of it, or the type of the picture in place of png"
        return Problem(f"this is no path but a picture in base64: {shown(written)}", remedy, key="image")
    if "://" in written:
        return Problem(f"{shown(written)} is a web address", "download the picture first", key="image")
    variable = _VARIABLE.match(written)
    if variable is not None and not os.environ.get(name := variable[1] or variable[2], "").startswith("/"):
        fault = "holds no absolute path" if name in os.environ else "is not set"
        remedy = f"the environment variable {shown(name)} {fault}"
        return Problem(f"no such picture: {shown(written)}", remedy, key="image")
    if written[:1] == "~" and os.path.expanduser(written) == written:
        return Problem(f"no such picture: {shown(written)}", "there is no home folder of this name", key="image")
    return None
