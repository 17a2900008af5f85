"""Files of a checkpoint that somebody else made: opened only if they are regular files, read only up to a limit.

A name may stand for a pipe, on which opening or reading waits for ever, for a device, or for a folder. Links to regular
files are as good as the files: the cache of the Hugging Face hub is made of them. No torch in here.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from joyedit.contents import HEAD, stand_in_of
from joyedit.errors import CheckpointError, os_reason
from joyedit.printable import brief

CONFIG_BYTES = 1 << 20
"""The most bytes of a configuration. The published ones have a few thousand."""
INDEX_BYTES = 16 << 20
"""The most bytes of an index of shards, and of the header of a tensor file."""
TOKENIZER_BYTES = 64 << 20
"""The most bytes of one file of a tokenizer. The published ones have up to 11 million."""
MOST_FILES = 10_000
"""The most files of a checkpoint. The published ones have about 40."""

_TEXTS = (".json", ".txt", ".jinja", ".model")


def is_there(path: Path) -> bool:
    """Whether a regular file, or a link to one, has this name; False if nothing has it.

    Raises CheckpointError for anything else: a pipe, a folder, a device, a link that leads nowhere or in a circle, a
    folder that may not be searched.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):
            raise CheckpointError(f"{printable_path(path)}: is a link to a file that is not there") from error
        return False
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{printable_path(path)}: is {_kind(status.st_mode)}, not a regular file")
    return True


def open_regular(path: Path) -> BinaryIO:
    """The regular file of this name, for reading. Raises CheckpointError for anything else, or if it is missing."""
    if not is_there(path):  # a device may act when it is opened, so it is not opened at all
        raise CheckpointError(f"{printable_path(path)}: missing; the checkpoint is incomplete")
    try:
        # A pipe that took the name meanwhile must not keep the open waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise unreadable(path, error) from error
    file = os.fdopen(descriptor, "rb")
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        raise CheckpointError(f"{printable_path(path)}: is {_kind(mode)}, not a regular file")
    return file


def read_text(path: Path, limit: int) -> str:
    """The UTF-8 text of a regular file of at most `limit` bytes. Raises CheckpointError."""
    with open_regular(path) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise unreadable(path, error) from error
    if len(data) > limit:
        raise CheckpointError(f"{printable_path(path)}: is larger than {limit >> 20} MiB, which no such file needs")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{printable_path(path)}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from error


def read_object(path: Path, limit: int = CONFIG_BYTES) -> dict[str, Any]:
    """The JSON object of a regular file. Raises CheckpointError, also for a key that is there twice."""
    text = read_text(path, limit)
    try:
        found = json.loads(text, object_pairs_hook=_without_doubles)
    except RecursionError as error:
        raise CheckpointError(f"{printable_path(path)}: not JSON (nested too deeply)") from error
    except ValueError as error:
        held = stand_in_of(text[:HEAD].encode())
        reason = f"not JSON ({brief(str(error))})" if held is None else f"it holds {held}"
        raise CheckpointError(f"{printable_path(path)}: {reason}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{printable_path(path)}: must be a JSON object")
    return found


def check_texts(folder: Path) -> None:
    """Raises CheckpointError unless the files of a folder can be given to a library that just opens them.

    Every entry is a regular file or a folder, and no text is larger than TOKENIZER_BYTES.
    """
    for entry in entries(folder):
        if os.path.isdir(entry):
            continue
        if is_there(entry) and entry.suffix in _TEXTS and os.stat(entry).st_size > TOKENIZER_BYTES:
            size = f"{TOKENIZER_BYTES >> 20} MiB"
            raise CheckpointError(f"{printable_path(entry)}: is larger than {size}, which no such file needs")


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name. Raises CheckpointError for no folder, and for more than MOST_FILES entries."""
    try:
        with os.scandir(folder) as listing:
            names: list[str] = []
            for entry in listing:
                names.append(entry.name)
                if len(names) > MOST_FILES:
                    raise CheckpointError(f"{printable_path(folder)}: holds more than {MOST_FILES} files")
    except (OSError, ValueError) as error:
        raise unreadable(folder, error) from error
    return [folder / name for name in sorted(names)]


def files_below(folder: Path) -> Iterator[Path]:
    """The regular files below a folder, links followed, hidden names left out; no folder is visited twice.

    Raises CheckpointError for a folder that cannot be listed, and for more than MOST_FILES files and folders.
    """
    seen: set[tuple[int, int]] = set()
    folders: list[Path] = [folder]
    links: list[Path] = []  # a folder is found under its own name before it is found through a link
    count = 0
    while folders or links:
        place = folders.pop() if folders else links.pop()
        inode = _inode(place)
        if inode in seen:
            continue
        seen.add(inode)
        for path in entries(place):
            if path.name.startswith("."):
                continue
            count += 1
            if count > MOST_FILES:
                name = printable_path(folder)
                raise CheckpointError(
                    f"{name}: holds more than {MOST_FILES} files; give the folder of the checkpoint alone"
                )
            mode = _mode(path)
            if stat.S_ISREG(mode):
                yield path
            elif stat.S_ISDIR(mode):
                (links if os.path.islink(path) else folders).append(path)


def _mode(path: Path) -> int:
    """The mode of what lies under a name, links followed; 0 for a link that leads nowhere or in a circle."""
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return 0
        raise unreadable(path, error) from error


def _inode(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return status.st_dev, status.st_ino


def unreadable(path: Path, error: OSError | ValueError) -> CheckpointError:
    """The error of a file that the system does not give."""
    reason = os_reason(error) if isinstance(error, OSError) else str(error)
    return CheckpointError(f"{printable_path(path)}: cannot be read ({brief(reason)})")


def printable_path(path: Path) -> str:
    """A path as messages show it."""
    return brief(str(path), 1000)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        doubled = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {brief(doubled, 60)!r} is there twice")
    return found
