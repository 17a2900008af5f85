"""How the lines of a manifest differ from the settings of the run, counted while the manifest is checked.

People give flags and forget that lines come before them. So the header of a run says what the lines say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from joyedit.job.source.loras import LoraSet
from joyedit.job.source.matrix import Cell
from joyedit.job.source.schema import SETTINGS_KEYS, Line
from joyedit.job.spec import Lora, Settings

EDITS = "edits"
"""The name under which it is counted how many edits lines make of their items."""
MOST_SETS = 64
"""So many sets of LoRAs are known before the first item is edited; others are opened when their items come."""


@dataclass(slots=True)
class OwnValues:
    """What the lines say about one setting that is not its value in the run.

    `lines` is how many say it, `least` and `most` are the ends of their values; None for texts that differ.
    """

    lines: int = 0
    least: int | float | str | None = None
    most: int | float | str | None = None

    def add(self, value: int | float | str, *, is_same_line: bool = False) -> None:
        """One more line, or another value of the last one."""
        self.lines += not is_same_line
        if self.lines == 1 and not is_same_line:
            self.least = self.most = value
        elif isinstance(value, str) or isinstance(self.least, str):
            if value != self.least:
                self.least = self.most = None
        elif self.least is not None and self.most is not None and not isinstance(self.most, str):
            self.least, self.most = min(self.least, value), max(self.most, value)


class LineSettings:
    """Counts lines; in memory are only the counts. `settings` are those of a line that gives none."""

    def __init__(self, settings: Settings, instruction: str | None, loras: LoraSet) -> None:
        self.lines = 0
        self.lora_sets: dict[tuple[Lora, ...], None] = {}
        """The first few sets of LoRAs that lines have, in order."""
        self._loras = loras
        self._values: dict[str, OwnValues] = {}
        self._run = [(key, getattr(settings, key)) for key in SETTINGS_KEYS]
        self._instruction = instruction

    def add(self, line: Line, instruction: str, loras: LoraSet, cells: Sequence[Cell] = ()) -> None:
        """One line, its instruction as the model gets it, its LoRAs, and the cells of a matrix of its own."""
        if len(self.lora_sets) < MOST_SETS:
            self.lora_sets[loras.loras] = None
        if loras != self._loras:
            self._add("lora", loras.text)
        self.lines += 1
        swept = self._add_cells(cells) if cells else ()
        for key, value in self._run:
            own = getattr(line, key)
            if own is not None and own != value and key not in swept:
                self._add(key, own)
        if instruction != self._instruction:
            self._add("instruction", instruction)

    def _add_cells(self, cells: Sequence[Cell]) -> Collection[str]:
        """How many edits a line makes, and between which values; gives the settings that it sweeps."""
        self._add(EDITS, len(cells))
        swept = cells[0].settings
        for key in swept:
            values = list(dict.fromkeys(cell.settings[key] for cell in cells))
            self._add(key, values[0])
            for value in values[1:]:
                self._values[key].add(value, is_same_line=True)
        return swept

    def _add(self, key: str, value: int | float | str) -> None:
        self._values.setdefault(key, OwnValues()).add(value)

    def values(self) -> Mapping[str, OwnValues]:
        """What differs, by setting; `instruction` is one of them."""
        return self._values
