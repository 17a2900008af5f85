"""Sources whose items come one time only: standard input, and iterators of a program."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from joyedit.errors import ManifestError, Problem
from joyedit.job.source.item_builder import ItemBuilder
from joyedit.job.source.line_settings import LineSettings
from joyedit.job.source.problems import Record, Records
from joyedit.job.source.source import Source, SourceSummary
from joyedit.job.source.source_options import RunDefaults, SourceOptions
from joyedit.job.source.turn_links import LinksSoFar
from joyedit.job.spec import EditItem, FailedItem


class OnceSource(Source):
    """The check reads the first item; the others are checked as they come, and a wrong one fails alone."""

    comes_once = True

    def __init__(self, name: str, kind: str, options: SourceOptions) -> None:
        super().__init__(name, kind, options)
        self.builder = ItemBuilder(
            file=name, base=None, options=options, defaults=RunDefaults(), look=True, skip_missing=True
        )
        self.builder.links = LinksSoFar(self.builder.knows)
        self._records: Records = iter(())
        self._first: list[EditItem | FailedItem] = []

    @property
    def has_lines(self) -> bool:
        """Whether items may have settings of their own. Asked after the first record came."""
        return True

    @abstractmethod
    def nothing(self) -> Problem:
        """The problem of a source without an item."""

    @abstractmethod
    def _open(self) -> Records:
        """The records as they come. Raises SourceStoppedError when `stopped` says so."""

    def check(self) -> SourceSummary:
        """Reads the first item. Raises ManifestError, and SourceStoppedError when `stopped` says so."""
        if not self._first:
            self._records = self._open()
            got = next(self._records, None)
            if got is None:
                raise ManifestError([self.nothing()])
            if isinstance(got, Problem):
                raise ManifestError([got])
            items, problems = self.builder.build(got)  # only once: it takes the names of the item
            if not items:
                raise ManifestError(problems)
            self._first = items
        builder = self.builder
        lines = LineSettings(builder.settings, builder.instruction, builder.loras) if self.has_lines else None
        return self._summary(
            None,
            builder.settings,
            instruction=builder.instruction,
            loras=builder.loras,
            lines=lines,
            has_own_loras=self.has_lines,
        )

    def referred(self) -> None:
        """As in `Source`: an item may name any that came before it."""
        return None

    def _items(self) -> Iterator[EditItem | FailedItem]:
        self.check()
        yield from self._first
        for got in self._records:
            if isinstance(got, Record):
                yield from self.builder.items(got)
            else:
                yield self.builder.failed(got)
