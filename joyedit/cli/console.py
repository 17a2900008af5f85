"""Where words go: results to stdout, messages to stderr, and quietly nowhere once a reader has left."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from joyedit.errors import JoyeditError, ManifestError, UsageError


class ReaderLeftError(Exception):
    """Nobody reads stdout any more. No OSError, which typer would turn into an exit of its own."""


@dataclass(slots=True)
class State:
    """What the place that catches errors has to know about the command line."""

    verbose: bool = False


def message(text: str) -> None:
    """One message on stderr. A closed stderr is nobody's fault and stops nothing."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except UnicodeEncodeError:
        sys.stderr.write(f"{text.encode('ascii', 'backslashreplace').decode()}\n")
    except (OSError, ValueError):  # a pipe without a reader, a terminal that was closed
        return


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


def result(text: str, *, flush: bool = False) -> None:
    """One line of results on stdout. Raises `ReaderLeftError` when nobody reads any more."""
    try:
        try:
            sys.stdout.write(f"{text}\n")
        except UnicodeEncodeError:  # a terminal that knows no Unicode
            sys.stdout.write(f"{text.encode('ascii', 'backslashreplace').decode()}\n")
        if flush:
            sys.stdout.flush()
    except BrokenPipeError as error:
        drop_stdout()
        raise ReaderLeftError from error


def drop_stdout() -> None:
    """Let stdout lead nowhere, so that what is still buffered raises no second error at exit."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # not a real file: a test's, or closed already
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


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
        grid.add_row(Text(label, style="bold"), Text(text))
    Console(file=sys.stdout, highlight=False).print(grid)
