"""Plain values in the authors' `infer_config.py`. The file is taken apart and never run. No torch in here.

A dictionary in it, `dit_arch_config`, says what no shape tells: the rotary axes. It is a field of a class, a dictionary
or a function without arguments that gives one, and what is read of it are numbers, texts and lists of numbers. The
shift that the file names is not that of the schedule which the model was published with, so it is not read.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from joyedit.errors import CheckpointError, first_line
from joyedit.weights.regular_files import printable_path, read_text

MOST_BYTES = 1 << 16
DIT = "dit_arch_config"
PUBLISHED = {"rope_dim_list": [16, 56, 56], "rope_type": "rope", "theta": 10000}
"""What is in force where nothing else is said."""
_DIT_KEYS = ("rope_dim_list", "rope_type", "theta")


def read_literals(path: Path) -> dict[str, Any]:
    """What the file says of `rope_dim_list`, `rope_type` and `theta`; only those that it says.

    Raises CheckpointError for a file that is no Python.
    """
    where = printable_path(path)
    try:
        with warnings.catch_warnings():  # Python warns of some texts, and this is nobody's program here
            warnings.simplefilter("ignore")
            tree = ast.parse(read_text(path, MOST_BYTES))
        found = {name: _params(value) for name, value in _fields(tree)}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"{where}: cannot be read as Python ({first_line(error)}); remove it, and the published values are taken"
        ) from error
    return {key: value for key, value in found.get(DIT, {}).items() if key in _DIT_KEYS}


def _fields(tree: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    """The fields of this name in the classes of the module, with their values."""
    for node in tree.body:
        for line in node.body if isinstance(node, ast.ClassDef) else ():
            targets: list[ast.expr] = []
            if isinstance(line, ast.AnnAssign):
                targets = [line.target]
            elif isinstance(line, ast.Assign):
                targets = line.targets
            for target in targets:
                if isinstance(target, ast.Name) and target.id == DIT:
                    yield target.id, line.value  # type: ignore[attr-defined]


def _params(value: ast.expr | None) -> Mapping[str, Any]:
    """The plain values under the key `params` of a dictionary; it may stand behind `field(default_factory=lambda:
    ...)`."""
    if isinstance(value, ast.Call):
        factories = [word.value for word in value.keywords if word.arg == "default_factory"]
        value = factories[0] if factories else value
    if isinstance(value, ast.Lambda):
        value = value.body
    params = _entries(value).get("params")
    found = {}
    for key, node in {} if params is None else _entries(params).items():
        plain = _plain(node)
        if plain is not None:
            found[key] = plain
    return found


def _entries(node: ast.expr | None) -> dict[str, ast.expr]:
    if not isinstance(node, ast.Dict):
        return {}
    pairs = zip(node.keys, node.values, strict=True)
    return {key.value: value for key, value in pairs if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def _plain(node: ast.expr) -> Any:
    """A number, a text or a list of numbers; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, (int, float, str)) else None
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [one.value if isinstance(one, ast.Constant) else None for one in node.elts]
        return values if all(isinstance(value, (int, float)) for value in values) else None
    return None
