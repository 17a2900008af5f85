"""`joyedit merge`: the folders of shards become one output folder, as one run would have made it.

Record by record: the picture is placed in the output folder, its record is appended to the journal there, and then the
picture leaves the folder of its shard. Each step can be seen from outside, so a merge that was killed is ended by the
next one. The journal of a shard goes last, when nothing of it is left to be merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from joyedit.errors import ItemError, OutputError, UsageError
from joyedit.job import failpoints
from joyedit.job.own_files import FAILED, REPORT, RESULTS, SHARDS
from joyedit.job.results.empty_shard import empty_shard, keep_in_shard, remove_empty
from joyedit.job.results.finished_picture import picture_state
from joyedit.job.results.journal import Journal
from joyedit.job.results.lock import OutputLock, holder, holder_text
from joyedit.job.results.merged_report import report_text, summary_of
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import output_of, replaced_by
from joyedit.job.results.resume import earlier_picture
from joyedit.job.results.retry import write_failed
from joyedit.job.results.shard_folders import ShardFolder, missing_shards, shard_folders
from joyedit.job.results.take_over import flush, place
from joyedit.job.results.verify import read_report

_AT_ONCE = 256
"""So many pictures are placed before their folders and then their records are flushed to the disk."""
_ASKED = ("steps", "guidance_scale", "seed", "negative_prompt", "basesize", "width", "height", "size", "fit", "lora",
          "box", "schedule", "model", "dtype", "precision")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Staying:
    """An item that could not leave its shard: `file` is its picture below the folder of the shard."""

    id: str
    folder: ShardFolder
    file: str
    message: str


@dataclass(kw_only=True, slots=True)
class Merged:
    """What a merge did. `shards` were there, `missing` are the numbers of those that have not begun.

    `records` were appended, `older` pictures had a newer one of the same item and are gone. `left` are files that
    joyedit did not make, which stay where they are.
    """

    shards: list[ShardFolder]
    missing: list[int] = field(default_factory=list)
    records: int = 0
    older: int = 0
    staying: list[Staying] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


def merge(out: Path, told: Callable[[ShardFolder, int], None] = lambda folder, items: None) -> Merged:
    """Merge all shards of the output folder `out`. `told` hears of each shard, with its number of items.

    Raises `UsageError` where there is nothing to merge and nothing merged, or where a file of somebody else has the
    name of a file of joyedit; `OutputError` where a shard is running or a folder cannot be written. The same call again
    ends what was begun.
    """
    folders = shard_folders(out)
    if not folders and not (out / RESULTS).is_file():
        raise UsageError(f"{out}: there are no shards in this folder (joyedit run --shard I/N -o {out} makes them)")
    files = OutputFolder(out)
    files.check()
    _refuse_running(folders)
    merged = Merged(shards=folders)
    with OutputLock(out) as lock, closing(files):
        lock.acquire()
        files.prepare()
        files.clean()
        with closing(Journal(out, handle=files.handle)) as journal:
            merged.notes += [text for text in (lock.note, journal.repaired, journal.damaged) if text is not None]
            for folder in folders:
                told(folder, _OneShard(folder, files, journal, merged).merge())
            remove_empty(out / SHARDS)
            left_out = write_failed(files, journal)
            if left_out:
                merged.notes.append(f"not in {FAILED}, because a picture stands in the line: {left_out} failed items")
        merged.report = read_report(out)
        if merged.report.get("left") != 0:
            merged.missing = missing_shards(folders, merged.report.get("shards"))
    return merged


def _refuse_running(folders: list[ShardFolder]) -> None:
    running = [(one, who) for one in folders if (who := holder(one.path)) is not None]
    if running:
        named = "; ".join(f"shard {one.shard}: {holder_text(who)}" for one, who in running)
        what = "1 shard is" if len(running) == 1 else f"{len(running)} shards are"
        raise OutputError(f"{what} still running ({named}): wait for the end, or stop it, and merge again")


class _OneShard:
    """The merging of one shard into the open output folder."""

    def __init__(self, folder: ShardFolder, out: OutputFolder, journal: Journal, merged: Merged) -> None:
        self._folder = folder
        self._out = out
        self._journal = journal
        self._merged = merged
        self._files = OutputFolder(folder.path)
        self._staying: list[str] = []

    def merge(self) -> int:
        """Merge it; gives the number of its items."""
        with OutputLock(self._folder.path) as lock, closing(self._files):
            lock.acquire()
            self._files.prepare()
            self._files.clean()
            with closing(Journal(self._folder.path, handle=self._files.handle)) as journal:
                notes = [text for text in (journal.repaired, journal.damaged) if text is not None]
                self._merged.notes += [f"shard {self._folder.shard}: {text}" for text in notes]
                count = len(journal)
                names = iter(journal.ids())
                while group := list(islice(names, _AT_ONCE)):
                    self._merge_group(journal, group)
                summary = summary_of(self._folder, journal, read_report(self._folder.path))
                self._write_report(summary)
                if self._staying:
                    kept = [record for name in self._staying for record in _records(journal, name)]
                    journal.close()
                    keep_in_shard(self._files, kept)
                    return count
                empty_shard(self._files, self._out, journal, self._journal)
        self._merged.left += remove_empty(self._folder.path)
        return count

    def _write_report(self, summary: dict[str, Any]) -> None:
        """The sum, with this shard. Before its own report goes."""
        before = read_report(self._out.path)
        self._out.write_text(REPORT, report_text(before, self._folder.shard, summary, self._journal, self._out.path))

    def _merge_group(self, journal: Journal, names: list[str]) -> None:
        """Place the pictures of these items, then append their records, then take the pictures out of the shard."""
        moves = [move for name in names if (move := self._placed(journal, name)) is not None]
        for relative in {_parent(move.output): move.output for move in moves if move.is_placed}.values():
            flush(self._out, relative)
        for move in moves:
            for record in move.records:
                self._journal.append_again(record)
                failpoints.reached("merge.recorded")
                self._merged.records += 1
        self._journal.flush()
        for move in moves:
            self._finish(move)

    def _placed(self, journal: Journal, name: str) -> _Move | None:
        """What is to be done with an item, its picture in place; None for one that stays in its shard."""
        finished, final = journal.finished(name), journal.final(name)
        failed = final if final is not None and final is not finished and final["status"] != "ok" else None
        mine_final, mine = self._journal.final(name), self._journal.finished(name)
        mine_failed = mine_final if mine_final is not None and mine_final["status"] != "ok" else None
        output = "" if finished is None else str(output_of(finished))
        if finished is None or (mine is not None and _at(mine) > _at(finished)):  # there is nothing, or a newer one
            return _Move(output, False, finished, None, _last_failure(failed, mine_final, mine))
        is_recorded = mine is not None and _at(mine) == _at(finished)  # by a merge that was killed
        try:
            found = place(self._files, self._out, output, lambda: self._is_recorded(finished, output))
        except ItemError as error:
            self._stay(name, output, str(error))
            return None
        failpoints.reached("merge.placed")
        if found == "taken" and not is_recorded:
            message = f"the file {output!r} is there already, and no record of joyedit names it"
            self._stay(name, output, f"{message} (move it away, and merge again)")
            return None
        last = _last_failure(failed, mine_final, finished) or _last_failure(mine_failed, None, finished)
        records = last if is_recorded else [finished, *last]
        return _Move(output, found == "placed", None, None if is_recorded else mine, records)

    def _stay(self, name: str, output: str, message: str) -> None:
        self._staying.append(name)
        self._merged.staying.append(Staying(name, self._folder, output, message))

    def _is_recorded(self, finished: dict[str, Any], output: str) -> bool:
        """Whether the file in the place of this output is an earlier picture of the same item, as joyedit wrote it."""
        for name in (finished["id"], *replaced_by(finished)):
            mine = self._journal.finished(name)
            if mine is not None and output_of(mine) == output:
                return picture_state(str(self._out.path / output), mine, trust=False) == "recorded"
        return False

    def _finish(self, move: _Move) -> None:
        """Take the picture of an item out of the shard, and an earlier one of it out of the output folder."""
        if move.older is not None:
            size, sha256 = move.older.get("output_bytes"), move.older.get("output_sha256")
            if isinstance(size, int) and isinstance(sha256, str):
                self._merged.older += self._files.remove_picture(move.output, size, sha256)
        elif move.is_placed:
            self._files.remove(move.output)
        failpoints.reached("merge.removed")
        earlier = earlier_picture(move.replaced, move.output)
        if earlier is not None:
            self._merged.older += self._out.remove_picture(*earlier)


@dataclass(frozen=True, slots=True)
class _Move:
    """What becomes of an item. `is_placed`: its picture lies in the output folder.

    `older` is the record of a picture that is older than that in the output folder, `replaced` that of the one there
    which this one takes the place of. `records` are to be appended.
    """

    output: str
    is_placed: bool
    older: dict[str, Any] | None
    replaced: dict[str, Any] | None
    records: list[dict[str, Any]]


def _last_failure(
    failed: dict[str, Any] | None, last: dict[str, Any] | None, finished: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """The failure, if it is the last word about its item. `last` is the last record that is there already.

    A finished picture of what was asked for then is worth more than a failure later.
    """
    if failed is None or (last is not None and _at(failed) <= _at(last)):
        return []
    if finished is not None and (_at(failed) <= _at(finished) or _asked(failed) == _asked(finished)):
        return []
    return [failed]


def _records(journal: Journal, name: str) -> Iterator[dict[str, Any]]:
    """The last finished record of an item, and the last one if it is another."""
    finished, final = journal.finished(name), journal.final(name)
    if finished is not None:
        yield finished
    if final is not None and (finished is None or final["status"] != "ok"):
        yield final


def _at(record: dict[str, Any]) -> str:
    """When the item was finished: texts of one form, so their order is that of the times."""
    at = record.get("at")
    return at if isinstance(at, str) else ""


def _asked(record: dict[str, Any]) -> list[Any]:
    """What an item asked for, as far as its record says."""
    settings = record.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    return [record.get("instruction"), record.get("inputs"), *(settings.get(key) for key in _ASKED)]


def _parent(output: str) -> str:
    return output.rpartition("/")[0]
