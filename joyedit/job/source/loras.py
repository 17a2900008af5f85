"""The LoRAs that flags, recipes, manifests and lines name: paths and scales become checked sets.

A LoRA is written as `FILE` or `FILE:SCALE`, or as an object with `file` and `scale`; a set is one of these or a list.
What a LoRA's file says is read by whoever opens tensor files (`LoraShelf.read`): the hash of its content, and the
settings that its maker recommends.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from joyedit.errors import CheckpointError, Problem
from joyedit.job.source.problems import shown
from joyedit.job.source.written_paths import system_path
from joyedit.job.spec import Lora, Settings

MOST_LORAS = 16
"""The most LoRAs of one item."""
MOST_SCALE = 100.0
RULE = f"a path (with :SCALE behind it), an object with file and scale (up to {MOST_SCALE:g}), or a list of these"
_KEPT = 1024
_SHOWN_PATH = 300
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)


class LoraWish(NamedTuple):
    """A LoRA as it is written: a path, and the scale if that stands apart from it."""

    file: str
    scale: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraFacts:
    """What a LoRA's files say without a look at its tensors.

    `sha256` is the hash of everything that its effect depends on, `settings` are what its maker recommends, and
    `sigmas` the noise levels that it was made for; empty for those of the checkpoint.
    """

    weights: Path
    sha256: str
    settings: Settings = field(default_factory=Settings)
    sigmas: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSet:
    """The LoRAs of an item in order, each with the settings that it recommends."""

    loras: tuple[Lora, ...] = ()
    recommended: tuple[Settings, ...] = field(default=(), compare=False)

    @property
    def settings(self) -> Settings:
        """What they recommend; the first one that says something about a setting counts."""
        made = Settings()
        for one in self.recommended:
            made = made.over(one)
        return made

    def origin(self, name: str) -> str | None:
        """The name of the LoRA that recommends the setting `name`; None if none does."""
        for lora, settings in zip(self.loras, self.recommended, strict=True):
            if getattr(settings, name) is not None:
                return lora.name
        return None

    @property
    def text(self) -> str:
        """The set in words: `style.safetensors, light.safetensors (scale 0.8)`; `none` for an empty one."""
        return loras_text(self.loras)


def loras_text(loras: Sequence[Lora]) -> str:
    """Names and scales of some LoRAs, in words."""
    return ", ".join(_text(lora) for lora in loras) or "none"


def _text(lora: Lora) -> str:
    return lora.name if lora.scale == 1 else f"{lora.name} (scale {lora.scale:g})"


def wishes_of(value: Any) -> list[LoraWish]:
    """The LoRAs of a checked value of the key `lora`: text, an object, or a list of them."""
    several = value if isinstance(value, (list, tuple)) else [value]
    return [LoraWish(one) if isinstance(one, str) else LoraWish(one.file, one.scale) for one in several]


def split_scale(written: str, base: str) -> tuple[str, float]:
    """Path and scale of `FILE` or `FILE:SCALE`. A file that is there under the whole name is that file."""
    head, colon, tail = written.rpartition(":")
    if not colon or not head or not _NUMBER.fullmatch(tail):
        return written, 1.0
    try:
        is_name = os.path.lexists(os.path.join(base, system_path(written, base)))
    except ValueError:  # a NUL in the name
        is_name = False
    return (written, 1.0) if is_name else (head, float(tail))


class LoraShelf:
    """Finds LoRAs, and keeps what their files said, so that a run sees one content of each.

    `read` gives the facts of a file or folder; it raises CheckpointError. Without it nothing is looked at.
    """

    def __init__(self, read: Callable[[Path], LoraFacts] | None = None) -> None:
        self._read = read
        self._kept: dict[str, LoraFacts] = {}

    def find(self, wishes: Sequence[LoraWish], base: str) -> tuple[LoraSet, list[Problem]]:
        """The set of these LoRAs, and what is wrong with them. Relative paths are relative to the folder `base`."""
        if len(wishes) > MOST_LORAS:
            return LoraSet(), [Problem(f"lora has {len(wishes)} files, and {MOST_LORAS} are the most", key="lora")]
        loras: list[Lora] = []
        recommended: list[Settings] = []
        problems: list[Problem] = []
        for wish in wishes:
            file, scale = split_scale(wish.file, base) if wish.scale is None else (wish.file, wish.scale)
            if not abs(scale) <= MOST_SCALE:
                message = f"the scale of {shown(file, _SHOWN_PATH)} must be from {-MOST_SCALE:g} to {MOST_SCALE:g}"
                problems.append(Problem(f"{message}, not {scale:g}", key="lora"))
                continue
            facts = self._facts(file, base)
            if isinstance(facts, Problem):
                problems.append(facts)
                continue
            loras.append(Lora(file=facts.weights, scale=scale, sha256=facts.sha256, sigmas=facts.sigmas))
            recommended.append(facts.settings)
        if problems:
            return LoraSet(), problems
        return LoraSet(loras=tuple(loras), recommended=tuple(recommended)), []

    def _facts(self, file: str, base: str) -> LoraFacts | Problem:
        path = os.path.abspath(os.path.join(base, system_path(file, base)))
        if self._read is None:
            return LoraFacts(weights=Path(path), sha256="")
        known = self._kept.get(path)
        if known is not None:
            return known
        if "\0" in path or not os.path.exists(path):
            where = shown(os.path.abspath(base), _SHOWN_PATH)
            return Problem(f"no such LoRA: {shown(file, _SHOWN_PATH)}", f"paths are relative to {where}", key="lora")
        try:
            facts = self._read(Path(path))
        except CheckpointError as error:
            return Problem(str(error), "give a LoRA's safetensors file, or its folder", key="lora")
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[path] = facts
        return facts
