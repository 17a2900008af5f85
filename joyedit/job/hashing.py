"""The sha256 of files, kept as long as the file does not change."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections import OrderedDict
from typing import BinaryIO

from joyedit.errors import ItemError
from joyedit.job.contained import ContainedPicture
from joyedit.job.containers.files import stamp_of
from joyedit.job.containers.pictures import contained_at, read_contained
from joyedit.job.spec import Seen, Stamp

_CHUNK = 1 << 20
_KEPT = 4096


def sha256_of(file: BinaryIO) -> str:
    """The sha256 of `file` from its present position to its end, read in pieces."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


class HashCache:
    """The hashes of the last few thousand inputs, so that a picture of many items is hashed once."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, Stamp], str] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str, stamp: Stamp) -> str | None:
        with self._lock:
            return self._held.get((path, stamp))

    def put(self, path: str, stamp: Stamp, sha256: str) -> None:
        with self._lock:
            self._held[path, stamp] = sha256
            while len(self._held) > _KEPT:
                self._held.popitem(last=False)

    def sha256(self, path: str | ContainedPicture) -> Seen:
        """Hash and stamp of the file at `path`, or of a picture in a larger file, also by its address. Raises OSError.

        The stamp of a contained picture is that of its file.
        """
        contained = contained_at(path) if isinstance(path, str) else path
        if contained is not None:
            return self._of_contained(contained)
        assert isinstance(path, str)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # waits for no pipe
        with open(handle, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "not a file")
            stamp = Stamp.of(os.fstat(file.fileno()))
            known = self.get(path, stamp)
            if known is None:
                known = sha256_of(file)
                self.put(path, stamp, known)
            return Seen(known, stamp)

    def _of_contained(self, picture: ContainedPicture) -> Seen:
        stamp = stamp_of(picture.file)
        known = self.get(picture.address, stamp)
        if known is None:
            try:
                known = hashlib.sha256(read_contained(picture)).hexdigest()
            except ItemError as error:
                raise OSError(str(error)) from error
            self.put(picture.address, stamp, known)
        return Seen(known, stamp)
