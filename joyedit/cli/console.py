"""Where words go: results to stdout, messages to stderr. `streams` takes care that neither can fail.

With `--log-format json` a message is an event (`job.event_log`); what it is called stands beside its text here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TextIO

from joyedit.cli.streams import Pump
from joyedit.errors import JoyeditError, ManifestError, OutputError, Problem, UsageError, os_reason
from joyedit.job.event_log import Level, event_line
from joyedit.printable import printable_lines


@dataclass(slots=True)
class State:
    """What the place that catches errors, and the commands, have to know about the command line.

    `pump` writes the standard streams; None where they are not the process's own.
    """

    verbose: bool = False
    pump: Pump | None = None


_log: TextIO | None = None


def set_log(stream: TextIO | None) -> None:
    """Write messages as events to this stream from now on; None: as text to stderr."""
    global _log
    _log = stream


def is_json() -> bool:
    """Whether messages are events."""
    return _log is not None


def message(text: str, event: str = "message", level: Level = "info", **fields: Any) -> None:
    """One message on stderr; as an event it has these fields too."""
    if _log is None:
        _write(sys.stderr, text)
    else:
        _log.write(f"{event_line(event, text, level, **fields)}\n")


def note(text: str) -> None:
    """A remark for the user: the command goes on."""
    message(text if is_json() else f"note: {text}", "warning", "warning")


def settings(rows: Iterable[tuple[str, str]]) -> None:
    """What is in force, label and value: a line for each, or one event. Those with the label "note" are remarks."""
    rows = list(rows)
    if not is_json():
        for label, value in rows:
            message(f"{label}: {value}")
        return
    told = {label: value for label, value in rows if label != "note"}
    message("the settings in force", "settings", settings=told)
    for label, value in rows:
        if label == "note":
            note(value)


def error_text(error: JoyeditError | str) -> str:
    """`joyedit: error: ...`; several problems stand below their number, each on its own line."""
    first, *rest = str(error).splitlines() or ["unknown"]
    if rest and isinstance(error, UsageError):
        count = error.total if isinstance(error, ManifestError) else 1 + len(rest)
        first, rest = f"{count} problems", [first, *rest]
    return "\n".join([f"joyedit: error: {first}", *(f"  {line}" for line in rest)])


def error(fault: JoyeditError | str) -> None:
    """An error on stderr."""
    if not is_json():
        message(error_text(fault))
        return
    problems = [_problem(one) for one in fault.problems] if isinstance(fault, ManifestError) else []
    message(
        str(fault),
        "error",
        "error",
        exit_code=None if isinstance(fault, str) else fault.exit_code,
        problems=problems or None,
        remedy=problems[0].get("remedy") if len(problems) == 1 else None,
    )


def _problem(one: Problem) -> dict[str, Any]:
    told = {"message": one.message, "remedy": one.remedy, "key": one.key, "file": one.file, "line": one.line}
    return {name: value for name, value in told.items() if value not in (None, "")}


def result(text: str) -> None:
    """One line of results on stdout."""
    _write(sys.stdout, text)


def all_written(state: State, what: str) -> None:
    """Wait for stdout, where the result of the command is `what` it prints there. A reader that left is no fault.

    Raises OutputError where stdout takes no more, such as on a full disk: the file would look complete.
    """
    if state.pump is None:
        return
    state.pump.drain()
    failure = state.pump.failure(1)
    if failure is not None:
        raise OutputError(f"{what} is not complete: standard output cannot be written: {os_reason(failure)}")


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
