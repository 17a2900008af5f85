"""Lines from a stream that may stay silent for hours: whoever waits for one can be told to stop."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import BinaryIO

from joyedit.job.source.source import SourceStoppedError

_POLL = 0.1
_CHUNK = 65_536


class StoppableStream:
    """The lines of `stream`. `stopped` is asked ten times a second while nothing comes.

    It waits for the file descriptor and not in a read, so no thread and no lock of the stream is left behind. It
    takes over the stream: nobody else may read from it. A stream without a descriptor is simply read.
    """

    def __init__(self, stream: BinaryIO, stopped: Callable[[], bool]) -> None:
        self._stream = stream
        self._stopped = stopped
        self._handle = _handle_of(stream)
        self._held = bytearray()
        self._ended = False

    def readline(self, limit: int) -> bytes:
        """The next line with its end, at most `limit` bytes of it; empty at the end of the stream.

        Raises SourceStoppedError.
        """
        if self._handle is None:
            return self._stream.readline(limit)
        searched = 0
        while True:
            end = self._held.find(b"\n", searched, limit) + 1
            if end or self._ended or len(self._held) >= limit:
                return self._take(end or limit)
            searched = len(self._held)
            chunk = self._more(self._handle)
            self._held += chunk
            self._ended = not chunk

    def _take(self, size: int) -> bytes:
        line = bytes(self._held[:size])
        del self._held[:size]
        return line

    def _more(self, handle: int) -> bytes:
        """What is there now, at least a byte; empty at the end."""
        while not select.select([handle], [], [], _POLL)[0]:
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
