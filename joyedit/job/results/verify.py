"""Checks an output folder: every record against its file, every file against a record, every item of the source
against a record.

It changes nothing. The mismatches come as a stream; in memory are the names that the records hold.
"""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from joyedit.errors import OutputError, UsageError, first_line, place
from joyedit.job.own_files import (
    FAILED,
    KEPT_INPUTS,
    OWN_NAMES,
    REPORT,
    RESULTS,
    SHARDS,
    is_in_shard,
    is_page_folder,
    is_temporary,
)
from joyedit.job.results.check_record import Mismatch, check_object, check_record
from joyedit.job.results.picture_place import objects_of
from joyedit.job.results.records import (
    beside_of,
    chain_in,
    damaged_lines,
    error_code,
    file_of,
    final_records,
    mask_path,
    name_of,
    output_of,
    read_journal,
)
from joyedit.job.results.safe_open import read_own
from joyedit.job.results.shard_folders import refuse_unmerged, whole_of
from joyedit.job.source.names import EXTENSIONS
from joyedit.job.source.sources import Source, reopen
from joyedit.job.spec import EditItem, FailedItem
from joyedit.job.turns import chain_of

_MAX_REPORT = 64 << 20
_WORKERS = 4
_AHEAD = 32


@dataclass(kw_only=True, slots=True)
class Counts:
    """How much was checked.

    `expected` is the number of items in the source, `left` how many of them have no record, `unknown` how
    many records have an id that the source lacks. They are None if nobody knows; `unread` says why the
    source could not be read. An output folder may serve several sources.
    """

    records: int = 0
    ok: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    expected: int | None = None
    left: int | None = None
    unknown: int | None = None
    unread: str | None = None
    files: int = 0
    mismatches: Counter[str] = field(default_factory=Counter)


def require_journal(folder: Path) -> None:
    """Raises `UsageError` for what is no output folder of joyedit, `OutputError` for one that may not be read."""
    refuse_unmerged(folder)
    if not folder.exists():
        raise UsageError(f"{folder}: no such folder (give the output folder of a run)")
    if not (folder / RESULTS).is_file():
        raise UsageError(f"{folder}: this is no output folder of joyedit (it has no {RESULTS})")
    if not os.access(folder / RESULTS, os.R_OK):
        raise OutputError(f"cannot read {folder / RESULTS}: no permission")


def read_report(folder: Path) -> dict[str, Any]:
    """The content of report.json; empty if the file is missing or cannot be read."""
    try:
        read = json.loads(read_own(folder, REPORT, _MAX_REPORT) or b"")
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def expected_items(report: dict[str, Any]) -> int | None:
    """How many items the source of the last run had; None if nobody knows."""
    items, left = report.get("items"), report.get("left")
    return items + left if isinstance(items, int) and isinstance(left, int) else None


def asked_of(source: Source, folder: Path) -> dict[str, Any]:
    """What the report keeps about `source` for `verify`. A retry keeps what the run before it kept."""
    asked = source.asked()
    before = read_report(folder).get("asked")
    is_retry = asked.get("path") == os.path.abspath(folder / FAILED)
    return dict(before) if is_retry and isinstance(before, dict) else asked


def verify(folder: Path, counts: Counts, source: str | None = None) -> Iterator[Mismatch]:
    """Everything that does not match, as a stream; `counts` grows on the way.

    The source is that of the last run. If `source` names another one, a record that this one lacks is a
    mismatch too. Raises `UsageError` if the folder is no output folder or the source cannot be read,
    `OutputError` if the journal cannot be read.
    """
    require_journal(folder)
    for mismatch in _mismatches(folder, counts, source):
        counts.mismatches[mismatch.kind] += 1
        yield mismatch


def _mismatches(folder: Path, counts: Counts, source: str | None) -> Iterator[Mismatch]:
    names = Names()
    yield from folder_mismatches(folder, counts, names)
    yield from _items(folder, counts, names, source)


