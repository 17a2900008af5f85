"""Lines from a stream that may stay silent for hours: whoever waits for one can be told to stop."""

from __future__ import annotations

import codecs
import select
from collections.abc import Callable
from typing import BinaryIO

from joyedit.job.source.source import SourceStoppedError
from joyedit.job.source.text import decoded, encoding_of, may_grow_to_mark

_POLL = 0.1
_CHUNK = 65_536


class StoppableStream:
    """The lines of `stream`. `stopped` is asked ten times a second while nothing comes.

    It waits for the file descriptor and not in a read, so no thread and no lock of the stream is left behind. It
    takes over the stream: nobody else may read from it. A stream without a descriptor is simply read.

    Text in UTF-16 or UTF-32 that begins with its mark comes as UTF-8, as it does from files. Where it is broken there
    is a byte that is not UTF-8, and the stream ends.
    """

    def __init__(self, stream: BinaryIO, stopped: Callable[[], bool]) -> None:
        self._stream = stream
        self._stopped = stopped
        self._handle = _handle_of(stream)
        self._held = bytearray()
        self._ended = False
        self._decoder: codecs.IncrementalDecoder | None = None
        self._has_begun = False

    def readline(self, limit: int, end: bytes = b"\n") -> bytes:
        """The next line with its end, at most `limit` bytes of it; empty at the end of the stream.

        Raises SourceStoppedError.
        """
        searched = 0
        while True:
            length = self._held.find(end, searched, limit) + 1
            if length or self._ended or len(self._held) >= limit:
                return self._take(length or limit)
            searched = len(self._held)
            self._read_more()

    def begin(self, limit: int) -> bytes:
        """The first line that is not blank, up to a line end or a NUL, at most `limit` bytes. Nothing is taken."""
        start = searched = 0
        while True:
            while start < len(self._held) and self._held[start : start + 1].isspace():
                start += 1
            found = [place for end in b"\n\0" if (place := self._held.find(end, max(start, searched))) >= 0]
            if found or self._ended or len(self._held) - start >= limit:
                return bytes(self._held[start : min(found) + 1 if found else start + limit])
            searched = len(self._held)
            self._read_more()

    def rest(self, limit: int) -> bytes:
        """All that is left, at most `limit` bytes of it."""
        while not self._ended and len(self._held) < limit:
            self._read_more()
        return self._take(limit)

    def _take(self, size: int) -> bytes:
        line = bytes(self._held[:size])
        del self._held[:size]
        return line

    def _read_more(self) -> None:
        if not self._has_begun:
            self._begin()
            return
        chunk = self._more()
        if self._decoder is not None:
            text, is_broken = decoded(self._decoder, chunk)
            self._held += text
            self._ended = is_broken
        else:
            self._held += chunk
        self._ended = self._ended or not chunk

    def _begin(self) -> None:
        """Read as much as tells the encoding: its mark may come in parts."""
        start = self._more()
        while start and not self._ended and may_grow_to_mark(start):
            more = self._more()
            start += more
            self._ended = not more
        self._has_begun = True
        encoding = encoding_of(start)
        self._ended = self._ended or not start
        if encoding is None:
            self._held += start
            return
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        text, is_broken = decoded(self._decoder, start)
        self._held += text
        self._ended = is_broken

    def _more(self) -> bytes:
        """What is there now, at least a byte; empty at the end."""
        if self._handle is None:
            return self._stream.readline(_CHUNK)
        while not select.select([self._handle], [], [], _POLL)[0]:
            if self._stopped():
                raise SourceStoppedError("the run stopped while it waited for standard input")
        read: Callable[[int], bytes] = getattr(self._stream, "read1", self._stream.read)
        return read(_CHUNK)


def _handle_of(stream: BinaryIO) -> int | None:
    """The descriptor to wait for; None if the stream has none, or one that the system cannot wait for."""
    try:
        handle = stream.fileno()
        select.select([handle], [], [], 0)
    except (OSError, ValueError, AttributeError):
        return None
    return handle
