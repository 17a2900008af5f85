"""The thread that packs finished pictures into shards while the run goes on, and what is told of shards that wait.

It stands behind the records: an item is finished first, as a loose picture with a record, and then its shard takes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict

from joyedit.errors import ItemError, concerns_the_run
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.run_config import RunConfig
from joyedit.job.source.source import Source
from joyedit.job.spec import EditItem, FailedItem, ItemResult
from joyedit.job.writing.kept_inputs import forget_inputs, keep_inputs
from joyedit.job.writing.shard_names import ENDINGS, ShardFiles, shard_name, shards_in
from joyedit.job.writing.shard_writing import ShardWriting
from joyedit.printable import brief, printable

_SHOWN = 5
_WAKE = 1.0


class Shards:
    """The shards of one run. Any thread may call the methods; `finish` comes last.

    Raises `OutputError` from whichever method is called next where a shard could not be written.
    """

    def __init__(
        self,
        folder: OutputFolder,
        journal: Journal,
        config: RunConfig,
        source: Source,
        note: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._config = config
        self._note = note
        self._writing = ShardWriting(folder, journal, config.write, config.shard_size)
        if self._writing.recovered is not None:
            note(f"{self._writing.recovered}: what a killed run had begun is brought to its end")
        self._lock = threading.Lock()
        # A later turn reads the result of an earlier one, which must not go meanwhile.
        self._waits_for_end = source.referred() is None or bool(source.referred())
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="joyedit-pack")
        self._given: dict[int, Future[None]] = {}
        self._fatal: BaseException | None = None
        self._faults: dict[int, str] = {}
        self._folders: set[str] = set()
        self._stopped: Callable[[], bool] = bool
        self.is_cut_short = False
        """Whether `finish` left out shards that could be written, because the run was to stop."""

    def came(self, item: EditItem | FailedItem) -> None:
        """An item comes from the source."""
        self._check()
        with self._lock:
            self._writing.shards.came(item.id, item.other_ids if isinstance(item, EditItem) else ())

    def all_came(self) -> None:
        """The source has come to its end."""
        with self._lock:
            self._writing.shards.all_came()

    def before_record(self, item: EditItem) -> None:
        """The item is about to be recorded as finished: keep what only its line holds."""
        keep_inputs(self._folder, item)

    def ended(self, result: ItemResult) -> None:
        """An item has a record."""
        self._check()
        if result.status == "ok":
            if result.output is not None and "/" in result.output:
                self._folders.add(result.output.rpartition("/")[0])
            self._finished(result.id, is_packed=False)

    def skipped(self, item: EditItem, recorded_as: str, *, has_changed: bool) -> None:
        """An item is not edited in this run, because its picture is finished. `recorded_as` is the id of its record.

        `has_changed`: its shard holds less of it than its record says now.
        """
        is_packed = not has_changed and self._writing.is_packed(recorded_as)
        self.before_record(item)  # its shard may be written anew, because of another item
        if "/" in item.output:
            self._folders.add(item.output.rpartition("/")[0])
        self._finished(item.id, is_packed=is_packed, recorded_as=recorded_as)

    def _finished(self, name: str, *, is_packed: bool, recorded_as: str | None = None) -> None:
        with self._lock:
            number = self._writing.shards.finished(name, is_packed=is_packed, recorded_as=recorded_as)
            if number is not None and not self._waits_for_end and self._writing.shards.is_ready(number):
                self._give(number)

    def _give(self, number: int) -> None:
        """Have the shard written in the thread."""
        if number not in self._given:
            self._given[number] = self._pool.submit(self._write, number)

    def _write(self, number: int, *, is_partial: bool = False) -> None:
        if self._fatal is not None or self._stopped():
            return
        shards = self._writing.shards
        with self._lock:
            pending = shards.pending(number)
            ids = [name for name in shards.ids(number) if name not in pending]
        try:
            self._writing.write(number, ids, is_partial=is_partial)
        except ItemError as error:
            self._faults[number] = str(error)
        except BaseException as error:
            self._fatal = error
            if not concerns_the_run(error):
                raise
        else:
            with self._lock:
                shards.written(number)

    def _check(self) -> None:
        if self._fatal is not None:
            raise self._fatal

    def finish(self, *, stopped: Callable[[], bool]) -> int:
        """Write what can be written, wait for it, and tell what waits. Once `stopped` says so, no new shard begins.

        Gives how many shards could not be written although their items have pictures.
        """
        self._stopped = stopped
        while True:
            for future in list(self._given.values()):
                while not future.done():
                    wait([future], timeout=_WAKE)  # the handler of a signal may wait for this thread
                future.result()
            self._check()
            self._given.clear()
            ready = self._ready()
            if stopped() or not ready:
                break
            with self._lock:
                for number in ready:
                    self._give(number)
        self.is_cut_short = bool(ready)
        if not stopped():
            self._tell_waiting()
            self._check()
        self._tidy(everything=not stopped())
        return len(self._faults)

    def _ready(self) -> list[int]:
        """The shards that can be written now, but for those that could not be."""
        shards = self._writing.shards
        with self._lock:
            return [number for number in shards.settled() if number not in self._faults and shards.is_ready(number)]

    def _tell_waiting(self) -> None:
        shards, kind = self._writing.shards, self._config.write
        with self._lock:
            waiting = [n for n in shards.settled() if shards.pending(n) or n in self._faults]
        partial = []
        for number in waiting:
            if self._may_be_partial(number):
                self._write(number, is_partial=True)
                partial.append(number)
            if number in self._faults:
                self._note(f"{shard_name(number, kind)} waits: {brief(self._faults[number], 500)}")
        lacking = [number for number in waiting if number not in self._faults]
        if lacking:
            self._note(self._told(lacking, partial))

    def _may_be_partial(self, number: int) -> bool:
        """Whether the shard gets a file although it lacks items. A complete file of earlier pictures stays."""
        if not self._config.write_partial or number in self._faults or self._writing.has_file(number):
            return False
        return self._writing.shards.is_changed(number)

    def _told(self, waiting: list[int], partial: list[int]) -> str:
        """What waits, and what the user can do."""
        shards, kind = self._writing.shards, self._config.write
        count = sum(len(shards.pending(number)) for number in waiting)
        names = ", ".join(shard_name(n, kind, is_partial=n in partial) for n in waiting[:_SHOWN])
        names += ", ..." if len(waiting) > _SHOWN else ""
        example = printable(brief(min(shards.pending(waiting[0])), 60))
        lack = f"{'1 item has' if count == 1 else f'{count} items have'} no picture as asked, for example {example}"
        one, other = ("shard", "waits") if len(waiting) == 1 else ("shards", "wait")
        remedy = "--retry-failed edits what failed, and completes them"
        if partial:
            written = "1 shard is" if len(partial) == 1 else f"{len(partial)} shards are"
            return f"{written} partial ({names}): {lack} ({remedy})"
        others = "" if self._config.write_partial else "; --write-partial writes the others into partial shards"
        return f"{len(waiting)} {one} {other} ({names}): {lack} ({remedy}{others})"

    def _tidy(self, *, everything: bool) -> None:
        """Remove folders that are empty since their pictures lie in shards, and inputs that nobody needs any more."""
        for folder in sorted(self._folders, key=len, reverse=True):
            while folder:
                try:
                    os.rmdir(self._folder.path / folder)
                except OSError:
                    break
                folder = folder.rpartition("/")[0]
        shards = self._writing.shards
        if everything and not shards.unfinished() and not self._faults and not self._fatal:
            forget_inputs(self._folder)

    def counts(self) -> dict[str, int]:
        """The size of a shard, and how many there are: the keys of `Report.write`.

        Any thread may ask, and the handler of a signal, which must not wait for a lock of its own thread.
        """
        waiting = self._writing.shards.waiting()
        files = ShardFiles.of(shards_in(self._folder.path), self._config.write)
        return {"shard_size": self._config.shard_size} | asdict(files) | {"waiting": waiting}

    def close(self) -> None:
        """End the thread; the shard in work is written to its end."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class NoShards:
    """A run whose pictures stay loose."""

    is_cut_short = False

    def came(self, item: EditItem | FailedItem) -> None:
        """Nothing."""

    def all_came(self) -> None:
        """Nothing."""

    def before_record(self, item: EditItem) -> None:
        """Nothing."""

    def ended(self, result: ItemResult) -> None:
        """Nothing."""

    def skipped(self, item: EditItem, recorded_as: str, *, has_changed: bool) -> None:
        """Nothing."""

    def finish(self, *, stopped: Callable[[], bool]) -> int:
        """Nothing."""
        return 0

    def counts(self) -> dict[str, int]:
        """None."""
        return {}

    def close(self) -> None:
        """Nothing."""


def writes_shards(config: RunConfig) -> bool:
    """Whether a run packs its pictures."""
    return config.write in ENDINGS
