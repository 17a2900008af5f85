"""The sha256 of files, kept as long as the file does not change."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections import OrderedDict
from typing import BinaryIO

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

    def sha256(self, path: str) -> Seen:
        """Hash and stamp of the file at `path`. Raises OSError."""
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
