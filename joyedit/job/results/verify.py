"""Is what the records say true? Every record against its file, every file against a record, every item of the source
against a record.

Nothing is changed. Memory does not grow with the number of problems: they come as a stream.
"""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from joyedit.errors import ItemError, UsageError
from joyedit.job.hashing import sha256_of
from joyedit.job.pictures.decode import load_picture
from joyedit.job.results.journal import CUT, RESULTS, error_code, final_records, torn_bytes
from joyedit.job.results.lock import LOCK
from joyedit.job.results.output_folder import is_temporary
from joyedit.job.results.report import LOG, REPORT
from joyedit.job.results.retry import FAILED
from joyedit.job.source.names import EXTENSIONS, HashTable
from joyedit.job.source.sources import Source, reopen

OWN_FILES = frozenset((RESULTS, CUT, REPORT, FAILED, LOG, LOCK))
_WORKERS = 4
_AHEAD = 32
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is off. `kind` is a stable word; `id` and `file` as far as there are any."""

    kind: str
    message: str
    id: str | None = None
    file: str | None = None


@dataclass(kw_only=True, slots=True)
class Counts:
    """What was looked at. `expected` is the length of the source, where it is known.

    `left` are its items without a record, `unknown` the records of ids that are not in it (None: the
    source could not be read, and `unread` says why). An output folder may serve several sources.
    """

    records: int = 0
    ok: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    expected: int | None = None
    left: int | None = None
    unknown: int | None = None
    unread: str | None = None
    files: int = 0
    findings: Counter[str] = field(default_factory=Counter)


def require_journal(folder: Path) -> None:
    """Raises `UsageError` for what is no output folder of joyedit."""
    if not (folder / RESULTS).is_file():
        raise UsageError(f"{folder}: no output folder of joyedit (there is no {RESULTS} in it)")


def read_report(folder: Path) -> dict[str, Any]:
    """report.json as it stands; empty if there is none, or none that can be read."""
    try:
        message = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def expected_items(report: dict[str, Any]) -> int | None:
    """How many items the source of the last run had; None if nobody knows."""
    items, left = report.get("items"), report.get("left")
    return items + left if isinstance(items, int) and isinstance(left, int) else None


def asked_of(source: Source, folder: Path) -> dict[str, Any]:
    """What the report of a run of `source` keeps for `verify`: of a retry, what the run before it kept."""
    asked = source.asked()
    before = read_report(folder).get("asked")
    is_retry = asked.get("path") == os.path.abspath(folder / FAILED)
    return before if is_retry and isinstance(before, dict) else asked


def verify(folder: Path, counts: Counts, source: str | None = None) -> Iterator[Finding]:
    """Everything that is off, as it is found; `counts` is filled on the way.

    The source is that of the last run; or `source`, and then an id that is not in it is off too. Raises
    `UsageError` for what is no output folder or no source, `ManifestError` for a damaged journal.
    """
    require_journal(folder)
    for finding in _findings(folder, counts, source):
        counts.findings[finding.kind] += 1
        yield finding


def _findings(folder: Path, counts: Counts, source: str | None) -> Iterator[Finding]:
    torn = torn_bytes(folder / RESULTS)
    if torn:
        yield Finding(kind="torn_journal", message=f"{torn} bytes behind the last record", file=RESULTS)
    names = _Names()
    yield from _records(folder, counts, names)
    yield from _files(folder, counts, names)
    yield from _items(folder, counts, names, source)


@dataclass(frozen=True, slots=True)
class _Names:
    """All names that the records hold, as hashes: ids, outputs, and inputs by their absolute paths."""

    ids: HashTable = field(default_factory=HashTable)
    outputs: HashTable = field(default_factory=HashTable)
    inputs: HashTable = field(default_factory=HashTable)


def _items(folder: Path, counts: Counts, names: _Names, source: str | None) -> Iterator[Finding]:
    report = read_report(folder)
    asked = report.get("asked")
    if source is not None:
        before = asked if isinstance(asked, dict) else {}
        asked = {"format": _format(folder), **before, "path": os.path.abspath(source), "limit": None}
    try:
        items = reopen(asked, folder)
        expected = left = 0
        in_source = 2
        for item in items.items():
            expected += 1
            if names.ids.get(item.id):
                names.ids.put(item.id, in_source)
                continue
            left += 1
            where = item.origin.file if item.origin.line is None else f"{item.origin.file}:{item.origin.line}"
            yield Finding(kind="no_record", message=f"no record of this item ({where})", id=item.id)
    except (UsageError, OSError) as error:
        if source is not None:
            raise UsageError(str(error)) from error
        counts.unread = str(error).splitlines()[0]
        counts.expected = expected_items(report)
        if counts.expected is not None:
            counts.left = max(0, counts.expected - counts.records)
            if counts.left:
                yield Finding(kind="no_record", message=f"{counts.left} of {counts.expected} items have no record")
        return
    counts.expected, counts.left = expected, left
    counts.unknown = sum(number != in_source for number in names.ids.numbers())
    if source is not None and counts.unknown:
        for record in final_records(folder / RESULTS):
            if names.ids.get(record["id"]) != in_source:
                yield Finding(kind="unknown_id", message="the source has no item of this id", id=record["id"])


def _format(folder: Path) -> str:
    """The format of the pictures, told by their endings."""
    for record in final_records(folder / RESULTS):
        output = record.get("output") or record.get("planned_output")
        suffix = PurePosixPath(str(output)).suffix.lower()
        for name, endings in EXTENSIONS.items():
            if suffix in endings:
                return name
    return "png"


def _records(folder: Path, counts: Counts, names: _Names) -> Iterator[Finding]:
    waiting: deque[Future[Finding | None]] = deque()
    with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="joyedit-verify") as pool:
        for record in final_records(folder / RESULTS):
            counts.records += 1
            names.ids.put(record["id"], 1)
            given = record.get("inputs")
            for path in given if isinstance(given, list) else ():
                names.inputs.put(str(path), 1)
            code = error_code(record)
            if code is not None:
                counts.failed[code] += 1
                continue
            counts.ok += 1
            names.outputs.put(str(record.get("output")), 1)
            waiting.append(pool.submit(check_record, folder, record))
            if len(waiting) >= _AHEAD and (finding := waiting.popleft().result()) is not None:
                yield finding
        for future in waiting:
            if (finding := future.result()) is not None:
                yield finding


def check_record(folder: Path, record: dict[str, Any]) -> Finding | None:
    """A finished item's record against its file."""
    name, output = record["id"], record.get("output")
    relative = PurePosixPath(output) if isinstance(output, str) and "\0" not in output else None
    if relative is None or relative.is_absolute() or ".." in relative.parts or not relative.parts:
        return Finding(kind="bad_record", message=f"its output {output!r} is no name inside the folder", id=name)

    def finding(kind: str, message: str) -> Finding:
        return Finding(kind=kind, message=message, id=name, file=str(relative))

    path = folder.joinpath(*relative.parts)
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size != record.get("output_bytes"):
                return finding("wrong_size", f"{size} bytes, recorded are {record.get('output_bytes')}")
            if sha256_of(file) != record.get("output_sha256"):
                return finding("wrong_content", "its sha256 is not the recorded one")
        load_picture(path, _NO_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return finding("missing_file", "no such file")
    except ItemError as error:
        return finding("no_picture", str(error))
    except OSError as error:
        return finding("unreadable_file", error.strerror or str(error))
    return None


def _files(folder: Path, counts: Counts, names: _Names) -> Iterator[Finding]:
    root = os.path.abspath(folder)
    for place, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(place, name)
            relative = os.path.relpath(path, root).replace(os.sep, "/")
            if relative in OWN_FILES:
                continue
            if is_temporary(name):
                yield Finding(kind="unfinished_file", message="left by a run that was killed", file=relative)
            elif not name.startswith("."):
                counts.files += 1
                if not names.outputs.get(relative) and not names.inputs.get(path):
                    yield Finding(kind="stray_file", message="no record names this file", file=relative)
