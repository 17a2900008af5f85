"""Pictures that lie inside a larger file: in a tar archive, or in a cell of a table. No bytes are held here.

A record names such a picture by its address: `shard-000001.tar#0000123.jpg` is a file of an archive, and
`part-0.parquet#row=17.input_image` a cell of a table, whose rows count from 0 as pyarrow and pandas count them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import NamedTuple

ROW = "row="
"""What the inner name of a cell begins with."""


class Slice(NamedTuple):
    """Bytes of a file as they are: where they begin, and how many they are."""

    offset: int
    length: int


class Cell(NamedTuple):
    """A cell of a Parquet file: the row group, the row within that group, and the column.

    `nth` counts the pictures of a cell that holds a list of them; None where it holds one picture.
    """

    group: int
    row: int
    column: str
    nth: int | None = None


@dataclass(frozen=True, slots=True)
class ContainedPicture:
    """A picture inside the file `file` (an absolute path, or a URL), under the name `inner`.

    `at` says where its bytes are; None for the whole file, which only a URL needs. `stamp` is that of the file when the
    picture was found: bytes, and times in nanoseconds. `ending` is what the table says of the picture's own name
    (`.jpg`). Equal addresses are equal pictures.
    """

    file: str
    inner: str
    at: Slice | Cell | None = field(compare=False)
    stamp: tuple[int, ...] | None = field(default=None, compare=False)
    ending: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.address

    @property
    def address(self) -> str:
        """The file and the inner name."""
        return f"{self.file}#{self.inner}" if self.inner else self.file

    @property
    def name(self) -> str:
        """A short name: without the folders of the file."""
        return f"{os.path.basename(self.file)}#{self.inner}" if self.inner else os.path.basename(self.file)

    @property
    def file_name(self) -> str:
        """A name as of a file: that within the archive, or that which the table tells."""
        return self.inner if not self.inner.startswith(ROW) else self.inner[len(ROW) :].replace(".", "-") + self.ending


def suffix_of(name: str) -> str:
    """The ending of a picture's path or address in lower case; "" for a cell of a table, which has none."""
    inner = name.rpartition("#")[2]
    return "" if inner.startswith(ROW) and inner != name else os.path.splitext(name)[1].lower()


def is_url(path: str) -> bool:
    """Whether this is no path of the system but the address of a remote file: `hf://datasets/...`."""
    scheme, mark, _ = path.partition("://")
    return bool(mark) and scheme.isascii() and scheme.replace("+", "").replace("-", "").isalnum() and len(scheme) > 1
