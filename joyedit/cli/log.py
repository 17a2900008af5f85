"""`--log-format`: what a command says on stderr as text, or as one JSON object a line, without a stray line between.

What libraries print goes through here in JSON mode as well: `sys.stderr`, warnings of Python, and descriptor 2 itself,
which code in C and child processes write to.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import select
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, TextIO

import typer

from joyedit.cli import console
from joyedit.cli.streams import Pump
from joyedit.errors import EXIT_INTERRUPTED, EXIT_OK
from joyedit.job import event_log

FLAG = "--log-format"
LogFormat = Annotated[
    Literal["text", "json"],
    typer.Option(
        "--log-format",
        help="Messages on stderr as text, or as one JSON object a line (docs/logs.md has the table of events).",
    ),
]
_STDERR = 2
_POLL = 0.1
_READ = 1 << 16
_MOST_LINE = 1 << 20
"""A line of a library is cut here into several events."""


def with_log_format(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the option `--log-format`, which `log_of` has read before."""

    def logged(*args: Any, log_format: str = "text", **given: Any) -> Any:
        return command(*args, **given)

    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    more = inspect.Parameter("log_format", keyword, default="text", annotation=LogFormat)
    parameters = [*signature.parameters.values(), more]
    logged.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    logged.__annotations__ = {one.name: one.annotation for one in parameters}
    logged.__doc__, logged.__name__ = command.__doc__, command.__name__
    return logged


class Log:
    """The messages of one command. `exit_code` is what it ends with, once that is known."""

    def __init__(self, is_json: bool, command: str | None) -> None:
        self.exit_code = EXIT_INTERRUPTED
        self._is_json = is_json
        self._command = command
        self._begun = time.monotonic()

    @contextlib.contextmanager
    def streams(self, pump: Pump | None) -> Iterator[None]:
        """From `start` to `end`: nothing but events reaches stderr. With text, nothing is different."""
        if not self._is_json:
            yield
            return
        from joyedit.job.results.report import joyedit_version

        stream = sys.stderr
        console.set_log(stream)
        event_log.set_json(True)
        lines = Lines()
        sys.stderr = lines  # it has all that writers ask for
        try:
            with _descriptor(pump):
                version = joyedit_version()
                told = f"joyedit {version} begins"
                console.message(told, "start", command=self._command, version=version, pid=os.getpid())
                try:
                    yield
                except SystemExit as end:
                    self.exit_code = end.code if isinstance(end.code, int) else EXIT_OK
                    raise
                finally:
                    lines.end()
            seconds = time.monotonic() - self._begun
            told = f"joyedit ends with exit code {self.exit_code}"
            console.message(told, "end", command=self._command, exit_code=self.exit_code, seconds=seconds)
        finally:
            sys.stderr = stream
            event_log.set_json(False)
            console.set_log(None)


@contextlib.contextmanager
def log_of(argv: Sequence[str]) -> Iterator[Log]:
    """The log of the command line `argv`. It is read here first: a fault of the command line is an event too."""
    is_json = _asked(argv) == "json"
    log = Log(is_json, argv[0] if argv and not argv[0].startswith("-") else None)
    if not is_json:
        yield log
        return
    before, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        yield log
    finally:
        warnings.showwarning = before


def _asked(argv: Sequence[str]) -> str | None:
    """The last value of the flag in front of `--`."""
    found = None
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        if word == "--":
            break
        if word == FLAG:
            found = following
        elif word.startswith(f"{FLAG}="):
            found = word.partition("=")[2]
    return found


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    console.message(str(message), "warning", "warning", category=category.__name__, file=filename, line=lineno)


class Lines(io.TextIOBase):
    """A text stream whose lines become the event `output`, for what others print.

    As on a terminal, what stands in front of a carriage return is written over. Each thread has its own line.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self) -> None:
        self._here = threading.local()

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Never: bars and colours are no events."""
        return False

    def fileno(self) -> int:
        """The descriptor, for those who hand it to a child process."""
        return _STDERR

    def write(self, text: str) -> int:
        """Takes the text; a complete line becomes an event."""
        *lines, rest = (getattr(self._here, "text", "") + text).split("\n")
        for line in lines:
            tell_output(line)
        self._here.text = _overwritten(rest)[-_MOST_LINE:]
        return len(text)

    def end(self) -> None:
        """Tell what has no end of line."""
        rest, self._here.text = getattr(self._here, "text", ""), ""
        tell_output(rest)


def tell_output(line: str) -> None:
    """The event of a line that a library printed; a blank one is none."""
    shown = _overwritten(line).strip()
    if shown:
        console.message(shown, "output", "warning")


def _overwritten(text: str) -> str:
    """What a terminal would show of the line."""
    return text.rstrip("\r").rpartition("\r")[2] if "\r" in text else text


@contextlib.contextmanager
def _descriptor(pump: Pump | None) -> Iterator[None]:
    """Lead descriptor 2 into a pipe whose lines become events, where the pump writes to a duplicate of it."""
    own = None if pump is None else pump.own_number(_STDERR)
    if own is None:
        yield
        return
    from joyedit.job.pictures.decoder_messages import set_terminal

    try:
        outlet, inlet = os.pipe()
    except OSError:  # no descriptor is left: the command tells why it ends
        yield
        return
    os.dup2(inlet, _STDERR, inheritable=True)
    os.close(inlet)
    set_terminal(own)
    ended = threading.Event()
    reader = threading.Thread(target=_read_lines, args=(outlet, ended), name="joyedit-stderr", daemon=True)
    reader.start()
    try:
        yield
    finally:
        set_terminal(None)
        # After the end of the command nobody is left to make events of lines.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, _STDERR, inheritable=True)
        os.close(nothing)
        ended.set()
        reader.join()


def _read_lines(outlet: int, ended: threading.Event) -> None:
    """Make events of what comes. A child that lives on may hold the pipe open, so its end is not waited for."""
    rest = b""
    with open(outlet, "rb", buffering=0) as pipe:
        while True:
            is_last = ended.is_set()
            if select.select([pipe], [], [], 0 if is_last else _POLL)[0]:
                data = pipe.read(_READ) or b""
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    tell_output(line.decode("utf-8", "backslashreplace"))
                if len(rest) > _MOST_LINE:
                    tell_output(rest.decode("utf-8", "backslashreplace"))
                    rest = b""
                if data:
                    continue
                is_last = True  # everybody has closed it
            if is_last:
                break
    tell_output(rest.decode("utf-8", "backslashreplace"))
