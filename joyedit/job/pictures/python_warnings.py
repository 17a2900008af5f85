"""Warnings of Pillow, by Python's `warnings` and `logging`, become notes of the picture that is read.

The filters of `warnings` belong to the whole process, so `warnings.catch_warnings` mixes up threads. Here one hook
serves all threads, and each thread has its own list.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from joyedit.printable import printable

if TYPE_CHECKING:
    from logging import LogRecord

MOST_WARNINGS = 10
MOST_CHARACTERS = 300

_here = threading.local()
_show_before: Any = None
_handler: Any = None


def set_warning_hook(on: bool) -> None:
    """Hand the warnings of Pillow to `gathered_warnings` from now on, or leave them alone."""
    global _show_before, _handler
    if on == (_show_before is not None):
        return
    import logging  # not at the top: `joyedit --help` does not need it

    if on:
        _show_before, warnings.showwarning = warnings.showwarning, _show
        # Otherwise Python shows a warning once for each place in the code, not for each picture.
        warnings.filterwarnings("always", module=r"PIL\.|joyedit\.job\.pictures\.")
        _handler = logging.Handler(logging.WARNING)
        _handler.emit = _log
        logging.getLogger("PIL").addHandler(_handler)
    else:
        warnings.showwarning, _show_before = _show_before, None
        logging.getLogger("PIL").removeHandler(_handler)
        _handler = None


def is_hooked() -> bool:
    """Whether warnings become notes, so that none can reach a terminal."""
    return _show_before is not None


@contextmanager
def gathered_warnings() -> Iterator[list[str]]:
    """The warnings of this thread in this block, each once and on one line. The list is empty without the hook."""
    before = getattr(_here, "texts", None)
    texts: list[str] = []
    _here.texts = texts
    try:
        yield texts
    finally:
        _here.texts = before


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    texts = getattr(_here, "texts", None)
    if texts is None:
        if "PIL" not in filename:  # a picture that nobody reads for an item has no place for it
            _show_before(message, category, filename, lineno, file, line)
    # joyedit has its own limit of pixels.
    elif category.__name__ != "DecompressionBombWarning":
        _add(texts, str(message))


def _log(record: LogRecord) -> None:
    texts = getattr(_here, "texts", None)
    if texts is not None:
        _add(texts, record.getMessage())


def _add(texts: list[str], message: str) -> None:
    text = printable(" ".join(message.split())[:MOST_CHARACTERS]).rstrip(". ")
    if text and text not in texts and len(texts) < MOST_WARNINGS:
        texts.append(text)
