"""A table in memory as a source."""

from __future__ import annotations

from typing import Any

from joyedit.job.source.dataset_source import DatasetSource
from joyedit.job.source.manifests import ROWS
from joyedit.job.source.python.rows import NAME
from joyedit.job.source.python.tables import TableReader
from joyedit.job.source.source_options import SourceOptions


class MemoryDataset(DatasetSource):
    """The rows of a table that a program gives; columns have the meaning of those of a dataset in files."""

    def __init__(self, reader: TableReader, options: SourceOptions) -> None:
        super().__init__(NAME, reader, options.dataset, options)
        self.kind = ROWS
        reader.stem = options.dataset.split or reader.stem

    def asked(self) -> dict[str, Any]:
        """As in `Source`. Nobody can open the table again."""
        return super().asked() | {"path": "-"}
