"""Which items may be edited, and when: no file of somebody else is replaced, no finished picture without being
asked, and an item that may have killed an earlier run comes last and alone.
"""

from __future__ import annotations

from joyedit.errors import ItemError
from joyedit.job.hashing import HashCache
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.given_up import KILLED
from joyedit.job.results.journal import Journal
from joyedit.job.results.merged_records import MergedRecords
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.own_pictures import OwnPictures
from joyedit.job.results.picture_place import pictures_of
from joyedit.job.results.recorded_outputs import RecordedOutputs
from joyedit.job.results.replacing import Replacing
from joyedit.job.results.resume import Resume
from joyedit.job.results.shared import Shared
from joyedit.job.results.unfinished import DEATHS, Unfinished
from joyedit.job.run_config import RunConfig
from joyedit.job.source.sources import Source
from joyedit.job.spec import Batch, EditItem


class Admission:
    """Any thread may call the methods. `shared` is what all items of the run have in common.

    `own` tells which pictures the run may replace, `in_work` keeps the list of items that have no record yet,
    `pictures` is where finished pictures are.
    """

    def __init__(self, folder: OutputFolder, journal: Journal, config: RunConfig, shared: Shared) -> None:
        self.shared = shared
        self.in_work = Unfinished(folder, journal)
        self._recorded = RecordedOutputs(journal)
        self.pictures = pictures_of(folder.path)
        left = [one.output for one in self.in_work.before.values()]
        self.own = OwnPictures(journal, self._recorded, folder.path, left)
        self._merged = None if config.tree is None else MergedRecords(config.tree)
        if self._merged is not None:
            self.in_work.keep(self._merged.suspects())
        self._folder = folder
        self._journal = journal
        self._config = config

    def resume(
        self, source: Source, *, fingerprints: Fingerprinter, hashes: HashCache, model: str, at_once: bool
    ) -> Resume:
        """What decides which items are done. `model` is the name of the model.

        Raises `UsageError` if finished pictures would be replaced that nobody asked to replace. With `at_once` unset
        that is decided for each item when it comes.
        """
        config = self._config
        replacing = None
        if config.redo != "all" and not config.update:
            replacing = Replacing(
                self._journal,
                self._recorded,
                self._folder.path,
                fingerprints=fingerprints,
                hashes=hashes,
                shared=self.shared,
                model=model,
            )
            if at_once and config.redo == "changed":
                replacing.refuse(source)
        merged = None
        if self._merged is not None:
            merged = self._merged.resume(
                source,
                config,
                fingerprints=fingerprints,
                hashes=hashes,
                shared=self.shared,
                model=model,
                at_once=at_once,
            )
        return Resume(
            self._journal,
            self._folder.path,
            fingerprints=fingerprints,
            hashes=hashes,
            redo=config.redo,
            trust=config.trust_journal,
            own=self.own,
            replacing=replacing,
            merged=merged,
        )

    def admit(self, item: EditItem) -> bool:
        """Whether the item's pictures may be touched now; it is in work then. Items that may kill the run wait.

        Raises ItemError for an item that must not be edited.
        """
        before = self.in_work.before.get(item.id)
        deaths = 0 if before is None else before.deaths
        if deaths >= DEATHS:
            message = f"the process died {deaths} times while this item was in work, the last time with it alone"
            raise ItemError(
                KILLED, f"{message} (--retry-failed, or a change of its line or picture, lets it be tried again)"
            )
        refused = self.own.refuse(item)
        if refused is not None:
            raise refused
        if not deaths:
            self.in_work.look(item)
        return not deaths

    def comes_last(self, item: EditItem) -> bool:
        """Whether this item may have killed an earlier run."""
        before = self.in_work.before.get(item.id)
        return before is not None and before.deaths > 0

    def remove_unrecorded(self, item: EditItem) -> None:
        """Remove the picture that a run put in place for this item under another name, before it died."""
        before = self.in_work.before.get(item.id)
        if before is not None and before.output != item.output and self.own.is_unrecorded(before.output):
            self.pictures.remove(self._folder, before.output)

    def take(self, batch: Batch) -> None:
        """The items of this batch are in work from now on, until they have a record."""
        self.in_work.take(sized.item for sized in batch.items)

    def close(self) -> None:
        """The end of the run."""
        self.in_work.close()
        if self._merged is not None:
            self._merged.close()
