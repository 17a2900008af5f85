"""Items from standard input, as they come: JSONL, CSV or paths; or a JSON list, which is read to its end first."""

from __future__ import annotations

import io
import os
from typing import BinaryIO, Literal

from joyedit.errors import Problem
from joyedit.job.source.csv_reader import begins_table, read_csv
from joyedit.job.source.data_uris import is_data
from joyedit.job.source.once_source import OnceSource
from joyedit.job.source.problems import Records
from joyedit.job.source.readers import MAX_JSON, path_records, read_json, read_jsonl
from joyedit.job.source.schema import Schema
from joyedit.job.source.source_options import SourceOptions
from joyedit.job.source.stoppable_stream import StoppableStream
from joyedit.job.source.text import BOM, MAX_LINE

Form = Literal["jsonl", "json", "csv", "paths", "paths with NUL"]


class StdinSource(OnceSource):
    """Standard input. Its first line tells what it holds: see `form_of`."""

    def __init__(self, options: SourceOptions, stream: BinaryIO) -> None:
        super().__init__("-", "stdin", options)
        self._stream = StoppableStream(stream, lambda: self.stopped())
        self._form: Form = "paths"

    @property
    def has_lines(self) -> bool:
        """As in `OnceSource`."""
        return not self._form.startswith("paths")

    def nothing(self) -> Problem:
        """As in `OnceSource`."""
        return Problem("standard input " + ("has no items" if self.has_lines else "is empty")).at("-")

    def _open(self) -> Records:
        schema = self.options.item_schema()
        self._form = form_of(self._stream.begin(MAX_LINE), schema)
        if self._form.startswith("paths"):
            self.builder.links = None
            self.options.refuse_line_flags("what comes from standard input")
        if self._form == "json":
            return read_json(io.BytesIO(self._stream.rest(MAX_JSON + 1)), "-")
        if self._form == "csv":
            return read_csv(self._stream, "-", schema)
        if self._form == "jsonl":
            return read_jsonl(self._stream, "-")
        return path_records(self._stream, "-", ends_with_nul=self._form == "paths with NUL")


def form_of(begin: bytes, schema: Schema) -> Form:
    """What a stream holds that begins with this line.

    `{` begins JSONL, `[` a JSON list, the names of keys a CSV table. Anything else, and the name of any file that is
    there, is the path of a picture. A NUL behind it comes from `find -print0`.
    """
    if begin.endswith(b"\0"):
        return "paths with NUL"
    text = begin.removeprefix(BOM).decode("utf-8", "replace").strip()
    if text.startswith("{"):
        return "jsonl"
    if is_data(text):
        return "paths"
    if _is_file(text):
        return "paths"
    if text.startswith("["):
        return "json"
    return "csv" if begins_table(text, schema) else "paths"


def _is_file(text: str) -> bool:
    try:
        return os.path.lexists(text)
    except (OSError, ValueError):
        return False
