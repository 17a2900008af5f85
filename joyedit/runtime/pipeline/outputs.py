"""What a run makes of its finished pictures: what lies beside each, shards, and the list of an image folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from joyedit.errors import ItemError
from joyedit.job.number_table import NumberTable
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.resume import Decision
from joyedit.job.run_config import RunConfig
from joyedit.job.source.source import Source
from joyedit.job.spec import EditItem, FailedItem, ItemResult
from joyedit.job.writing.image_folder import write_metadata
from joyedit.job.writing.row_fields import with_row
from joyedit.printable import brief, printable
from joyedit.runtime.pipeline.beside import BesideWriter
from joyedit.runtime.pipeline.pack import NoShards, Shards, writes_shards


class Outputs:
    """Any thread may call the methods; `finish` comes last, and then `close`.

    `asked` is what the run was asked for. Where that is another source, this one is the list of what failed, which does
    not tell which items belong to one shard.
    """

    def __init__(
        self,
        folder: OutputFolder,
        journal: Journal,
        config: RunConfig,
        source: Source,
        *,
        note: Callable[[str], None],
        asked: Mapping[str, Any],
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._config = config
        self._note = note
        self._lack, self._lacking = 0, ""  # finished pictures that lack a file beside them, and the first of them
        self._order = NumberTable() if config.write == "imagefolder" else None
        self.beside = BesideWriter(folder, journal, config.write)
        self._shards: Shards | NoShards = NoShards()
        is_retry = asked.get("path") != source.asked().get("path")
        if writes_shards(config) and is_retry:
            note("a retry by its list packs no shard: the command of the run does, also with --retry-failed")
        elif writes_shards(config):
            self._shards = Shards(folder, journal, config, source, note)

    def came(self, item: EditItem | FailedItem) -> None:
        """An item comes from the source."""
        if self._order is not None:
            self._order[item.id] = len(self._order)
        self._shards.came(item)

    def all_came(self) -> None:
        """The source has come to its end."""
        self._shards.all_came()

    def before(self, admit: Callable[[EditItem], bool]) -> Callable[[EditItem], bool]:
        """`admit`, and before it the look whether all files are there that are to lie beside the item's picture."""

        def admitted(item: EditItem) -> bool:
            self.beside.refuse(item)
            return admit(item)

        return admitted

    def keep(self, item: EditItem) -> None:
        """The item is about to be recorded as finished: keep what only its line holds."""
        self._shards.before_record(item)

    def recorded(self, result: ItemResult) -> None:
        """An item has a record."""
        self._shards.ended(result)

    def skipped(self, item: EditItem, decision: Decision, recorded_as: Callable[[EditItem], str]) -> None:
        """An item is not edited in this run. `recorded_as` gives the id of the record of a finished picture."""
        if decision not in ("done", "changed") or self._config.write == "folder":
            return
        name = recorded_as(item)
        if self._order is not None and name != item.id:
            self._order[name] = self._order[item.id]
        self._shards.skipped(item, name, has_changed=self._complete_row(item, name))
        if decision == "done":
            try:
                self.beside.complete(item, name)
            except ItemError as error:
                self._lacking = self._lacking or f"{printable(item.id)}: {brief(str(error), 500)}"
                self._lack += 1

    def _complete_row(self, item: EditItem, recorded_as: str) -> bool:
        """Whether the record lacked fields of the row; it has them then. Raises `OutputError`."""
        record = self._journal.finished(recorded_as)
        whole = None if record is None else with_row(record, item)
        if whole is not None:
            self._journal.append_again(whole)
        return whole is not None

    def finish(self, *, stopped: Callable[[], bool]) -> int:
        """Write what is still to be written; once `stopped` says so, no new shard begins. Raises `OutputError`.

        Gives how many shards, and how many files beside pictures, could not be written although the pictures are there.
        """
        unwritten = self._shards.finish(stopped=stopped)
        if self._order is not None:
            write_metadata(self._folder, self._journal, self._order)
        if self._lack:
            what = "1 finished picture lacks" if self._lack == 1 else f"{self._lack} finished pictures lack"
            self._note(f"{what} a file that is to lie beside it, for example {self._lacking}")
        return unwritten + self._lack

    @property
    def is_cut_short(self) -> bool:
        """Whether `finish` left out what could be written, because the run was to stop."""
        return self._shards.is_cut_short

    def told(self) -> dict[str, Any] | None:
        """The layout of the output folder, as the report has it; None for loose pictures. Any thread may ask."""
        if self._config.write == "folder":
            return None
        return {"format": self._config.write} | self._shards.counts()

    def close(self) -> None:
        """End the thread of the shards."""
        self._shards.close()
