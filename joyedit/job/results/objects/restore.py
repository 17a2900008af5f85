"""The records below an address come into a local folder: for the next run, and for whoever only looks.

The journal is results.jsonl of the last run that ended, and behind it the segments of one that did not. A segment says
in its name at which byte of the journal it begins.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joyedit.errors import OutputError, UsageError
from joyedit.job.own_files import FAILED, LOG, REPORT, RESULTS, UNFINISHED
from joyedit.job.results.objects.names import ABOUT, IN_WORK, segment_begin
from joyedit.job.results.objects.store import ObjectStore
from joyedit.job.results.output_folder import refuse_foreign_files
from joyedit.job.results.records import lines_of, parse

_BESIDE = (REPORT, FAILED, LOG)
_BLOCK = 1 << 20


def restore_records(store: ObjectStore, sizes: Mapping[str, int], path: Path) -> int:
    """Write the journal of the prefix to `path`; gives its bytes. `sizes` are the objects that are there.

    Raises OutputError where a segment is missing: behind the gap nobody knows what is done.
    """
    path.unlink(missing_ok=True)
    if RESULTS in sizes:
        store.download(RESULTS, path)
    segments = sorted((begin, name) for name in sizes if (begin := segment_begin(name)) is not None)
    if not segments and not path.exists():
        return 0
    with path.open("ab") as file:
        length = file.seek(0, os.SEEK_END)
        contents = store.read_each(name for _, name in segments)
        for (begin, _), found in zip(segments, contents, strict=True):
            if begin > length:
                raise OutputError(
                    f"{store.shown}: records are missing, from byte {length} to {begin} of {RESULTS}: a segment of the"
                    " journal was removed (bring it back, or choose another address with -o)"
                )
            data = found or b""
            if begin + len(data) > length:  # else results.jsonl has it: a driver died before it removed this one
                file.write(data[length - begin :])
                length = begin + len(data)
        file.flush()
        os.fsync(file.fileno())
    return length


def restore_beside(store: ObjectStore, sizes: Mapping[str, int], folder: Path) -> None:
    """Bring report, log and failed.jsonl into a folder; those that the prefix lacks go."""
    for name in _BESIDE:
        if name not in sizes or not store.download(name, folder / name):
            (folder / name).unlink(missing_ok=True)


def restore_unfinished(store: ObjectStore, sizes: Mapping[str, int], folder: Path) -> dict[str, tuple[str, int]]:
    """Let `.joyedit.unfinished` tell, too, which items were on their way over a cluster when a driver died.

    Their pictures may be there without a record: they are joyedit's own. None of them is a suspect, because no process
    of the driver worked on it. Gives the output of each, and at how many deaths it was in work.
    """
    read = _json(store.read(IN_WORK) if IN_WORK in sizes else None)
    items, start = _claims(read.get("items")), read.get("start")
    if not items or not isinstance(start, int):
        return {}
    path = folder / RESULTS  # it may be shorter than it was: its last records may be gone with a driver's machine
    start = min(start, path.stat().st_size if path.exists() else 0)
    recorded = _ids_from(path, start)
    items = [one for one in items if one[0] not in recorded]
    if not items:
        return {}
    path = folder / UNFINISHED
    lines: list[list[Any]] = [["kept", items]]
    if not path.exists():
        lines = [["start", start], *lines, ["stop"]]
    with path.open("ab") as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write(b"\n")  # a line that a kill has torn
        file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    return {name: (output, deaths) for name, output, deaths in items}


def _claims(listed: object) -> list[tuple[str, str, int]]:
    """Those of the listed items that are id, output and deaths."""
    found = listed if isinstance(listed, list) else []
    return [
        (one[0], one[1], one[2]) for one in found if isinstance(one, list) and list(map(type, one)) == [str, str, int]
    ]


def _ids_from(path: Path, begin: int) -> set[str]:
    """The ids of the records from this byte of a journal on."""
    if not path.exists():
        return set()
    with path.open("rb") as file:
        file.seek(begin)
        return {record["id"] for line, _ in lines_of(file) if (record := parse(line)) is not None}


def life_of(store: ObjectStore, sizes: Mapping[str, int]) -> str:
    """The life of the prefix: it is another one when somebody has emptied it; empty where no run was here."""
    return str(_json(store.read(ABOUT) if ABOUT in sizes else None).get("life") or "")


def refuse_strange_objects(store: ObjectStore, sizes: Mapping[str, int], folder: Path) -> None:
    """Raises UsageError where an object of another program has the name of a report. `folder` has the reports."""
    if RESULTS in sizes or life_of(store, sizes):
        return
    try:
        refuse_foreign_files(folder)
    except UsageError as error:
        raise UsageError(str(error).replace(str(folder), store.shown)) from error


def begins_with(longer: Path, shorter: Path) -> bool:
    """Whether a file begins with the bytes of another one. A file that is missing is empty."""
    if not shorter.exists() or not shorter.stat().st_size:
        return True
    if not longer.exists() or longer.stat().st_size < shorter.stat().st_size:
        return False
    with longer.open("rb") as one, shorter.open("rb") as other:
        while data := other.read(_BLOCK):
            if one.read(len(data)) != data:
                return False
    return True


def _json(data: bytes | None) -> dict[str, Any]:
    try:
        read = json.loads(data or b"{}")
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
