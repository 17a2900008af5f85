"""A list of rows that a program gives, as a source. It is read as a manifest is, pass by pass."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from joyedit.errors import Problem
from joyedit.job.source.manifests import ROWS, ManifestSource
from joyedit.job.source.problems import Records
from joyedit.job.source.python.row_reader import RowReader, place_in
from joyedit.job.source.source_options import SourceOptions
from joyedit.job.spec import Stamp

NAME = "source"
"""What messages call the rows: the name of the parameter of `joyedit.run`."""


class RowsSource(ManifestSource):
    """Mappings with the keys of a line of a manifest, pictures of Pillow, or paths.

    Relative paths are relative to the current folder, and ids do not depend on that.
    """

    what = "list"

    def __init__(self, rows: Sequence[Any], options: SourceOptions) -> None:
        super().__init__(NAME, ROWS, options)
        self._rows = rows
        self._place = place_in(NAME)

    def _at(self, problem: Problem, line: int) -> Problem:
        return problem.at(self._place(line - 1) if line else self.name)

    def _records(self) -> Records:
        reader = RowReader(self.options.item_schema(), self._place)
        for index, row in enumerate(self._rows):
            yield reader.read(index, row)

    def _stamp(self) -> Stamp:
        """The rows count as the same ones as long as there are as many of them."""
        return Stamp(len(self._rows), 0, os.getpid())
