"""Checks an output folder with shards that are not merged: each shard by itself, then that each item is in one of them.

What is merged already counts as one more place. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from joyedit.errors import UsageError, first_line
from joyedit.job.own_files import RESULTS
from joyedit.job.results.check_record import Mismatch
from joyedit.job.results.shard_folders import ShardFolder, shard_folders
from joyedit.job.results.shard_status import whole_by
from joyedit.job.results.verify import (
    Counts,
    Names,
    asked_for,
    folder_mismatches,
    missing_by_number,
    missing_items,
    read_report,
    unknown_ids,
)
from joyedit.job.shard import Shard, number_of
from joyedit.job.source.sources import reopen

_Place = Shard | None
"""A shard; None for the output folder itself."""


def verify_shards(out: Path, counts: Counts, source: str | None = None) -> Iterator[Mismatch]:
    """Everything that does not match, as a stream; `counts` grows on the way. `source` as in `verify`.

    Raises `UsageError` if a source that is named cannot be read, `OutputError` if a journal cannot be read.
    """
    for mismatch in _mismatches(out, counts, source):
        counts.mismatches[mismatch.kind] += 1
        yield mismatch


def _mismatches(out: Path, counts: Counts, source: str | None) -> Iterator[Mismatch]:
    folders = shard_folders(out)
    names = Names()
    where: dict[str, _Place] = {}
    if (out / RESULTS).is_file():
        yield from folder_mismatches(out, counts, names)
        where = dict.fromkeys(names.ids)
    for folder in folders:
        if not folder.has_records:
            continue
        own = Names(inputs=names.inputs)
        for mismatch in folder_mismatches(folder.path, counts, own):
            yield replace(mismatch, file=None if mismatch.file is None else folder.inside + mismatch.file)
        names.ids.update(own.ids)
        yield from _places(folder, own, where, out)
    counts.records = len(where)
    yield from _items(out, counts, names, folders, source)


def _places(folder: ShardFolder, own: Names, where: dict[str, _Place], out: Path) -> Iterator[Mismatch]:
    """Items that are in this shard and should not be there."""
    shard = folder.shard
    for name in own.ids:
        number = number_of(own.chains.get(name, name), shard.of)
        if number != shard.number:
            message = f"shard {shard} has this item, which is one of shard {number} of {shard.of}"
            yield Mismatch(kind="wrong_shard", message=message, id=name)
        if name in where:
            other = where[name]
            there = str(out) if other is None else f"shard {other}"
            message = f"shard {shard} has a record of this item, and so has {there} (joyedit merge keeps the newest)"
            yield Mismatch(kind="two_records", message=message, id=name)
        where[name] = shard


def _items(
    out: Path, counts: Counts, names: Names, folders: list[ShardFolder], source: str | None
) -> Iterator[Mismatch]:
    """Items of the whole source that are nowhere."""
    reports = [report for one in folders if (report := read_report(one.path)).get("asked")]
    asked = asked_for(folders[0].path if folders else out, reports[0] if reports else read_report(out), source)
    if isinstance(asked, dict):
        asked = {key: value for key, value in asked.items() if key != "shard"}
    begun = {one.shard for one in folders}
    of = {one.shard.of for one in folders}
    only = of.pop() if len(of) == 1 else None

    def also(name: str) -> str:
        if only is None:
            return ""
        shard = Shard(only, number_of(name, only))
        return f": shard {shard}" + ("" if shard in begun else ", which has not begun")

    try:
        yield from missing_items(reopen(asked, out).items(), counts, names, also)
    except (UsageError, OSError) as error:
        if source is not None:
            raise UsageError(str(error)) from error
        counts.unread = first_line(error)
        wholes = (whole for one in folders if (whole := whole_by(one)) is not None)
        yield from missing_by_number(max(wholes, default=None), counts)
        return
    if source is not None and counts.unknown:
        for folder in [out, *(one.path for one in folders)]:
            if (folder / RESULTS).is_file():
                yield from unknown_ids(folder, names)