def folder_mismatches(folder: Path, counts: Counts, names: Names) -> Iterator[Mismatch]:
    """What does not match within this folder, whatever the source; `names` gets the names that its records hold."""
    damaged, torn = damaged_lines(folder / RESULTS)
    for number in damaged:
        message = f"line {number} is no record: joyedit passes over it"
        yield Mismatch(kind="damaged_record", message=message, file=RESULTS)
    if torn:
        message = f"{torn} bytes follow the last complete record"
        yield Mismatch(kind="torn_journal", message=message, file=RESULTS)
    objects = objects_of(folder)
    if objects is None:
        yield from _records(folder, counts, names, partial(check_record, folder))
        yield from _files(folder, counts, names, _files_below(folder))
        return
    yield from _records(folder, counts, names, partial(check_object, folder, objects))
    yield from _files(folder, counts, names, objects.names())


@dataclass(frozen=True, slots=True)
class Names:
    """All names that the records hold: ids (and whether the source has them), outputs, absolute paths of inputs.

    `chains` has the ids by which shards are chosen, where these are others.
    """

    ids: dict[str, bool] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    inputs: set[str] = field(default_factory=set)
    chains: dict[str, str] = field(default_factory=dict)

    def known(self, item: EditItem | FailedItem) -> str | None:
        """The id under which the item has a record; None if it has none. A default id may have been another one."""
        others = item.other_ids if isinstance(item, EditItem) else ()
        return item.id if item.id in self.ids else next((one for one in others if self.ids.get(one) is False), None)


def asked_for(folder: Path, report: dict[str, Any], source: str | None) -> object:
    """What `reopen` makes the source of: that of the last run, or the one of the name `source`."""
    asked = report.get("asked")
    if source is None:
        return asked
    before = asked if isinstance(asked, dict) else {}
    kept = {key: value for key, value in before.items() if key not in ("given", "list")}
    is_list = source.startswith("@") and not os.path.lexists(source)
    path = os.path.abspath(source[1:] if is_list else source)
    return {"format": _format(folder), **kept, "path": path, "limit": None} | ({"list": True} if is_list else {})


def _items(folder: Path, counts: Counts, names: Names, source: str | None) -> Iterator[Mismatch]:
    report = read_report(folder)
    asked = asked_for(folder, report, source)
    try:
        yield from missing_items(reopen(asked, whole_of(folder)).items(), counts, names)
    except (UsageError, OSError) as error:
        if source is not None:
            raise UsageError(str(error)) from error
        counts.unread = first_line(error)
        yield from missing_by_number(expected_items(report), counts)
        return
    if source is not None and counts.unknown:
        yield from unknown_ids(folder, names)


def missing_items(
    items: Iterable[EditItem | FailedItem], counts: Counts, names: Names, also: Callable[[str], str] = lambda name: ""
) -> Iterator[Mismatch]:
    """The items of a source that have no record; `also` says more of one, by the first id of its chain.

    Then the counts stand.

    Raises what `items` raises.
    """
    expected = left = 0
    for item in items:
        expected += 1
        known = names.known(item)
        if known is not None:
            names.ids[known] = True
            continue
        left += 1
        message = f"this item has no record ({place(item.origin.file, item.origin.line)}){also(chain_of(item))}"
        yield Mismatch(kind="no_record", message=message, id=item.id)
    counts.expected, counts.left = expected, left
    counts.unknown = sum(not in_source for in_source in names.ids.values())


def unknown_ids(folder: Path, names: Names) -> Iterator[Mismatch]:
    """Records of this folder whose items the source does not have."""
    for record in final_records(folder / RESULTS):
        if not names.ids.get(record["id"]):
            yield Mismatch(kind="unknown_id", message="the source has no item of this id", id=record["id"])


def missing_by_number(expected: int | None, counts: Counts) -> Iterator[Mismatch]:
    """Compares numbers only, because the source cannot be read."""
    counts.expected = expected
    if expected is not None:
        counts.left = max(0, expected - counts.records)
        if counts.left:
            yield Mismatch(kind="no_record", message=f"{counts.left} of {expected} items have no record")


