"""The folder of a run, for as long as somebody holds one of its results."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path


class ResultFolder:
    """Where the pictures of a run are. A temporary one is removed when nothing refers to it any more."""

    def __init__(self, path: Path, *, is_temporary: bool = False) -> None:
        self.path = path
        self.is_temporary = is_temporary
        if is_temporary:
            weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)

    @classmethod
    def temporary(cls) -> ResultFolder:
        """A new folder for `output=None`. It is also removed when the interpreter ends."""
        return cls(Path(tempfile.mkdtemp(prefix="joyedit-")), is_temporary=True)
