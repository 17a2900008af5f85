"""Which files the shards of a run become: complete ones when all their items have a picture, partial ones on wish.

A complete shard never lacks an item, and a partial one says so in its name: `edited-000003.partial.tar`. When the items
that it lacks have their pictures, the complete file takes its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

from joyedit.errors import ItemError, concerns_the_run
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import file_of, packed_in, read_journal
from joyedit.job.writing.open_shards import OpenShards
from joyedit.job.writing.packing import Packing
from joyedit.job.writing.samples import Columns, Sample
from joyedit.job.writing.shard_names import shard_name
from joyedit.job.writing.shard_plan import ShardPlan


class ShardWriting:
    """The shards of one output folder. `kind` is webdataset or parquet, `size` the items of a shard.

    One thread at a time calls `write`; the other methods do not touch the files.
    """

    def __init__(self, folder: OutputFolder, journal: Journal, kind: str, size: int) -> None:
        self.recovered = Packing(folder, journal).recover()
        self._folder = folder
        self._journal = journal
        self._kind = kind
        self._ours: set[str] = set()
        records = read_journal(journal.path) if len(journal) else iter(())
        self._plan = ShardPlan(size, self._noted(records))
        self.shards = OpenShards(self._plan)

    def _noted(self, records: Iterable[dict[str, object]]) -> Iterable[dict[str, object]]:
        for record in records:
            if packed_in(record) is not None:
                self._ours.add(str(file_of(record)))
            yield record

    def is_packed(self, name: str) -> bool:
        """Whether the finished picture of this item lies in the complete file of its shard."""
        record = self._journal.finished(name)
        packed = None if record is None else packed_in(record)
        return record is not None and packed is not None and file_of(record) == shard_name(packed.shard, self._kind)

    def has_file(self, number: int) -> bool:
        """Whether the complete file of the shard is there."""
        return os.path.lexists(self._folder.path / shard_name(number, self._kind))

    def write(self, number: int, ids: Sequence[str], *, is_partial: bool = False) -> str:
        """Write the shard with these items and those that its file holds besides; gives the name of the file.

        Raises ItemError where a picture is not as its record says, OutputError where nothing can be written.
        """
        file = shard_name(number, self._kind, is_partial=is_partial)
        older = [shard_name(number, self._kind, is_partial=one) for one in (False, True)]
        older = [one for one in older if one in self._ours and os.path.lexists(self._folder.path / one)]
        held = [name for one in older for name in self._ids_in(one) if self._plan.belongs(name, number)]
        known = {*ids}
        all_ids = [*ids, *(name for name in dict.fromkeys(held) if name not in known and self._may_stay(name))]
        Packing(self._folder, self._journal).pack(
            number, all_ids, self._write_of(number), file=file, is_ours=file in self._ours, older=older
        )
        self._ours.add(file)
        return file

    def _may_stay(self, name: str) -> bool:
        """Whether an item that the file of the shard holds, and that did not come, is in the new one too.

        What was edited again before its line left the source is loose. It stays so where the original left with the
        line: it must not hold the others back for ever.
        """
        record = self._journal.finished(name)
        if record is None or packed_in(record) is not None:
            return record is not None
        try:
            sample = Sample.of(self._folder.path, record, self._journal.finished)
            for _ in Columns.of([sample]).pictures_of(sample):
                pass
        except ItemError:
            return False
        return True

    def _write_of(self, number: int) -> Callable[[BinaryIO, Sequence[Sample]], list[str]]:
        if self._kind == "webdataset":
            from joyedit.job.writing.tar_file import write_tar

            return write_tar
        from joyedit.job.writing.parquet_file import write_parquet

        ours = [os.path.join(self._folder.path, one) for one in sorted(self._ours)]
        return lambda file, samples: write_parquet(file, samples, ours)

    def _ids_in(self, file: str) -> list[str]:
        path = os.path.join(self._folder.path, file)
        try:
            if self._kind == "webdataset":
                from joyedit.job.writing.tar_file import ids_in_tar

                return ids_in_tar(path)
            from joyedit.job.writing.parquet_file import ids_in_parquet

            return ids_in_parquet(path)
        except Exception as error:  # a damaged shard: pyarrow and tarfile raise nearly everything
            if concerns_the_run(error):
                raise
            return []  # its items have no pictures any more, so they are edited again
