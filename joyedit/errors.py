"""The errors of joyedit, as one tree. Each class knows the exit code that the command ends with.

    JoyeditError            1   any error that joyedit tells in one message, without a traceback
        UsageError          2   a flag, a file name or a setting cannot work
            ManifestError   2   a manifest, a recipe or a journal has problems; this error holds all of them
        CheckpointError     2   a checkpoint is missing, damaged, incomplete or of an unknown layout
        DeviceError         2   this machine lacks the device, the dtype or the attention backend
        OutputError         1   the output folder cannot be written
        ItemError           3   one item fails; the run goes on with the others

A `Problem` is no exception: it is one thing that is wrong in an input file. Readers collect problems,
and a `ManifestError` tells all of them at once.

The command ends with 0 when all items are done, 1 when the run could not go on, 2 when joyedit refuses
flags, a manifest or a checkpoint, 3 when some items failed, 10 when the time is up, 130 after an
interruption.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, replace

from joyedit.printable import printable

EXIT_OK = 0
EXIT_FATAL = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_OUT_OF_TIME = 10
EXIT_INTERRUPTED = 130


class JoyeditError(Exception):
    """The base class. joyedit tells each of these errors in one message, without a traceback."""

    exit_code = EXIT_FATAL


class UsageError(JoyeditError):
    """A flag, a file name, a setting, or a combination of them, cannot work."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in an input file, and what the user can do about it (`remedy`).

    `file` and `line` say where it is; both stay None until the reader knows its place (see `at`). `line` is
    None too if the problem concerns the whole file. `key` names the key of the item that is wrong. Problems with
    the same `once` are one: many items of a file have it, and it is told once.
    """

    message: str
    remedy: str = ""
    _: KW_ONLY
    key: str | None = None
    file: str | None = None
    line: int | None = None
    once: str | None = None

    def at(self, file: str | None = None, line: int | None = None) -> Problem:
        """The same problem with its place: the file, the line, or both."""
        return replace(self, file=self.file if file is None else file, line=self.line if line is None else line)

    @property
    def text(self) -> str:
        """Message and remedy, without the place."""
        return f"{self.message} ({self.remedy})" if self.remedy else self.message

    def __str__(self) -> str:
        if self.file is None:
            return self.text
        return f"{place(self.file, self.line)}: {self.text}"


class ManifestError(UsageError):
    """A manifest, a recipe or a journal has problems. The message tells all of them, one a line.

    `total` is the number of problems that were found; `problems` may keep fewer.
    """

    def __init__(self, problems: Iterable[Problem], total: int | None = None) -> None:
        self.problems = tuple(problems)
        self.total = len(self.problems) if total is None else total
        lines = [str(problem) for problem in self.problems]
        if self.total > len(self.problems):
            lines.append(f"... and {self.total - len(self.problems)} more")
        super().__init__("\n".join(lines))


class CheckpointError(JoyeditError):
    """A checkpoint is missing, damaged, incomplete or of an unknown layout."""

    exit_code = EXIT_USAGE


class DeviceError(JoyeditError):
    """This machine lacks the device, the dtype or the attention backend that the user asks for."""

    exit_code = EXIT_USAGE


class OutputError(JoyeditError):
    """The output folder cannot be written: the disk is full, it is read-only, or it is no folder."""

    exit_code = EXIT_FATAL


class ItemError(JoyeditError):
    """One item fails, and the run goes on. `code` is a stable word; it goes into the item's record."""

    exit_code = EXIT_SOME_FAILED

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


def concerns_the_run(error: BaseException) -> bool:
    """Whether the error ends the run: joyedit tells it, and it is none of a single item."""
    return isinstance(error, JoyeditError) and not isinstance(error, ItemError)


def place(file: str, line: int | None) -> str:
    """`file:line` as messages name it; the file alone if there is no line."""
    return file if line is None else f"{file}:{line}"


def first_line(error: BaseException | str, limit: int = 200) -> str:
    """The first line of the error's text that is not blank, cut after `limit` characters; else its type's name.

    It is printable: a library's message may quote a name from somebody else's file.
    """
    lines = (line.strip() for line in str(error).splitlines())
    return printable(next((line for line in lines if line), type(error).__name__)[:limit])[:limit]


def system_limit(error: BaseException) -> JoyeditError | None:
    """The true reason if a limit of the system or the process is reached, which is no fault of a picture; else None."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return JoyeditError("no more files can be opened (ulimit -n says how many): raise the limit, or close programs")
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        message = "the system allows no more threads (ulimit -u and ulimit -v say how many, and how much memory)"
        return JoyeditError(message)
    if isinstance(error, MemoryError):
        return JoyeditError("there is not enough memory (ulimit -v says whether the process has a limit)")
    return None


def refuse_other_encoding() -> None:
    """Raises UsageError where Python reads file names and arguments as something else than UTF-8.

    There one name is two texts, in a record and in a folder, and a finished picture is not found again.
    """
    encoding = sys.getfilesystemencoding()
    if encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        raise UsageError(
            f"this environment makes Python read file names as {encoding}, and joyedit needs UTF-8 "
            "(set PYTHONUTF8=1, or a UTF-8 locale such as LC_ALL=C.UTF-8)"
        )


def os_reason(error: OSError) -> str:
    """The system's own words for the error ("No such file or directory"), without number and file name."""
    return error.strerror or str(error)
