"""Sources that somebody wrote down: manifest files, and lists of paths."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO, cast

from joyedit.errors import ManifestError, Problem, UsageError, os_reason
from joyedit.job.source.csv_reader import read_csv
from joyedit.job.source.default_ids import PictureIds, Uses
from joyedit.job.source.gzip_lines import GzipLines, kind_of_compressed
from joyedit.job.source.item_builder import ItemBuilder
from joyedit.job.source.line_settings import LineSettings
from joyedit.job.source.problems import Problems, Records
from joyedit.job.source.readers import read_json, read_jsonl, read_paths
from joyedit.job.source.source import Source, SourceSummary
from joyedit.job.source.source_options import RunDefaults, SourceOptions, read_defaults
from joyedit.job.source.text import as_utf8
from joyedit.job.source.turn_links import NoLinks, TurnLinks
from joyedit.job.source.yaml_manifest import read_yaml, read_yaml_defaults
from joyedit.job.spec import EditItem, FailedItem, Stamp

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".csv": "csv",
    ".tsv": "csv",
}
"""The file endings of manifests."""

LIST = "list"
"""The kind of a list of paths, which has no ending of its own."""

ROWS = "rows"
"""The kind of rows that a program gives as mappings."""

_READERS = {"jsonl": read_jsonl, "json": read_json, LIST: read_paths}
_READERS_BY_KEY = {"csv": read_csv, "yaml": read_yaml}
"""Those that read some parts only by what their keys mean."""


class ManifestSource(Source):
    """A manifest file, or a list of paths. Each pass reads it again; in memory are only the names of the items.

    The paths of a manifest are relative to its folder, those of a list to the current folder.
    """

    what = "manifest"

    def __init__(self, name: str, kind: str, options: SourceOptions) -> None:
        super().__init__(name, kind, options)
        self._base = None if kind in (LIST, ROWS) else os.path.dirname(name)
        self._uses: tuple[Stamp, Uses] | None = None
        self._links: tuple[Uses, TurnLinks] | None = None

    def asked(self) -> dict[str, Any]:
        """Everything that the ids of the items depend on."""
        made = super().asked() | ({LIST: True} if self.kind == LIST else {})
        seeds = self._seeds()  # from which a line counts, too, that says how many it has
        if self.kind != "yaml":  # the only kind with `defaults:`, which may have a matrix
            return made if seeds == [None, None] else {"seeds": seeds, **made}
        return {"seeds": seeds, **made, "said": sorted(self.options.said())}

    def check(self) -> SourceSummary:
        problems = Problems()
        defaults, wrong = self._defaults()
        problems.add(wrong)
        builder = self._builder(defaults, look=self.options.look)
        lines, limit = LineSettings(builder.settings, builder.instruction, builder.loras), self.options.limit
        count = 0
        for got in self._records():
            count += 1
            if isinstance(got, Problem):
                builder.has_seen(got.key)
            is_taken = limit is None or builder.counted < limit
            problems.add([got] if isinstance(got, Problem) else builder.problems(got, lines if is_taken else None))
        if not count and not problems.total:
            problems.add([Problem(f"this {self.what} has no items").at(self.name)])
        elif count:
            problems.add(problem.at(self.name) for problem in builder.of_all_items(count))
        if isinstance(builder.links, TurnLinks):
            problems.add(self._at(problem, line) for line, problem in builder.links.problems)
        problems.raise_any()
        return self._summary(
            builder.counted,
            builder.settings,
            instruction=builder.instruction,
            loras=builder.loras,
            matrix=builder.matrix,
            lines=lines,
            in_shard=builder.in_shard,
        )

    def outline(self) -> SourceSummary:
        builder = self._checked_builder()
        return self._summary(
            None,
            builder.settings,
            instruction=builder.instruction,
            loras=builder.loras,
            matrix=builder.matrix,
            has_own_loras=True,
        )

    def _at(self, problem: Problem, line: int) -> Problem:
        """The problem of a line that was read before; 0 if nobody knows which."""
        return problem.at(self.name, line or None)

    def _items(self) -> Iterator[EditItem | FailedItem]:
        builder = self._checked_builder()
        for got in self._records():
            if isinstance(got, Problem):
                yield builder.failed(got)
            else:
                yield from builder.items(got)

    def _checked_builder(self) -> ItemBuilder:
        """A builder that does not look at pictures: whoever reads a picture will. Raises ManifestError."""
        defaults, wrong = self._defaults()
        if wrong:
            raise ManifestError(wrong)
        return self._builder(defaults, look=False)

    def referred(self) -> Collection[str]:
        """As in `Source`."""
        links = self._checked_builder().links
        return links.referred if isinstance(links, TurnLinks) else ()

    def _builder(self, defaults: RunDefaults, *, look: bool) -> ItemBuilder:
        uses = self._first_pass()
        builder = ItemBuilder(
            file=self.name,
            base=self._base,
            options=self.options.with_matrix(defaults.matrix),
            defaults=defaults,
            look=look,
            skip_missing=self.options.skip_missing,
            uses=uses,
        )
        builder.links = self._links_of(defaults, uses) if uses.has_turns and self.kind != LIST else None
        return builder

    def _links_of(self, defaults: RunDefaults, uses: Uses) -> TurnLinks:
        """Whose results items begin with: one more pass over the file, as long as that is the same."""
        if self._links is None or self._links[0] is not uses:
            builder = ItemBuilder(
                file=self.name,
                base=self._base,
                options=self.options.with_matrix(defaults.matrix),
                defaults=defaults,
                look=False,
                uses=uses,
                links=NoLinks(),
            )
            links, is_whole = TurnLinks(), True
            for got in self._records():
                is_whole = (not isinstance(got, Problem) and builder.note(got, links)) and is_whole
            links.seal(is_whole=is_whole)
            self._links = uses, links
        return self._links[1]

    def _first_pass(self) -> Uses:
        """What the default ids need to know of all lines. Passes over one and the same file share it."""
        stamp = self._stamp()
        if self._uses is None or self._uses[0] != stamp:
            uses = Uses(PictureIds(self._base), self.options.item_schema())
            for got in self._records():
                uses.note(None if isinstance(got, Problem) else got.data)
            uses.seal()
            self._uses = stamp, uses
        return self._uses[1]

    def _stamp(self) -> Stamp:
        with self._open() as file:
            return Stamp.of(os.fstat(file.fileno()))

    def _defaults(self) -> tuple[RunDefaults, list[Problem]]:
        if self.kind != "yaml":
            return RunDefaults(), []
        with self._open() as file:
            record = read_yaml_defaults(file, self.name, self.options.item_schema())
        return read_defaults(record, self.options, self.name)

    def _records(self) -> Records:
        with self._open() as file:
            if self.kind in _READERS:
                yield from _READERS[self.kind](file, self.name)
            else:
                yield from _READERS_BY_KEY[self.kind](file, self.name, self.options.item_schema())

    def _open(self) -> BinaryIO:
        try:
            handle = os.open(self.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # waits for no pipe
            if not stat.S_ISREG(os.fstat(handle).st_mode):  # it can be read once only
                os.close(handle)
                raise UsageError(
                    f"{self.name}: this manifest is no file (send its lines to standard input, with - as SOURCE)"
                )
            file: BinaryIO = os.fdopen(handle, "rb")
            if kind_of_compressed(self.name) is not None:
                file = cast("BinaryIO", GzipLines(file, self.name))
            return as_utf8(file)
        except OSError as error:
            raise UsageError(f"{self.name}: cannot read this manifest: {os_reason(error)}") from error
