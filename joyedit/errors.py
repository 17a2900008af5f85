"""The error tree. Each kind of error knows the exit code that the command ends with.

Exit codes: 0 all items done, 1 the run could not go on, 2 usage, manifest or checkpoint refused,
3 some items failed, 10 out of time, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EXIT_OK = 0
EXIT_FATAL = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_OUT_OF_TIME = 10
EXIT_INTERRUPTED = 130


class JoyeditError(Exception):
    """Base of every error that is told to the user in one message, without a traceback."""

    exit_code = EXIT_FATAL


class UsageError(JoyeditError):
    """A flag, a file name or a combination of them that cannot work."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One fault of an input file: where it is, what is wrong and what to do about it."""

    file: str
    line: int | None = None
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.message}" + (f" ({self.remedy})" if self.remedy else "")


class ManifestError(UsageError):
    """Every fault found in a manifest or a recipe, told at once.

    `total` counts the faults when more were found than `problems` keeps.
    """

    def __init__(self, problems: Iterable[Problem], total: int | None = None) -> None:
        self.problems = tuple(problems)
        self.total = len(self.problems) if total is None else total
        lines = [str(problem) for problem in self.problems]
        if self.total > len(self.problems):
            lines.append(f"... and {self.total - len(self.problems)} more")
        super().__init__("\n".join(lines))


class CheckpointError(JoyeditError):
    """A checkpoint that is missing, damaged, partial or of an unknown layout."""

    exit_code = EXIT_USAGE


class DeviceError(JoyeditError):
    """The device, the dtype or the attention backend asked for is not to be had here."""

    exit_code = EXIT_USAGE


class OutputError(JoyeditError):
    """The output folder cannot be written (full, read-only, not a folder)."""

    exit_code = EXIT_FATAL


class ItemError(JoyeditError):
    """A fault that stays with one item. `code` is stable and goes into its record."""

    exit_code = EXIT_SOME_FAILED

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


def first_line(error: BaseException | str, limit: int = 200) -> str:
    """The first line of an error's text that is not blank, cut after `limit` characters; else its type's name."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:limit]
