"""The folder of a run, for as long as somebody holds one of its results."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from joyedit.job.own_files import RESULTS
from joyedit.job.results.latest_records import LatestRecords


class ResultFolder:
    """Where the pictures of a run are. A temporary one is removed when nothing refers to it any more."""

    def __init__(self, path: Path, *, is_temporary: bool = False) -> None:
        self.path = path
        self._latest: LatestRecords | None = None
        self.is_temporary = is_temporary
        if is_temporary:
            weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)

    @property
    def latest(self) -> LatestRecords:
        """The last records, kept for all results of the folder: one look reads what has come since the one before."""
        if self._latest is None:
            self._latest = LatestRecords(self.path / RESULTS)
        return self._latest

    @classmethod
    def temporary(cls) -> ResultFolder:
        """A new folder for `output=None`. It is also removed when the interpreter ends."""
        return cls(Path(tempfile.mkdtemp(prefix="joyedit-")), is_temporary=True)
