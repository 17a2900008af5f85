"""The names of the edited pictures: from a line's own `output`, from `--name`, or from the item's id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from joyedit.errors import Problem
from joyedit.job.source.matrix import Cell
from joyedit.job.source.names import default_ending, name_problem, safe_name
from joyedit.job.source.problems import shown
from joyedit.job.source.source_options import SourceOptions
from joyedit.job.spec import Sampling
from joyedit.job.writing.trees import Tree

_REMEDY = "change the template, or give this item an output of its own"


class Facts(NamedTuple):
    """What `--name` may put into the name of an item.

    `picture` is the path of the first picture ("" for none), `values` are those of the recipe, `columns` those of the
    line.
    """

    picture: str
    line: int | None
    sampling: Sampling
    basesize: int
    values: Mapping[str, str]
    columns: Mapping[str, Any]
    fields: Mapping[str, Any] = {}
    """The plain values of the row of a dataset, where a tree is asked for."""


class OutputNames:
    """Gives the names of one pass over a source, in order."""

    def __init__(self, options: SourceOptions) -> None:
        self._template = options.template
        self._tree = options.tree
        self._recipe = options.recipe
        self.extension = default_ending(options.format, None)
        """The ending of outputs that are made; whoever gives items different ones sets it before each."""
        self._is_multiplied = bool(options.matrix)
        self._index = 0

    @property
    def is_by_id(self) -> bool:
        """Whether the name of an item without an `output` is its id with an ending, and nothing else."""
        return self._template is None and self._tree is None and not self._is_multiplied

    @property
    def has_template(self) -> bool:
        """Whether `facts` are looked at."""
        return self._template is not None or self._tree is not None

    def output(self, name: str, cell: Cell, own: str | None, facts: Facts | None) -> str | Problem:
        """The output of the item with the id `name`. `own` is that of its line, without the cell's ending."""
        self._index += 1
        if own is not None:
            root, ending = os.path.splitext(own)
            return root + cell.suffix + ending
        if self._tree is not None and facts is not None:
            return self._in_tree(self._tree, cell, facts)
        if self._template is None or facts is None:
            return name + self.extension
        made: dict[str, object] = {"id": name, "folder": os.path.dirname(name), "index": self._index}
        for field in self._template.fields - made.keys():
            value = self._fact(field, name, facts)
            if value is None:
                message = f"--name: this item has no value for {{{field}}}"
                return Problem(message, "leave the field out, or give each item a value", once=f"no {field}")
            made[field] = value
        filled = self._template.fill(made)
        reason = name_problem(filled)
        if reason is not None:
            return Problem(f"--name gives this item the name {shown(filled)}, which {reason}", _REMEDY)
        return filled + self.extension

    def _in_tree(self, tree: Tree, cell: Cell, facts: Facts) -> str | Problem:
        """The name that the scorer of a benchmark reads."""
        made = tree.name(facts.fields)
        if isinstance(made, Problem):
            return made
        reason = name_problem(made + cell.suffix)
        if reason is not None:
            return Problem(f"--write {tree.write} gives this row the name {shown(made)}, which {reason}")
        return made + cell.suffix + self.extension

    def _fact(self, field: str, name: str, facts: Facts) -> object:
        """The value of a field; None if the item has none."""
        if field == "stem":
            stem = os.path.splitext(os.path.basename(facts.picture))[0]
            return safe_name(stem) if stem else os.path.basename(name)
        if field == "recipe":
            return None if self._recipe is None else self._recipe.name
        if field == "line":
            return facts.line
        if field == "basesize":
            return facts.basesize
        if field in Sampling.__slots__:
            return getattr(facts.sampling, field)
        if self._recipe is not None and field in self._recipe.parameters:
            parameter = self._recipe.parameters[field]
            text = facts.values.get(field, parameter.default)
            return None if text is None else parameter.read(text) or text
        value = facts.columns.get(field)
        return None if value is None or value == "" else value
