"""What every reader of a dataset gives: rows, each with its place, an id by that place, and its values by column."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from joyedit.errors import Problem
from joyedit.job.contained import ContainedPicture
from joyedit.job.data_picture import DataPicture

Picture = ContainedPicture | DataPicture
"""A picture that is no plain file. The value of a column is such a picture, a list of them, or what JSON can hold."""


class Row(NamedTuple):
    """One row of a dataset.

    `place` says where it is (`data/part-0.parquet#row=17`), `stable` is an id by its place, which no other row has.
    `key` is the dataset's own name of the row, where its format has one. Paths among the values are relative to the
    folder `base`, which is itself relative to that of the dataset.
    """

    place: str
    stable: str
    values: dict[str, Any]
    key: str | None = None
    base: str = ""
    own_names: Mapping[str, str] = {}
    """The dataset's own names of values that have another name here."""
    problem: Problem | None = None
    """Why the row cannot be read, if it cannot."""


Rows = Iterator[Row]


class Reader(ABC):
    """A dataset in one file format. Each call of `rows` reads it again, from its beginning.

    `format` names the format in messages, `root` is the folder that paths are relative to, and `files` are those that
    are read, relative to it.
    """

    format: str = ""
    has_keys: bool = True
    """Whether rows have an id of their own, or by their place. If not, the paths of their pictures name them."""

    has_turns: bool = False
    """Whether rows may have several instructions that follow each other, as a list under `turns`."""

    def __init__(self, root: str, files: Collection[str]) -> None:
        self.root = root
        self.files = tuple(files)

    @abstractmethod
    def rows(self, wanted: Collection[str] | None = None) -> Rows:
        """The rows in order; only the columns `wanted`, if they are given, and all columns of pictures.

        Raises BrokenDatasetError for a file that is damaged as a whole.
        """

    def columns(self) -> list[str] | None:
        """The names of all columns, where a schema has them; None where each row has its own. Raises as `rows`."""
        return None

    def picture_columns(self) -> frozenset[str]:
        """The columns that hold pictures, as far as a schema tells. Raises as `rows`."""
        return frozenset()

    def count(self) -> int | None:
        """The number of rows, where the files tell it without being read; None where they do not."""
        return None


class BrokenDatasetError(Exception):
    """A file of a dataset cannot be read, or no further. `problem` names it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))
