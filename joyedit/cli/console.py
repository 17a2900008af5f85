"""Where words go: results to stdout, messages to stderr. `streams` takes care that neither can fail."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

from joyedit.cli.streams import Pump
from joyedit.errors import JoyeditError, ManifestError, UsageError
from joyedit.printable import printable_lines


@dataclass(slots=True)
class State:
    """What the place that catches errors, and the commands, have to know about the command line.

    `pump` writes the standard streams; None where they are not the process's own.
    """

    verbose: bool = False
    pump: Pump | None = None


def message(text: str) -> None:
    """One message on stderr."""
    _write(sys.stderr, text)


def error_text(error: JoyeditError | str) -> str:
    """`joyedit: error: ...`; several problems stand below their number, each on its own line."""
    first, *rest = str(error).splitlines() or ["unknown"]
    if rest and isinstance(error, UsageError):
        count = error.total if isinstance(error, ManifestError) else 1 + len(rest)
        first, rest = f"{count} problems", [first, *rest]
    return "\n".join([f"joyedit: error: {first}", *(f"  {line}" for line in rest)])


def error(fault: JoyeditError | str) -> None:
    """An error on stderr."""
    message(error_text(fault))


def result(text: str) -> None:
    """One line of results on stdout."""
    _write(sys.stdout, text)


def _write(stream: TextIO, text: str) -> None:
    """A whole line in one call, so that lines of several threads do not mix. The streams themselves never fail."""

    stream.write(f"{printable_lines(text)}\n")


def table(rows: Iterable[tuple[str, str]]) -> None:
    """Two columns on stdout: with emphasis on a terminal, plain elsewhere."""
    rows = list(rows)
    width = max((len(label) for label, _ in rows), default=0)
    if not sys.stdout.isatty():
        for label, text in rows:
            result(f"{label:<{width}}  {text}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for label, text in rows:
        grid.add_row(Text(label, style="bold"), Text(printable_lines(text)))
    Console(file=sys.stdout, highlight=False).print(grid)
