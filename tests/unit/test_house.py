"""The limits of the house: how long a file and a function may be, and how many parameters a function may take.

A parameter counts if a caller can give it by its position; keyword-only parameters are options.
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

KNOWN = {
    "models/blocks.py before_attention parameters",
    "models/dit.py _run_blocks parameters",
    "models/fused_blocks.py run_blocks parameters",
    "models/qwen.py lines",
    "models/triton_kernels.py _double parameters",
    "models/triton_kernels.py _join parameters",
    "models/triton_kernels.py _norm_heads parameters",
    "models/triton_kernels.py _norm_silu parameters",
    "models/triton_kernels.py _residual_norm parameters",
    "weights/layouts.py _assemble parameters",
    "weights/random.py _text parameters",
    "weights/random.py _vision parameters",
}
"""What still passes a limit. The set must be exact: remove an entry with its cause, and add none."""


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
        given = [*node.args.posonlyargs, *node.args.args]
        if len([arg for arg in given if arg.arg not in ("self", "cls")]) > MAX_PARAMETERS:
            yield f"{name} {node.name} parameters"


def test_limits() -> None:
    found = {
        over
        for file in sorted(PACKAGE.rglob("*.py"))
        for over in over_limits(file.relative_to(PACKAGE).as_posix(), file.read_text(encoding="utf-8"))
    }
    assert found - KNOWN == set(), "these pass a limit"
    assert KNOWN - found == set(), "these keep the limits now: remove them from KNOWN"


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
        ("async def f(a, b, c, d, e, f, *, g, h): ...\n", []),
    ],
)
def test_the_limits_are_found(text: str, found: list[str]) -> None:
    assert list(over_limits("f.py", text)) == found
