"""The trees that the scorers of benchmarks read: how a picture is named there, by the fields of its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joyedit.errors import Problem
from joyedit.job.source.name_template import Part
from joyedit.job.source.problems import shown

MODEL = "model"
"""Stands for the name of the model in a tree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """`layout` is how the source must be read, `format` the only one that the scorer takes, `parts` the name of a
    picture without its ending. `fields` of the row stand in that.
    """

    write: str
    layout: str
    benchmark: str
    format: str
    parts: tuple[Part, ...]
    model: str = ""
    """The name of the model as a part of a path."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row that name its picture."""
        return tuple(part.field for part in self.parts if part.field and part.field != MODEL)

    def name(self, row: Mapping[str, Any]) -> str | Problem:
        """The name of the picture of a row, without its ending; or what the row lacks."""
        made = []
        for literal, field, _ in self.parts:
            made.append(literal)
            if not field:
                continue
            value = self.model if field == MODEL else row.get(field)
            if not isinstance(value, (str, int)) or isinstance(value, bool) or not str(value).strip():
                message = (
                    f"--write {self.write}: this row has no {field}, which is part of the name that its scorer reads"
                )
                return Problem(message, "correct the row, or use --write folder", once=f"no {field}")
            if "/" in str(value) or str(value) in (".", ".."):
                return Problem(f"--write {self.write}: {field} {shown(value)} is no name of a file")
            made.append(str(value))
        return "".join(made)


TREES: Mapping[str, Tree] = {
    tree.write: tree
    for tree in (
        Tree(
            write="gedit",
            layout="gedit-bench",
            benchmark="GEdit-Bench",
            format="png",
            parts=(Part("fullset/", "task_type"), Part("/", "instruction_language"), Part("/", "key")),
        ),
        Tree(write="imgedit", layout="imgedit", benchmark="ImgEdit", format="png", parts=(Part("", "key"),)),
        Tree(
            write="kris",
            layout="kris-bench",
            benchmark="KRIS-Bench",
            format="jpg",
            parts=(Part("results/", MODEL), Part("/", "category"), Part("/", "key")),
        ),
        Tree(
            write="spatialedit",
            layout="spatialedit-bench",
            benchmark="SpatialEdit-Bench",
            format="png",
            parts=(Part("fullset/", "type"), Part("/en/", "image_id"), Part("/", "edit_id")),
        ),
    )
}
"""By the value of `--write`."""
