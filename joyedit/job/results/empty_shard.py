"""What is left of a shard's folder when its items are merged: joyedit's own files go, and files of others stay."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, BinaryIO

from joyedit.errors import OutputError, os_reason
from joyedit.job import failpoints
from joyedit.job.own_files import (
    CUT,
    FAILED,
    LOG,
    PAGE,
    PAGE_FILES,
    REPORT,
    RESCUED,
    RESULTS,
    UNFINISHED,
    is_made_by_joyedit,
    is_page_folder,
)
from joyedit.job.page.place import is_own_page
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import line_of
from joyedit.job.results.safe_open import open_own
from joyedit.job.results.unfinished import Unfinished

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def empty_shard(files: OutputFolder, out: OutputFolder, journal: Journal, merged: Journal) -> None:
    """Remove all that joyedit made in the folder of a shard, whose journal goes last and is closed here.

    Log and rescued records are appended to those of `out`, whose journal is `merged`; and the deaths of items that were
    in work there when a process died are kept there. Raises `OutputError`.
    """
    before = Unfinished(files, journal).before
    suspects = {name: one for name, one in before.items() if one.deaths}
    if suspects:
        with closing(Unfinished(out, merged)) as kept:
            kept.keep(suspects)
    for one in before.values():  # in place, but without a record: made again by a later run
        if is_made_by_joyedit(str(files.path / one.output)):
            files.remove(one.output)
    for name in (LOG, CUT, RESCUED):
        _append(files, out, name)
    if is_page_folder(files.path / PAGE_FILES):
        shutil.rmtree(files.path / PAGE_FILES, ignore_errors=True)
    if is_own_page(files.path / PAGE):
        files.remove(PAGE)
    for name in (FAILED, UNFINISHED, REPORT):
        files.remove(name)
    failpoints.reached("merge.emptied")
    journal.close()
    files.remove(RESULTS)


def keep_in_shard(files: OutputFolder, records: list[dict[str, Any]]) -> None:
    """Leave these records alone in the journal of a shard: their items stay there, all others are merged.

    Raises `OutputError`.
    """

    def fill(file: BinaryIO) -> None:
        for record in records:
            file.write(line_of(record).encode() + b"\n")

    files.write(RESULTS, fill)
    ids = {record["id"] for record in records}
    failed = ids - {record["id"] for record in records if record["status"] == "ok"}
    with suppress(ValueError, OSError):
        report = json.loads((files.path / REPORT).read_bytes())
        counts = {"items": len(ids), "ok": len(ids - failed), "failed": len(failed), "left": 0}
        files.write_text(REPORT, json.dumps(report | counts, indent=2) + "\n")


def remove_empty(folder: Path) -> list[str]:
    """Remove this folder and those below it as far as they are empty. Gives the files that stay, by their paths."""
    left = []
    for parent, _, files in os.walk(folder, topdown=False):
        left += [os.path.join(parent, name) for name in sorted(files)]
        with suppress(OSError):
            os.rmdir(parent)
    return left


def _append(files: OutputFolder, out: OutputFolder, name: str) -> None:
    """Append a file of the shard to that of the output folder, and remove it."""
    try:
        with (
            open(open_own(files.handle, name, os.O_RDONLY), "rb") as given,
            open(open_own(out.handle, name, _APPEND), "ab") as made,
        ):
            shutil.copyfileobj(given, made, 1 << 20)
            made.flush()
            os.fsync(made.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot append {files.path / name} to that of {out.path}: {os_reason(error)}") from error
    files.remove(name)
