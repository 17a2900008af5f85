"""A source: a checked stream of items. What every kind of source has in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from joyedit.errors import EXIT_OUT_OF_TIME, JoyeditError
from joyedit.job.source.line_settings import LineSettings
from joyedit.job.source.loras import LoraSet
from joyedit.job.source.matrix import Matrix
from joyedit.job.source.passed_over import PassedOver
from joyedit.job.source.recipe import Recipe
from joyedit.job.source.source_options import SourceOptions
from joyedit.job.spec import EditItem, FailedItem, Lora, Settings
from joyedit.job.turns import chain_of


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSummary:
    """What a check found.

    `items` is the number of items (None: only the end of the source will tell), `passed` the files and folders below a
    folder that are no pictures to edit, `settings` those in force for items without any of their own, and `instruction`
    the one of such items (None: each must have its own). `lines` counts what the lines of a manifest
    say themselves: none of them as long as they are to come; None where there are no lines. `loras` are those of items
    that name none themselves, `lora_sets` the sets that items have; None as long as nobody has read them. `matrix` is
    what multiplies the items; `items` counts them all. Of a source for a shard they are those of the shard.
    """

    items: int | None
    settings: Settings
    instruction: str | None = None
    lines: LineSettings | None = field(default=None, compare=False)
    passed: PassedOver = field(default_factory=PassedOver)
    loras: LoraSet = field(default_factory=LoraSet)
    lora_sets: tuple[tuple[Lora, ...], ...] | None = None
    matrix: Matrix = field(default_factory=Matrix)


class SourceStoppedError(JoyeditError):
    """Somebody waited for a source, and `Source.stopped` said that the run stops."""

    exit_code = EXIT_OUT_OF_TIME


def _never() -> bool:
    return False


def _ignore(item: EditItem | FailedItem) -> None:
    """Nobody wants to hear of items."""


class Source(ABC):
    """A checked stream of items. `kind`: jsonl, yaml, json, csv, folder, picture, stdin, rows or iterator."""

    comes_once = False
    """Whether the items come one time only, so that no pass over them can be made before the run."""

    def __init__(self, name: str, kind: str, options: SourceOptions) -> None:
        self.name = name
        self.kind = kind
        self.options = options
        self.stopped: Callable[[], bool] = _never
        """Asked while somebody waits for the source; once it says so, the wait ends with SourceStoppedError."""
        self.on_item: Callable[[EditItem | FailedItem], None] = _ignore
        """Hears of each item that a run takes, in the order of the source."""
        self.defaults_name = "manifest defaults"
        """Who gives the settings that neither flags nor the checkpoint give."""
        self._counted: int | None = None
        self._given = 0
        self._in_shard: int | None = None
        self.whole: int | None = None
        """The items of all shards, after the first complete pass over the items of one; else None."""

    @abstractmethod
    def check(self) -> SourceSummary:
        """Reads the whole source (standard input: its first line). Raises ManifestError with all problems."""

    def outline(self) -> SourceSummary:
        """The part of the summary that needs no pass over a manifest. Raises ManifestError."""
        return self.check()

    def asked(self) -> dict[str, Any]:
        """Everything that the ids of the items depend on, as JSON. `reopen` makes a source with the same ids of it."""
        recipe = self.options.recipe
        return {
            "path": "-" if self.kind in _UNREADABLE else os.path.abspath(self.name),
            "format": self.options.format,
            "limit": self.options.limit,
            "keys": [] if recipe is None else sorted(recipe.parameters),
            "exclude": list(self.options.exclude),
            **self._of_columns(self.options.columns.as_json()),
            **self._of_names(),
            **({} if self.options.shard is None else {"shard": [self.options.shard.number, self.options.shard.of]}),
        }

    def shared(self) -> dict[str, Any]:
        """Everything that the source gives all its items and that is not written in it, but its path, as JSON."""
        options = self.options
        recipe = options.recipe
        columns = {flag: given for flag, given in options.columns.as_json().items() if flag != "keep"}
        return {
            "prompt": options.prompt,
            "flags": asdict(options.flags),
            "recipe": None if recipe is None else _without_paths(recipe),
            "values": dict(options.recipe_values),
            "checkpoint": asdict(options.checkpoint),
            "format": options.format,
            **self._of_columns(columns),  # those that are kept change no item
            **self._of_loras(),
            **({} if options.template is None else {"name": options.template.text}),
            **({} if options.tree is None else {"tree": options.tree.write}),
            **({} if options.mask is None else {"mask": options.mask}),
        }

    def _of_names(self) -> dict[str, Any]:
        """What gives the items other ids than their lines or pictures do; nothing without such flags."""
        options = self.options
        named = {} if options.template is None else {"named": True}
        if not options.matrix:
            return named
        return named | {"matrix": options.matrix.as_json(), "seeds": self._seeds()}

    def _seeds(self) -> list[int | None]:
        """The seeds from which a matrix counts: that of flags and recipe, and that of the checkpoint."""
        options = self.options
        first = options.flags if options.recipe is None else options.flags.over(options.recipe.settings)
        return [first.seed, options.checkpoint.seed]

    def _of_loras(self) -> dict[str, Any]:
        """The LoRAs that are not written in the source, by their content; nothing without any."""
        found = self.options.run_loras()[0]
        if found is None:
            return {}
        loras = [[lora.sha256, lora.scale, lora.sigmas] for lora in found.loras]
        return {"loras": loras, "recommended": [asdict(one) for one in found.recommended]}

    def _of_columns(self, columns: dict[str, Any]) -> dict[str, Any]:
        """What the user says about the columns of a table; nothing without flags."""
        made: dict[str, Any] = {"columns": columns} if columns else {}
        return made | ({"text_to_image": True} if self.options.text_to_image else {})

    def items(self) -> Iterator[EditItem | FailedItem]:
        """The items in order, at most `limit`. An item that has become wrong since the check is a failed item.

        Of a source for a shard those of the shard: `limit` counts the items of all shards.
        """
        self._given, shard = 0, self.options.shard
        if shard is None:
            for item in islice(self._items(), self.options.limit):
                self._given += 1
                yield item
            return
        whole = 0
        for item in islice(self._items(), self.options.limit):
            whole += 1
            if shard.holds(chain_of(item)):
                self._given += 1
                yield item
        self.whole, self._in_shard = whole, self._given

    def shard_counts(self) -> dict[str, int | None] | None:
        """Number, `of`, items and items of all shards, where the source is for a shard; None where it is not.

        The last two are None before a complete pass.
        """
        shard = self.options.shard
        if shard is None:
            return None
        return {"number": shard.number, "of": shard.of, "items": self._in_shard, "whole": self.whole}

    def counted_missing(self) -> int:
        """How many items the last check counted that the last pass of `items` did not give, once that has ended.

        0 if all came, or more of them, and if nobody counted: a manifest may have lost lines in between.
        """
        return 0 if self._counted is None else max(0, self._counted - self._given)

    def referred(self) -> Collection[str] | None:
        """The ids of items whose results others begin with; None where any item may be named by one to come.

        Raises ManifestError.
        """
        return ()

    @abstractmethod
    def _items(self) -> Iterator[EditItem | FailedItem]: ...

    def _summary(
        self,
        items: int | None,
        settings: Settings,
        *,
        instruction: str | None,
        loras: LoraSet,
        passed: PassedOver | None = None,
        matrix: Matrix | None = None,
        lines: LineSettings | None = None,
        has_own_loras: bool = False,
        in_shard: int | None = None,
    ) -> SourceSummary:
        """`has_own_loras`: lines that nobody has read may name LoRAs. `in_shard`: the items of the shard (None: to be
        counted here).
        """
        limit = self.options.limit
        if items is not None and limit is not None:
            items = min(items, limit)
        if items is not None and self.options.shard is not None:  # only the ids tell how many are of the shard
            whole, items = items, sum(1 for _ in self.items()) if in_shard is None else in_shard
            self.whole, self._in_shard = whole, items
        if items is not None:
            self._counted = items
        return SourceSummary(
            items=items,
            settings=settings,
            instruction=instruction,
            lines=lines,
            passed=passed or PassedOver(),
            loras=loras,
            matrix=self.options.matrix if matrix is None else matrix,
            lora_sets=None if has_own_loras else tuple(lines.lora_sets) if lines is not None else (loras.loras,),
        )


def _without_paths(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON, wherever it lies. Its LoRAs are told by their content elsewhere, its matrix by ids."""
    left_out = ("lora", "matrix")
    made = {name: value for name, value in asdict(recipe).items() if name not in left_out}
    made["parameters"] = {
        name: {key: value for key, value in parameter.items() if key in _ALWAYS or value not in _UNSAID}
        for name, parameter in made["parameters"].items()
    }
    return made | {"file": "", "name": ""}


_UNREADABLE = ("stdin", "rows", "iterator")
"""Kinds of sources that nobody can open again by a name."""
_ALWAYS = ("description", "default", "choices")
_UNSAID = (None, "", "text", "choice")
"""What records of earlier releases do not say of a parameter."""