def _format(folder: Path) -> str:
    """The format of the pictures, by the ending of the first one."""
    for record in final_records(folder / RESULTS):
        output = name_of(record) or record.get("planned_output")
        suffix = PurePosixPath(str(output)).suffix.lower()
        for name, endings in EXTENSIONS.items():
            if suffix in endings:
                return name
    return "png"


def _records(
    folder: Path, counts: Counts, names: Names, check: Callable[[dict[str, Any]], Mismatch | None]
) -> Iterator[Mismatch]:
    waiting: deque[Future[Mismatch | None]] = deque()
    failed: set[str] = set()
    with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="joyedit-verify") as pool:
        for record in final_records(folder / RESULTS):
            counts.records += 1
            names.ids[record["id"]] = False
            chain = chain_in(record)
            if chain != record["id"]:
                names.chains[record["id"]] = chain
            given = record.get("inputs")
            for path in given if isinstance(given, list) else ():
                names.inputs.add(str(path))
            mask = mask_path(record)
            if mask is not None:
                names.inputs.add(mask)
            code = error_code(record)
            if code is not None:
                counts.failed[code] += 1
                failed.add(record["id"])
                continue
            counts.ok += 1
            names.outputs.update((str(file_of(record)), *(one.file for one in beside_of(record))))
            waiting.append(pool.submit(check, record))
            if len(waiting) >= _AHEAD and (mismatch := waiting.popleft().result()) is not None:
                yield mismatch
        # The picture that an earlier run finished may still stand where a later one failed.
        for record in read_journal(folder / RESULTS) if failed else ():
            earlier = file_of(record)
            if earlier is not None and record["id"] in failed:
                names.outputs.update((earlier, *(one.file for one in beside_of(record))))
        for future in waiting:
            if (mismatch := future.result()) is not None:
                yield mismatch


def _files_below(folder: Path) -> Iterator[str]:
    """The names of all files, but for those of pages and of shards."""
    root = os.path.abspath(folder)
    for parent, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not _is_apart(root, parent, name))
        for name in sorted(files):
            yield os.path.relpath(os.path.join(parent, name), root).replace(os.sep, "/")


def _files(folder: Path, counts: Counts, names: Names, found: Iterable[str]) -> Iterator[Mismatch]:
    root = os.path.abspath(folder)
    earlier: dict[str, str] | None = None  # read when the first file is found that no last record names
    for relative in found:
        name = relative.rpartition("/")[2]
        if relative in OWN_NAMES:
            continue
        if is_temporary(name):
            yield Mismatch(kind="unfinished_file", message="a killed run left this file", file=relative)
        elif not name.startswith("."):
            counts.files += 1
            if relative in names.outputs or os.path.join(root, relative) in names.inputs:
                continue
            earlier = _earlier_outputs(folder) if earlier is None else earlier
            owner = earlier.get(relative)
            if owner is None:
                yield Mismatch(kind="stray_file", message="no record names this file", file=relative)
            else:
                message = "an earlier record names this file; the picture of this item has another name now"
                yield Mismatch(kind="earlier_picture", message=message, id=owner, file=relative)


def _is_apart(root: str, parent: str, name: str) -> bool:
    """Whether a folder holds no pictures of this output folder: a page's, and a shard's that is not merged."""
    path = os.path.join(parent, name)
    if is_page_folder(path) or (parent == root and name == KEPT_INPUTS):
        return True
    is_shard = parent == os.path.join(root, SHARDS) and is_in_shard(f"{SHARDS}/{name}")
    return is_shard and os.path.isfile(os.path.join(path, RESULTS))


def _earlier_outputs(folder: Path) -> dict[str, str]:
    """All pictures that any record names, with the id of the item."""
    found: dict[str, str] = {}
    for record in read_journal(folder / RESULTS):
        named = {output_of(record), name_of(record), file_of(record), *(one.file for one in beside_of(record))}
        found |= dict.fromkeys((one for one in named if one is not None), record["id"])
    return found
