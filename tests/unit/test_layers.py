"""Who may import whom: the arrows of the design, read from the source itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "joyedit"

# Layer -> what its modules may import at all, also inside functions: layers of joyedit, and packages.
ALLOWED = {
    "errors.py": (set(), set()),
    "job": ({"errors", "job"}, {"PIL", "yaml", "pydantic", "pydantic_core", "numpy"}),
    "models": ({"models"}, {"torch", "transformers", "triton"}),
    "weights": (
        {"errors", "models", "weights", "job.spec"},
        {"torch", "safetensors", "huggingface_hub"},
    ),
    "runtime": (
        {"errors", "job", "models", "weights", "runtime"},
        {"torch", "PIL", "numpy", "transformers", "triton"},
    ),
    "cli": ({"errors", "job", "runtime", "weights.defaults", "cli"}, {"typer", "rich", "tqdm"}),
}
NO_TORCH = (
    "job",
    "cli",
    *(
        f"runtime/{name}.py"
        for name in [
            "backend",
            "checking",
            "editing",
            "fake",
            "identity",
            "limits",
            "progress",
            "reading",
            "records",
            "run",
            "stopping",
            "timing",
            "workers",
            "writing",
        ]
    ),
    "weights/defaults.py",
    "errors.py",
    "__main__.py",
)
LIGHT = (
    "cli/main.py", "cli/run.py", "cli/recipes.py", "cli/verify.py", "cli/flags.py", "cli/console.py", "errors.py",
)  # fmt: skip


def modules(path: str) -> list[Path]:
    place = PACKAGE / path
    found = [place] if place.suffix else sorted(place.rglob("*.py"))
    assert found, path
    return found


def imports(path: Path, *, everywhere: bool) -> Iterator[str]:
    """The dotted names that a module imports: everywhere, or only what runs when it is imported itself."""

    def walk(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in nodes:
            yield node
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from walk(node.orelse)
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from walk([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)])
                for handler in getattr(node, "handlers", []):
                    yield from walk(handler.body)

    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if everywhere else walk(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:  # `from joyedit.job import records` is an import of joyedit.job.source.readers
                yield f"{node.module}.{alias.name}"


def is_in(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(one + ".") for one in allowed)


@pytest.mark.parametrize("layer", ALLOWED)
def test_arrows_run_downward(layer: str) -> None:
    ours, theirs = ALLOWED[layer]
    wrong = []
    for path in modules(layer):
        for name in imports(path, everywhere=True):
            top, _, rest = name.partition(".")
            installed = top in theirs or top in sys.stdlib_module_names
            fine = is_in(rest, ours) if top == "joyedit" else installed
            if not fine:
                wrong.append(f"{path.relative_to(PACKAGE)}: {name}")
    assert wrong == []


def test_transformers_stands_in_one_model_file() -> None:
    users = {
        path.name for path in modules("models") for name in imports(path, everywhere=True)
        if name.startswith("transformers")
    }  # fmt: skip
    assert users == {"qwen.py"}


@pytest.mark.parametrize("place", NO_TORCH)
def test_no_torch_without_networks(place: str) -> None:
    for path in modules(place):
        for name in imports(path, everywhere=True):
            assert name.partition(".")[0] not in ("torch", "transformers"), path


@pytest.mark.parametrize("place", LIGHT)
def test_what_help_imports_is_light(place: str) -> None:
    (path,) = modules(place)
    allowed = {"joyedit.cli", "joyedit.errors", "typer"}
    for name in imports(path, everywhere=False):
        assert name.partition(".")[0] in sys.stdlib_module_names or is_in(name, allowed), name


def test_the_reader_of_imports_sees_them(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nimport a.b\n"
        "try:\n    import c\nexcept ImportError:\n    import d\n"
        "if TYPE_CHECKING:\n    import e\nelse:\n    import f\ndef g():\n    from h import i\n"
    )
    assert list(imports(path, everywhere=False)) == ["typing.TYPE_CHECKING", "a.b", "c", "d", "f"]
    assert sorted(imports(path, everywhere=True)) == [
        "a.b",
        "c",
        "d",
        "e",
        "f",
        "h.i",
        "typing.TYPE_CHECKING",
    ]
