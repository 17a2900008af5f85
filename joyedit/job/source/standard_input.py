"""Items from standard input, as they come: JSONL, CSV or paths; or a JSON list, which is read to its end first."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import BinaryIO, Literal

from joyedit.errors import ManifestError, Problem
from joyedit.job.source.csv_reader import begins_table, read_csv
from joyedit.job.source.data_uris import is_data
from joyedit.job.source.item_builder import ItemBuilder
from joyedit.job.source.line_settings import LineSettings
from joyedit.job.source.problems import Records
from joyedit.job.source.readers import MAX_JSON, path_records, read_json, read_jsonl
from joyedit.job.source.schema import Schema
from joyedit.job.source.source import Source, SourceSummary
from joyedit.job.source.source_options import RunDefaults, SourceOptions
from joyedit.job.source.stoppable_stream import StoppableStream
from joyedit.job.source.text import BOM, MAX_LINE
from joyedit.job.source.turn_links import LinksSoFar
from joyedit.job.spec import EditItem, FailedItem

Form = Literal["jsonl", "json", "csv", "paths", "paths with NUL"]


class StdinSource(Source):
    """Standard input. Its first line tells what it holds: see `form_of`."""

    def __init__(self, options: SourceOptions, stream: BinaryIO) -> None:
        super().__init__("-", "stdin", options)
        self._stream = StoppableStream(stream, lambda: self.stopped())
        self._builder = ItemBuilder(
            file="-", base=None, options=options, defaults=RunDefaults(), look=True, skip_missing=True
        )
        self._builder.links = LinksSoFar(self._builder.knows)
        self._form: Form = "paths"
        self._records: Records = iter(())
        self._first: list[EditItem | FailedItem] = []

    def check(self) -> SourceSummary:
        """Reads the first item. Raises ManifestError, and SourceStoppedError when `stopped` says so."""
        if not self._first:
            self._records = self._open()
            got = next(self._records, None)
            if got is None:
                is_empty = self._form.startswith("paths")
                raise ManifestError([Problem("standard input " + ("is empty" if is_empty else "has no items")).at("-")])
            if isinstance(got, Problem):
                raise ManifestError([got])
            items, problems = self._builder.build(got)  # only once: it takes the names of the item
            if not items:
                raise ManifestError(problems)
            self._first = items
        builder = self._builder
        has_lines = not self._form.startswith("paths")
        lines = LineSettings(builder.settings, builder.instruction, builder.loras) if has_lines else None
        return self._summary(
            None,
            builder.settings,
            instruction=builder.instruction,
            loras=builder.loras,
            lines=lines,
            has_own_loras=has_lines,
        )

    def referred(self) -> None:
        """As in `Source`: an item may name any that came before it."""
        return None

    def _items(self) -> Iterator[EditItem | FailedItem]:
        self.check()
        yield from self._first
        for got in self._records:
            if isinstance(got, Problem):
                yield self._builder.failed(got)
            else:
                yield from self._builder.items(got)

    def _open(self) -> Records:
        schema = self.options.item_schema()
        self._form = form_of(self._stream.begin(MAX_LINE), schema)
        if self._form.startswith("paths"):
            self._builder.links = None
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
