"""The files of a tar archive, one after the other, each with the place of its bytes. No picture is read here.

Only plain files count. A link in an archive could lead to any file of the machine, so it is refused, and so is a name
that leaves the archive's own folder.
"""

from __future__ import annotations

import tarfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from joyedit.job.contained import Slice
from joyedit.job.containers.files import open_file, stamp_of
from joyedit.job.spec import Stamp

_KEPT = 4
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


class TornTarError(Exception):
    """The archive ends too early, or is none. The text says what is wrong, without the name of the file."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive. `refused` says why it is not read: it is a link, for example."""

    name: str
    at: Slice
    refused: str = ""


def members_of(file: BinaryIO) -> Iterator[Member]:
    """The members in order, up to the end of the archive; folders are passed over. Raises TornTarError, OSError."""
    head = file.read(2)
    if head in _COMPRESSED:
        raise TornTarError(f"it is compressed with {_COMPRESSED[head]}, and joyedit reads plain archives (unpack it)")
    size = file.seek(0, 2)
    file.seek(0)
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (who opened the file closes it)
    except (tarfile.TarError, EOFError) as error:
        raise TornTarError(f"it is no tar archive ({error})" if size else "it is empty") from error
    while True:
        try:
            found = archive.next()
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise TornTarError(f"it is damaged or ends too early ({error})") from error
        vars(archive)["members"] = []  # else all of them stay in memory
        if found is None:
            if archive.offset >= size and not _ends(file, size):
                raise TornTarError("it ends too early: its end marks are missing")
            return
        if found.isdir():
            continue
        yield _member(found, size)


def _ends(file: BinaryIO, size: int) -> bool:
    """Whether the file ends as an archive does: with a block of zeros."""
    file.seek(max(0, size - tarfile.BLOCKSIZE))
    return size >= tarfile.BLOCKSIZE and not any(file.read(tarfile.BLOCKSIZE))


def _member(found: tarfile.TarInfo, size: int) -> Member:
    name = found.name.removeprefix("./")
    at = Slice(found.offset_data, found.size)
    if found.issym() or found.islnk():
        return Member(name, at, "a link in an archive is not followed")
    if found.issparse() or not found.isreg():
        return Member(name, at, "it is no plain file")
    if name.startswith("/") or ".." in name.split("/"):
        return Member(name, at, "its name leaves the archive")
    if found.offset_data + found.size > size:
        raise TornTarError(f"it ends within {found.name!r}: {size} of {found.offset_data + found.size} bytes are there")
    return Member(name, at)


class TarIndex:
    """Where the members of a few archives are, by name. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, Stamp], dict[str, Slice]] = OrderedDict()

    def find(self, path: str, name: str) -> Slice | None:
        """The place of a plain file of the archive; None if there is none. Raises OSError."""
        stamp = stamp_of(path)
        with self._lock:
            known = self._kept.get((path, stamp))
            if known is None:
                known = self._read(path)
                self._kept[path, stamp] = known
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return known.get(name)

    def _read(self, path: str) -> dict[str, Slice]:
        found: dict[str, Slice] = {}
        with open_file(path) as file:
            try:
                for member in members_of(file):
                    if not member.refused:
                        found.setdefault(member.name, member.at)
            except TornTarError:  # those before the tear are there
                pass
        return found


shared_index = TarIndex()
