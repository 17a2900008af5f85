"""The records of an output folder for somebody who only reads them, on a copy that has no name.

A dry run reads those of its folder. The run of a shard reads those of the folder of all shards, into which earlier runs
were merged: what is finished there is done. Another process may write there; nothing is locked.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from joyedit.errors import OutputError, os_reason
from joyedit.job.hashing import HashCache
from joyedit.job.own_files import RESULTS, UNFINISHED
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.journal import Journal, has_records
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.own_pictures import OwnPictures
from joyedit.job.results.recorded_outputs import RecordedOutputs
from joyedit.job.results.replacing import Replacing
from joyedit.job.results.resume import Resume
from joyedit.job.results.safe_open import open_to_read
from joyedit.job.results.shared import Shared
from joyedit.job.results.unfinished import Suspect, Unfinished
from joyedit.job.run_config import RunConfig
from joyedit.job.source.source import Source


def copied_journal(folder: Path) -> Journal:
    """The journal of this folder, on a copy. Raises OSError, OutputError and ManifestError."""
    with tempfile.TemporaryFile("a+b") as copy:
        with suppress(FileNotFoundError), open(open_to_read(folder / RESULTS), "rb") as file:
            shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        return Journal(folder, copy=copy.fileno())


class MergedRecords:
    """The finished items in the folder of all shards, for the run of one. Empty where nothing was merged yet.

    Raises OutputError where its records cannot be read, ManifestError where they are none.
    """

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._journal: Journal | None = None
        if has_records(tree):
            self._journal = self._copied()

    def suspects(self) -> Mapping[str, Suspect]:
        """Items that were in work when the process of a merged shard died, and have no record in that folder."""
        if not os.path.lexists(self._tree / UNFINISHED):
            return {}
        journal = self._journal or self._copied()  # a shard may have died before its first record
        try:
            with closing(OutputFolder(self._tree)) as folder:
                folder.prepare()
                return Unfinished(folder, journal).before
        finally:
            if journal is not self._journal:
                journal.close()

    def _copied(self) -> Journal:
        try:
            return copied_journal(self._tree)
        except OSError as error:
            raise OutputError(f"cannot read {self._tree / RESULTS}: {os_reason(error)}") from error

    def resume(
        self,
        source: Source,
        config: RunConfig,
        *,
        fingerprints: Fingerprinter,
        hashes: HashCache,
        shared: Shared,
        model: str,
        at_once: bool,
    ) -> Resume | None:
        """What decides for items without a record in the shard; None where nothing was merged.

        Raises `UsageError` as a run into that folder would.
        """
        journal = self._journal
        if journal is None:
            return None
        recorded = RecordedOutputs(journal)
        replacing = None
        if config.redo != "all" and not config.update:
            replacing = Replacing(
                journal, recorded, self._tree, fingerprints=fingerprints, hashes=hashes, shared=shared, model=model
            )
            if at_once and config.redo == "changed":
                replacing.refuse(source)
        return Resume(
            journal,
            self._tree,
            fingerprints=fingerprints,
            hashes=hashes,
            redo=config.redo,
            trust=config.trust_journal,
            own=OwnPictures(journal, recorded, self._tree, ()),
            replacing=replacing,
        )

    def close(self) -> None:
        """Give the copy back. A second call does nothing."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
