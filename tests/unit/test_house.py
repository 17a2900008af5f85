"""The limits of the house: how long a file and a function may be, and how many parameters a function may take.

A parameter counts if a caller can give it by its position; keyword-only parameters are options. The kernels of Triton
are no functions of Python: each takes a pointer for each tensor, a stride and a size, so their parameters do not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import joyedit

PACKAGE = Path(joyedit.__file__).parent
MAX_FILE = 400
MAX_FUNCTION = 60
MAX_PARAMETERS = 6


def over_limits(name: str, text: str) -> Iterator[str]:
    """What passes a limit in the file `name` with the source `text`."""
    if len(text.splitlines()) > MAX_FILE:
        yield f"{name} lines"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        assert node.end_lineno is not None
        if node.end_lineno - node.lineno + 1 > MAX_FUNCTION:
            yield f"{name} {node.name} lines"
        if any(ast.unparse(decorator).startswith("triton.jit") for decorator in node.decorator_list):
            continue
        given = [*node.args.posonlyargs, *node.args.args]
        if len([arg for arg in given if arg.arg not in ("self", "cls")]) > MAX_PARAMETERS:
            yield f"{name} {node.name} parameters"


def test_limits() -> None:
    found = [
        over
        for file in sorted(PACKAGE.rglob("*.py"))
        for over in over_limits(file.relative_to(PACKAGE).as_posix(), file.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x = 1\n" * 400, []),
        ("x = 1\n" * 401, ["f.py lines"]),
        ("def f():\n" + "    x = 1\n" * 59, []),
        ("def f():\n" + "    x = 1\n" * 60, ["f.py f lines"]),
        ("class A:\n    def m(self, a, b, c, d, e, f): ...\n", []),
        ("class A:\n    def m(self, a, b, c, d, e, f, g): ...\n", ["f.py m parameters"]),
        ("def f(a, b, /, c, d, e, f, g): ...\n", ["f.py f parameters"]),
        ("@triton.jit\ndef f(a, b, c, d, e, f, g): ...\n", []),
        ("async def f(a, b, c, d, e, f, *, g, h): ...\n", []),
    ],
)
def test_the_limits_are_found(text: str, found: list[str]) -> None:
    assert list(over_limits("f.py", text)) == found
