"""Parts of a file as if they were the whole file: a decoder then sees only what it needs."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import IO


class PartsOfFile(io.RawIOBase):
    """A file of which only `parts` are there, (start, length) in bytes. A part may reach beyond the file's end."""

    def __init__(self, file: IO[bytes], parts: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._file = file
        self._pieces: list[tuple[int, int, int]] = []  # place here, place in the file, length
        for start, length in parts:
            self._add(start, length)
        self._here = 0
        self._piece = 0

    def _add(self, start: int, length: int) -> None:
        here = sum(self._pieces[-1][::2]) if self._pieces else 0
        if self._pieces and self._pieces[-1][1] + self._pieces[-1][2] == start:
            place, begin, before = self._pieces.pop()
            self._pieces.append((place, begin, before + length))
        else:
            self._pieces.append((here, start, length))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._here

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        end = sum(self._pieces[-1][::2])
        self._here = max(0, place + {os.SEEK_SET: 0, os.SEEK_CUR: self._here, os.SEEK_END: end}[whence])
        self._piece = 0
        return self._here

    def read(self, size: int = -1) -> bytes:
        wanted = size if size >= 0 else sum(self._pieces[-1][::2])
        found: list[bytes] = []
        while wanted > 0 and self._piece < len(self._pieces):
            place, start, length = self._pieces[self._piece]
            inside = self._here - place
            if inside >= length:
                self._piece += 1
                continue
            self._file.seek(start + inside)
            data = self._file.read(min(wanted, length - inside))
            if not data:
                break  # the file ends here
            found.append(data)
            self._here += len(data)
            wanted -= len(data)
        return found[0] if len(found) == 1 else b"".join(found)
