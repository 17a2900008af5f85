"""`joyedit export`: the final records of an output folder as one table, streamed in passes over the records.

`AllRecords` finds the last ones, then one pass learns the columns, and one writes. A file is complete, or it is not
there.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from joyedit.errors import ItemError, OutputError, UsageError
from joyedit.job.export.columns import Columns
from joyedit.job.export.rows import FIRST, row_of
from joyedit.job.export.writers import MARK, FormatName, pyarrow_modules, writer_of
from joyedit.job.own_files import RESULTS, is_own_file
from joyedit.job.results.all_records import AllRecords
from joyedit.job.results.output_folder import OutputFolder

_STAYS = "-o {}: this is a file of a run, and stays (give another name)"
_HEAD = 1 << 12
_TELL_SECONDS = 10.0
_CSV = ",".join(FIRST[:5]).encode()
_JSONL = re.compile(rb'\{"id": "(?:[^"\\]|\\.)*", "status": "(?:ok|failed)", "output": ')


class Export:
    """An export of `out`. Raises `UsageError` if that is no output folder or an extra is missing, `OutputError`."""

    def __init__(
        self,
        out: Path,
        format: FormatName,
        *,
        guard: bool = True,
        bom: bool = False,
        told: Callable[[int], None] = lambda rows: None,
    ) -> None:
        """`told` hears from time to time how many rows are written."""
        if format == "parquet":
            pyarrow_modules()
        self._format: FormatName = format
        self._guard = guard
        self._bom = bom
        self._told = told
        self._records = AllRecords(out)
        self.columns = Columns()
        self.rows = 0
        for found in self._records:
            self.columns.learn(row_of(found))
            self.rows += 1

    def write(self, file: BinaryIO, written: Callable[[], None] = lambda: None) -> None:
        """Write all rows to the open file; `written` is called after each."""
        writer = writer_of(self._format, file, self.columns, guard=self._guard, bom=self._bom)
        at = time.monotonic()
        try:
            for number, found in enumerate(self._records):
                writer.add(self.columns.cells(row_of(found)))
                written()
                if time.monotonic() - at >= _TELL_SECONDS:
                    at = time.monotonic()
                    self._told(number + 1)
            writer.end()
        except BaseException:
            writer.drop()
            raise

    def save(self, path: Path, *, overwrite: bool) -> None:
        """Write the file at `path`. Only an export of this format is replaced, but with `overwrite` any other file.

        Raises UsageError for a file that stays, OutputError where nothing can be written.
        """
        refuse_path(path, self._format, overwrite=overwrite)
        if self._is_of_run(path):
            raise UsageError(_STAYS.format(path))
        folder = OutputFolder(path.parent)
        folder.prepare()
        try:
            folder.write(path.name, self.write, may_replace=lambda: overwrite or is_own_export(path, self._format))
        except ItemError as error:
            raise OutputError(f"cannot write {path}: {error}") from error
        finally:
            folder.close()

    def _is_of_run(self, path: Path) -> bool:
        """Whether a record names the file at `path`: a picture, or a shard of them."""
        inside = os.path.relpath(os.path.realpath(path), os.path.realpath(self._records.out))
        if inside.startswith(os.pardir) or not os.path.lexists(path):
            return False
        return any(inside == found.file for found in self._records)


def refuse_path(path: Path, format: FormatName, *, overwrite: bool) -> None:
    """Raises UsageError if this is the place of another file, which stays."""
    if path.is_dir():
        raise UsageError(f"-o {path}: this is a folder (give the name of a file)")
    if is_own_file(path.name.lower()) and (path.parent / RESULTS).exists():
        raise UsageError(_STAYS.format(path))
    if os.path.lexists(path) and not overwrite and not is_own_export(path, format):
        raise UsageError(
            f"-o {path}: the file is there already, and is no {format} export of joyedit (give another name, or add "
            "--overwrite)"
        )


def is_own_export(path: Path, format: FormatName) -> bool:
    """Whether this is a file that `joyedit export` wrote in this format, or an empty one; a link is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            head = file.read(_HEAD)
            if not head:
                return True
            if format == "parquet":
                return MARK in (pyarrow_modules()[1].read_schema(file).metadata or {})
    except Exception:  # it cannot be read, or is none of Parquet
        return False
    if format == "csv":
        return head.removeprefix(b"\xef\xbb\xbf").startswith(_CSV)
    return _JSONL.match(head) is not None
