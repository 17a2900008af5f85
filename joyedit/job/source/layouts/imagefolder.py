"""Image folders of Hugging Face: pictures in files, and `metadata.jsonl`, `.csv` or `.parquet` beside them.

`file_name` names the picture of a row, `*_file_name` further ones, `file_names` and `*_file_names` lists of them. The
suffix is cut off to give the column: `original_image_file_name` is `original_image`, `file_name` is `image`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

from joyedit.errors import Problem, os_reason
from joyedit.job.contained import ContainedPicture, is_url
from joyedit.job.containers.files import joined, open_file
from joyedit.job.source.layouts.parquet import ParquetReader
from joyedit.job.source.layouts.rows import BrokenDatasetError, Reader, Row, Rows
from joyedit.job.source.problems import Record, shown
from joyedit.job.source.readers import read_jsonl
from joyedit.job.source.text import CsvLines, as_utf8

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_ONE, _SEVERAL = "file_name", "file_names"


class ImageFolderReader(Reader):
    """The lists of one dataset: one in its folder, or one in each of some folders below it."""

    format = "image folder"
    has_keys = False

    def rows(self, wanted: Collection[str] | None = None) -> Rows:
        for name in self.files:
            folder = os.path.dirname(name)
            for row in self._of_list(name):
                yield row if row.problem is not None else self._with_pictures(row, folder)

    def _of_list(self, name: str) -> Rows:
        path = joined(self.root, name)
        if name.endswith(".parquet"):
            yield from ParquetReader(self.root, [name]).rows()
            return
        stem = os.path.splitext(name)[0]
        try:
            with open_file(path) as file:
                for got in _jsonl(file, path) if name.endswith(".jsonl") else _csv(file, path):
                    line = got.line or 0
                    row = Row(f"{path}:{line}", f"{stem}-{line}", {})
                    if isinstance(got, Problem):
                        yield row._replace(problem=Problem(got.message, got.remedy))
                    elif isinstance(got.data, dict):
                        yield row._replace(values=dict(got.data))
                    else:
                        yield row._replace(problem=Problem("a line is one JSON object"))
        except OSError as error:
            raise BrokenDatasetError(Problem(f"cannot read this list: {os_reason(error)}").at(path)) from error

    def _with_pictures(self, row: Row, folder: str) -> Row:
        values: dict[str, Any] = {}
        for name, value in row.values.items():
            column = column_of(name)
            if column is None:
                values[name] = value
                continue
            names = value if isinstance(value, list) else [] if value is None or value == "" else [value]
            for one in names:
                problem = _problem(one)
                if problem is not None:
                    return row._replace(problem=problem)
            found = [self._picture(joined_below(folder, one)) for one in names]
            values[column] = found if isinstance(value, list) else found[0] if found else None
        return row._replace(values=values, base="")

    def _picture(self, name: str) -> str | ContainedPicture:
        return ContainedPicture(joined(self.root, name), "", None) if is_url(self.root) else name


def column_of(name: str) -> str | None:
    """The column of pictures that a key of the list stands for; None for any other key."""
    if name in (_ONE, _SEVERAL):
        return "image" if name == _ONE else "images"
    for suffix in (f"_{_ONE}", f"_{_SEVERAL}"):
        if name.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return None


def joined_below(folder: str, name: str) -> str:
    """The path of a picture from the dataset's folder."""
    return f"{folder}/{name}" if folder else name


def _problem(name: object) -> Problem | None:
    """Why this names no picture of the folder: a list of a stranger must not lead out of it."""
    if not isinstance(name, str) or "\0" in name:
        return Problem(f"file_name must be a path, not {shown(name)}")
    if name.startswith(("/", "~", "$")) or is_url(name) or ".." in name.replace("\\", "/").split("/"):
        return Problem(f"{shown(name)} leads out of the folder of its list", "a list names pictures below its folder")
    return None


def _jsonl(file: BinaryIO, path: str) -> Iterator[Record | Problem]:
    yield from read_jsonl(as_utf8(file), path)


def _csv(file: BinaryIO, path: str) -> Iterator[Record | Problem]:
    lines = CsvLines(as_utf8(file))
    rows = csv.reader(lines)
    header: list[str] | None = None
    while True:
        line = lines.number + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Problem(f"broken CSV: {error}", "put a cell with quotes in it between quotes").at(path, line)
            continue
        if not any(cell.strip() for cell in row):
            continue
        if header is None:
            header = [cell.strip() for cell in row]
        elif len(row) != len(header):
            yield Problem(f"this row has {len(row)} cells, the header has {len(header)}").at(path, line)
        else:
            yield Record(line, {name: cell or None for name, cell in zip(header, row, strict=True) if name})
