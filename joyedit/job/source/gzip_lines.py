"""Manifests that are compressed with gzip: they are read as a stream, and nothing is unpacked to the disk."""

from __future__ import annotations

import gzip
import zlib
from typing import BinaryIO

from joyedit.errors import ManifestError, Problem

SUFFIX = ".gz"
KINDS = {".jsonl.gz": "jsonl", ".ndjson.gz": "jsonl"}
"""The endings of compressed manifests."""


def kind_of_compressed(name: str) -> str | None:
    """The kind of a compressed manifest by the end of its name; None for any other name."""
    return next((kind for ending, kind in KINDS.items() if name.lower().endswith(ending)), None)


class GzipLines(gzip.GzipFile):
    """The text of a compressed manifest. A damaged end raises ManifestError that names the file."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._file = file
        self._source = name

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._damaged(error) from error

    def readline(self, size: int | None = -1) -> bytes:
        try:
            return super().readline(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._damaged(error) from error

    def close(self) -> None:
        super().close()
        self._file.close()

    def _damaged(self, error: Exception) -> ManifestError:
        message = f"this compressed manifest is damaged or cut off: {error}"
        return ManifestError([Problem(message, "copy or write it again").at(self._source)])
