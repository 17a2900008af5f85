"""`-o one.png`: one picture goes into one file, and nothing else stays.

The run works in a folder beside that file, `.one.png.joyedit`. It is an output folder like any other, so a kill loses
nothing: the same command goes on. The finished picture gets its own name when it is complete, and the folder goes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from joyedit.errors import OutputError, UsageError, os_reason
from joyedit.job.own_files import LOCK, OWN_NAMES, REPORT, RESULTS, UNFINISHED, is_made_by_joyedit, is_temporary
from joyedit.job.results.journal import has_records
from joyedit.job.results.lock import holder
from joyedit.job.results.output_folder import refuse_foreign_files, sync_folder
from joyedit.job.source.names import name_problem
from joyedit.job.source.passed_over import is_output_folder
from joyedit.printable import printable
from joyedit.runtime.run import RunOutcome

_MOST_BYTES = 255
"""The longest name of a file on nearly all systems; that of the folder is longer than the picture's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OnePicture:
    """The file that a run is to make. `may_replace`: whether it may take the place of an earlier picture of joyedit."""

    path: Path
    may_replace: bool

    @property
    def folder(self) -> Path:
        """The output folder of the run."""
        return self.path.parent / f".{self.path.name}.joyedit"

    def refuse(self, inputs: Sequence[Path]) -> None:
        """Raises `UsageError` if the file is there already and must stay, or if a foreign folder is in the way."""
        if len(os.fsencode(self.folder.name)) > _MOST_BYTES:
            raise UsageError(f"{self.path}: the name is too long (give a shorter one with -o)")
        reason = name_problem(self.path.name)
        if reason is not None:
            raise UsageError(f"{printable(str(self.path))}: the name {reason} (give another one with -o)")
        if os.path.lexists(self.folder) and not self._is_own_folder():
            raise UsageError(f"{self.folder}: joyedit did not make this (move it away, or give another name with -o)")
        self._end_killed_run()
        if not os.path.lexists(self.path):
            return
        if any(os.path.exists(one) and os.path.samefile(self.path, one) for one in inputs if self.path.exists()):
            raise UsageError(f"{self.path}: the edited picture would replace its own input (give another name with -o)")
        if not is_made_by_joyedit(str(self.path)):
            message = "is there already and not from joyedit, so no flag replaces it"
            raise UsageError(f"{self.path} {message} (give another name with -o, or move it away)")
        if not self.may_replace:
            raise UsageError(f"{self.path} is there already (add --overwrite, or give another name with -o)")

    def run(self, run: Callable[[], RunOutcome]) -> RunOutcome:
        """Call `run`, and put the picture in place. Raises what it raises, and `OutputError`."""
        try:
            outcome = run()
            if outcome.report.ok:
                self._put_in_place()
                self._clear()
        finally:
            # Refused, or stopped before there was anything to keep. The folder may be that of another run.
            if self._is_own_folder() and not has_records(self.folder) and holder(self.folder) is None:
                self._clear()
        return replace(outcome, report=replace(outcome.report, output=str(self.path)))

    def _put_in_place(self) -> None:
        made = self.folder / self.path.name
        try:
            if self.may_replace and is_made_by_joyedit(str(self.path)):
                os.replace(made, self.path)
            else:
                _link(made, self.path)
            handle = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sync_folder(handle)
            finally:
                os.close(handle)
        except FileExistsError as error:
            raise OutputError(
                f"{self.path} came into being during the run: the edited picture is {made} (move one of them away)"
            ) from error
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {os_reason(error)} (the edited picture is {made})") from error

    def _is_own_folder(self) -> bool:
        """Whether the folder is no link, and holds nothing but what a run of joyedit leaves."""
        try:
            if not stat.S_ISDIR(os.stat(self.folder, follow_symlinks=False).st_mode):
                return False
            refuse_foreign_files(self.folder)
            names = {name for name in os.listdir(self.folder) if not is_temporary(name)}
        except (OSError, UsageError):
            return False
        has_picture = self.path.name in names and is_made_by_joyedit(str(self.folder / self.path.name))
        begun = RESULTS in names and (not has_records(self.folder) or is_output_folder(str(self.folder)))
        known = OWN_NAMES if begun else {LOCK, UNFINISHED, REPORT}
        return names - known <= ({self.path.name} if has_picture else set())

    def _end_killed_run(self) -> None:
        """Remove what a run left that was killed after its picture was in place."""
        with contextlib.suppress(OSError):
            if os.path.samefile(self.folder / self.path.name, self.path):
                self._clear()

    def _clear(self) -> None:
        """Remove joyedit's own files and then the folder. A file of somebody else stays, and the folder with it."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.folder):
                is_picture = name == self.path.name and is_made_by_joyedit(str(self.folder / name))
                if name in OWN_NAMES or is_temporary(name) or is_picture:
                    os.unlink(self.folder / name)
            os.rmdir(self.folder)


def _link(made: Path, path: Path) -> None:
    """Give a file a second name. Raises FileExistsError for a name that is taken, and OSError."""
    try:
        os.link(made, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links here; the moment between this look and the renaming is the best there is
        if os.path.lexists(path):
            raise FileExistsError(str(path)) from None
        os.rename(made, path)
