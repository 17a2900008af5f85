"""A dataset as a source: each row is an item, and a row that is wrong fails alone.

The check reads all rows, without a picture: it counts them, and tells what is wrong with the whole dataset before a
model loads (no column of pictures, no instruction anywhere, a damaged file, two rows of one id).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from joyedit.errors import ManifestError, Problem, UsageError
from joyedit.job.contained import is_url
from joyedit.job.containers.files import absolute
from joyedit.job.source.columns import Columns
from joyedit.job.source.default_ids import PictureIds, Uses
from joyedit.job.source.item_builder import ItemBuilder
from joyedit.job.source.layouts.choice import DatasetChoice
from joyedit.job.source.layouts.mapping import ColumnMap, no_picture
from joyedit.job.source.layouts.presets import GENERIC, PLACE, Preset, preset_of, presets_named
from joyedit.job.source.layouts.rows import BrokenDatasetError, Reader, Row
from joyedit.job.source.line_settings import LineSettings
from joyedit.job.source.names import safe_name
from joyedit.job.source.problems import Problems, Record, shown
from joyedit.job.source.source import Source, SourceSummary
from joyedit.job.source.source_options import RunDefaults, SourceOptions, compose_instruction
from joyedit.job.source.turn_links import NoLinks, TurnLinks
from joyedit.job.spec import EditItem, FailedItem

_CHAINED = "from turn 2 on, each row edits the result of the turn before"
_ID_REMEDY = f"--map id={PLACE} makes the ids of file and row"


class DatasetSource(Source):
    """The rows that `reader` gives. `choice` is what the user says, with the layout that was found.

    `named` are the files of a dataset that was named by several files.
    """

    def __init__(
        self, name: str, reader: Reader, choice: DatasetChoice, options: SourceOptions, named: Sequence[str] = ()
    ) -> None:
        super().__init__(name, choice.layout, options)
        self.reader = reader
        self.choice = choice
        self.named = tuple(named)
        self.defaults_name = "the dataset"
        self._base = "" if is_url(reader.root) else (choice.image_root or reader.root)
        self._preset: Preset | None = None
        self._uses: Uses | None = None
        self._links: TurnLinks | None = None
        self._bad = 0
        self._seen: set[str] = set()
        self._missing: set[str] = set()

    @property
    def told(self) -> str:
        """What was found, in a few words."""
        files = self.reader.files
        parts = [f"{self.reader.format}, {len(files)} file{'s' if len(files) != 1 else ''}"]
        preset = self.preset
        name = preset.name or (self.kind if self.reader.format == "JSON" else "")
        if name:
            parts.insert(0, name)
        parts += [f"split {self.choice.split}"] if self.choice.split else []
        parts += [f"{column}={value}" for column, value in self.choice.where]
        note = _CHAINED if self.choice.chains_turns else preset.note
        parts += [note] if note else []
        parts += [f"{self._bad} rows are no items and will fail"] if self._bad else []
        return ", ".join(parts)

    @property
    def preset(self) -> Preset:
        """What is known of this dataset. Raises ManifestError for a file that cannot be read."""
        if self._preset is None:
            with _told():
                names = self.reader.columns()
            named = presets_named(self.choice.layout)
            fitting = [one for one in named if names is None or set(one.known_by) <= set(names)]
            if named and not fitting:
                lacking = sorted(set(named[0].known_by) - set(names or ()))
                problem = Problem(
                    f"this is not {self.choice.layout}: it has no column {', '.join(lacking)}",
                    "leave --layout out, or name the columns with --map KEY=COLUMN and --layout parquet",
                )
                raise ManifestError([problem.at(self.name)])
            self._preset = fitting[0] if fitting else GENERIC if names is None else preset_of(names)
        return self._preset

    def asked(self) -> dict[str, Any]:
        """Everything that the ids of the items depend on."""
        own = {"files": [absolute(one) for one in self.named]} if self.named else {}
        choice = replace(self.choice, reads_captions=self._reads_captions())
        made = super().asked() | {"path": absolute(self.name), "dataset": choice.as_json() | own}
        if self.options.matrix:
            return made
        return {"seeds": self._seeds(), **made}

    def shared(self) -> dict[str, Any]:
        """What the source gives all its items, and what says how its rows are read."""
        return super().shared() | {"dataset": self.choice.as_json()}

    def check(self) -> SourceSummary:
        problems, bad = Problems(), Problems()
        builder = self._builder(look=self.options.look)
        lines, limit = LineSettings(builder.settings, builder.instruction, builder.loras), self.options.limit
        count = items = self._bad = 0
        with _told():
            for _, got in self._records():
                if limit is not None and items >= limit:
                    break
                count, before = count + 1, builder.counted
                found = [got] if isinstance(got, Problem) else builder.problems(got, lines)
                problems.add(one for one in found if one.key == "id")
                if found:
                    self._bad += 1
                    bad.add(found)
                items += 1 if found else builder.counted - before
        problems.raise_any()
        self._refuse_empty(count)
        if self._bad == count:
            bad.raise_any()
        problems.add(problem.at(self.name) for problem in (*self._unmet(), *builder.of_all_items(count)))
        if isinstance(builder.links, TurnLinks):
            problems.add(problem.at(self.name) for _, problem in builder.links.problems)
        problems.raise_any()
        return self._summary(
            items,
            builder.settings,
            instruction=builder.instruction,
            loras=builder.loras,
            matrix=builder.matrix,
            lines=lines,
            in_shard=None if self._bad else builder.in_shard,
        )

    def outline(self) -> SourceSummary:
        builder = self._builder(look=False)
        return self._summary(
            None,
            builder.settings,
            instruction=builder.instruction,
            loras=builder.loras,
            matrix=builder.matrix,
            has_own_loras=True,
        )

    def _items(self) -> Iterator[EditItem | FailedItem]:
        builder = self._builder(look=False)
        with _told():
            for row, got in self._records():
                if isinstance(got, Problem):
                    yield builder.failed(got, wish=safe_name(row.stable if row.key is None else row.key))
                else:
                    yield from builder.items(got)

    def referred(self) -> Collection[str]:
        """As in `Source`."""
        links = self._builder(look=False).links
        return links.referred if isinstance(links, TurnLinks) else ()

    def _builder(self, *, look: bool) -> ItemBuilder:
        builder = self._plain_builder(look=look)
        if self.reader.has_turns or self.choice.chains_turns:
            builder.links = self._turn_links()
        return builder

    def _turn_links(self) -> TurnLinks:
        """Whose results items begin with: one more pass over the rows."""
        if self._links is None:
            builder = self._plain_builder(look=False)
            builder.links = NoLinks()
            links, is_whole = TurnLinks(), True
            with _told():
                for _, got in self._records():
                    is_whole = (not isinstance(got, Problem) and builder.note(got, links)) and is_whole
            links.seal(is_whole=is_whole)
            self._links = links
        return self._links

    def _plain_builder(self, *, look: bool) -> ItemBuilder:
        return ItemBuilder(
            file=self.name,
            base=self._base,
            options=replace(self.options, columns=Columns()),
            defaults=RunDefaults(),
            look=look,
            skip_missing=True,
            uses=self._first_pass(),
        )

    def _first_pass(self) -> Uses | None:
        """What the ids need to know of all rows, where the paths of pictures name them."""
        if self.reader.has_keys:
            return None
        if self._uses is None:
            uses = Uses(PictureIds(self._base), replace(self.options, columns=Columns()).item_schema())
            with _told():
                for _, got in self._records():
                    uses.note(None if isinstance(got, Problem) else got.data)
            uses.seal()
            self._uses = uses
        return self._uses

    def _records(self) -> Iterator[tuple[Row, Record | Problem]]:
        """Each row that is asked for, with its record or what is wrong with it. Raises BrokenDatasetError."""
        columns, reader = self._column_map(), self.reader
        names = reader.columns()
        wanted = None
        if names is not None:
            pictures = reader.picture_columns()
            found = columns.of(tuple(names), tuple(sorted(pictures)))
            if not {"image", "images"} & found.keys.keys() and not self.options.text_to_image:
                raise ManifestError([no_picture(names, pictures).at(self.name)])
            wanted = [*columns.wanted(names, pictures), *(column for column, _ in self.choice.where)]
        number = 0
        for row in reader.rows(wanted):
            if self.choice.where and row.problem is None and not self._fits(row):
                continue
            number += 1
            yield row, self._record(columns, row, number) if row.problem is None else row.problem.at(row.place)
        self._missing = columns.unmet

    def _record(self, columns: ColumnMap, row: Row, number: int) -> Record | Problem:
        problem = columns.turn_problem(row)
        if problem is not None:
            return problem.at(row.place)
        record = columns.record(row, number)
        data = record.data if isinstance(record.data, dict) else {}
        if not {"image", "images"} & data.keys() and not self.options.text_to_image:
            held = [name for name, value in row.values.items() if not isinstance(value, (str, int, float))]
            return no_picture(row.values, held if len(held) > 1 else ()).at(row.place)
        return record

    def _column_map(self) -> ColumnMap:
        return ColumnMap(
            self.preset,
            self.options.columns,
            self.options.known_parameters(),
            reads_captions=self._reads_captions(),
            has_keys=self.reader.has_keys,
            has_turns=self.reader.has_turns,
            chains_turns=self.choice.chains_turns,
        )

    def _reads_captions(self) -> bool:
        """Whether a caption may be an instruction: where the command gives none."""
        if self.choice.reads_captions is not None:
            return self.choice.reads_captions
        options = self.options
        return bool(
            compose_instruction(options.recipe, options.first_values, own=None, prompt=options.prompt, default=None)[1]
        )

    def _fits(self, row: Row) -> bool:
        """Whether a row has the values that the user asks for."""
        for column, value in self.choice.where:
            if column in row.values:
                self._seen.add(column)
            held = row.values.get(column)
            if held is None or (str(held).lower() if isinstance(held, bool) else str(held)) != value:
                return False
        return True

    def _refuse_empty(self, count: int) -> None:
        """Raises ManifestError for a dataset without a row to edit."""
        if count:
            return
        lacking = [column for column, _ in self.choice.where if column not in self._seen]
        if lacking:
            problem = Problem(f"--where: no row has the column {shown(lacking[0])}", "correct its name")
        elif self.choice.where:
            told = " and ".join(f"{column}={value}" for column, value in self.choice.where)
            problem = Problem(f"no row has {told}", "correct --where")
        else:
            problem = Problem("this dataset has no rows")
        raise ManifestError([problem.at(self.name)])

    def _unmet(self) -> list[Problem]:
        return [
            Problem(f"no row has the column {shown(name)}, which --map or --keep-columns names", "correct its name")
            for name in sorted(self._missing)
        ]


class _told:  # noqa: N801 (a context manager)
    """Turns the error of a damaged file into one of the source."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BrokenDatasetError):
            raise ManifestError([error.problem]) from error
        if isinstance(error, OSError):
            raise UsageError(f"cannot read this dataset: {error}") from error
