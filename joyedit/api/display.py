"""How a run from Python shows how far it is: HTML in a notebook, one line on a terminal, or nothing.

A notebook needs no more than IPython, which is there. All methods are called in the thread that called joyedit.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from typing import Any, Protocol

from joyedit.api import html
from joyedit.api.watch import RunWatch
from joyedit.job.results.report import seconds_text
from joyedit.printable import printable

_EVERY = 0.25
"""The least seconds between two drawings."""
_SHOWN_NOTES = 3


class Display(Protocol):
    """Shows the state of a run."""

    def update(self, watch: RunWatch) -> None:
        """The state may have changed. Called often."""

    def close(self, watch: RunWatch) -> None:
        """The last state."""


def display_for(wish: bool | None) -> Display:
    """The display that fits where the program runs. `wish`: False for none, None where there is one to look at."""
    hush_tqdm()
    if wish is False:
        return NoDisplay()
    if is_notebook():
        return NotebookDisplay()
    if wish or _is_terminal():
        return LineDisplay()
    return NoDisplay()


def is_notebook() -> bool:
    """Whether a kernel of Jupyter runs this program."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _is_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # it is closed
        return False


def hush_tqdm() -> None:
    """Hide the warning that tqdm gives in a notebook without ipywidgets: joyedit needs none, and shows itself."""
    if is_notebook():
        warnings.filterwarnings("ignore", message="IProgress not found")


class NoDisplay:
    """Shows nothing."""

    def update(self, watch: RunWatch) -> None:
        """Nothing."""

    def close(self, watch: RunWatch) -> None:
        """Nothing."""


class _Shown:
    """What a notebook shows: HTML, and text where the front end shows none."""

    def __init__(self, html: str, text: str) -> None:
        self._html, self._text = html, text

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._text


class NotebookDisplay:
    """One output of the cell, which changes in place."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._drawn = 0.0

    def update(self, watch: RunWatch) -> None:
        """As in `Display`."""
        now = time.monotonic()
        if now - self._drawn >= _EVERY:
            self._drawn = now
            self._draw(watch)

    def close(self, watch: RunWatch) -> None:
        """As in `Display`."""
        self._draw(watch)

    def _draw(self, watch: RunWatch) -> None:
        from IPython import display

        notes = watch.notes[-_SHOWN_NOTES:]
        details = {"note" if len(notes) == 1 else f"note {number}": one for number, one in enumerate(notes, 1)}
        shown = _Shown(html.progress(state_text(watch), share_of(watch), details), state_text(watch))
        if self._handle is None:
            show: Any = display.display
            self._handle = show(shown, display_id=True)
        else:
            self._handle.update(shown)


class LineDisplay:
    """One line on stderr, which is written over. A stream that takes nothing ends the display and not the run."""

    def __init__(self) -> None:
        self._drawn = 0.0
        self._width = 0
        self._broken = False

    def update(self, watch: RunWatch) -> None:
        """As in `Display`."""
        now = time.monotonic()
        if now - self._drawn >= _EVERY and _is_terminal():
            self._drawn = now
            self._write(watch, "")

    def close(self, watch: RunWatch) -> None:
        """As in `Display`."""
        self._write(watch, "\n")

    def _write(self, watch: RunWatch, end: str) -> None:
        if self._broken:
            return
        text = printable(state_text(watch))[: _columns() - 1]
        try:
            front = "\r" if self._width else ""
            sys.stderr.write(f"{front}{text.ljust(self._width)}{end}")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # it is gone, or there is none
            self._broken = True
        self._width = len(text)


def state_text(watch: RunWatch) -> str:
    """The state of a run in one line."""
    finished = watch.done + watch.failed + watch.before
    of = "" if watch.total is None else f" of {watch.total}"
    items = "item" if (watch.total or finished) == 1 else "items"
    has_count = finished or watch.total is not None
    parts = [f"{watch.phase}: {finished}{of} {items}" if has_count else watch.phase]
    parts += [f"{watch.before} of them before"] if watch.before else []
    parts += [f"{watch.failed} failed"] if watch.failed else []
    parts += [f"{watch.left} left"] if watch.left else []
    parts += [watch.detail] if watch.detail else []
    parts += [_rate(watch)] if watch.phase == "editing" else []
    return ", ".join(part for part in parts if part)


def share_of(watch: RunWatch) -> float | None:
    """The share of the items that are finished, 0 to 1; None where nobody knows how many there are."""
    if not watch.total:
        return None
    return (watch.done + watch.failed + watch.before) / watch.total


def _rate(watch: RunWatch) -> str:
    """How long the rest takes, by what the run has done so far."""
    made = watch.done + watch.failed
    if watch.started_at is None or not made or watch.total is None:
        return ""
    left = watch.total - made - watch.before
    return f"{seconds_text((time.monotonic() - watch.started_at) / made * left)} left" if left > 0 else ""


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80
