"""What decoders in C print by themselves to descriptor 2: caught, and given to the picture that it belongs to.

libtiff does so. The text may hold bytes of the file, so it never goes to a terminal as it is. The descriptor
belongs to the whole process: only a command whose own messages do not go through it may turn this on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from joyedit.job.pictures.budget import Caller

STDERR = 2
MOST_BYTES = 4096
MOST_CHARACTERS = 300
_POLL = 0.1

_lock = threading.Lock()
_is_on = False
_saved: int | None = None
_terminal: int | None = None


def stderr_number() -> int:
    """The descriptor that leads to the terminal now: 2, or while messages are caught, the duplicate of it."""
    if _terminal is not None:
        return _terminal
    return STDERR if _saved is None else _saved


def set_terminal(number: int | None) -> None:
    """Say that this descriptor leads to the terminal, because 2 leads elsewhere; None: 2 does again."""
    global _terminal
    _terminal = number


def set_catching(on: bool) -> None:
    """Catch the messages from now on, or leave them alone."""
    global _is_on
    _is_on = on


class Messages:
    """What was caught; `text` is one line, empty if there was nothing. It is set when the block ends."""

    text = ""


@contextmanager
def caught_messages(caller: Caller) -> Iterator[Messages]:
    """Catch what is printed to descriptor 2 in this block; one thread at a time, the others wait.

    Where there is no such descriptor or no room for a temporary file, nothing is caught.
    """
    messages = Messages()
    if not _is_on:
        yield messages
        return
    with caller.waiting():
        while not _lock.acquire(timeout=_POLL):
            caller.check()
    redirected = _Redirected.begin(_lock.release)
    caller.when_given_up(redirected.end)
    try:
        yield messages
    finally:
        redirected.end()
        messages.text = redirected.text


class _Redirected:
    """Descriptor 2 while it leads into a temporary file."""

    def __init__(self, saved: int | None, file: int | None, after: Callable[[], None]) -> None:
        self.text = ""
        self._saved = saved
        self._file = file
        self._after = after
        self._end = threading.Lock()
        self._has_ended = False

    @classmethod
    def begin(cls, after: Callable[[], None]) -> _Redirected:
        """Redirect, if that is possible. `after` is called at the end."""
        global _saved
        saved = file = None
        try:
            saved = os.dup(STDERR)
            file = _temporary_file()
            _saved = saved
            os.dup2(file, STDERR, inheritable=True)
        except OSError:  # closed, or no descriptor or no space is left
            _saved = None
            for number in (saved, file):
                if number is not None:
                    os.close(number)
            saved = file = None
        return cls(saved, file, after)

    def end(self) -> None:
        """Put the descriptor back, and read what was caught. A second call does nothing."""
        with self._end:
            if self._has_ended:
                return
            self._has_ended = True
        global _saved
        try:
            if self._saved is not None and self._file is not None:
                os.dup2(self._saved, STDERR, inheritable=True)
                _saved = None
                os.close(self._saved)
                try:
                    self.text = one_line(os.pread(self._file, MOST_BYTES, 0))
                finally:
                    os.close(self._file)
        finally:
            self._after()


def _temporary_file() -> int:
    """A file without a name. Raises OSError."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("joyedit-messages")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def one_line(caught: bytes) -> str:
    """What a decoder printed, as one line without control characters; each message once, and cut."""
    lines = dict.fromkeys(line.strip() for line in caught.decode("utf-8", "replace").splitlines())
    text = "; ".join(_printable(line).strip(". ") for line in lines if line)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
