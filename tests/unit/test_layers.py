"""Who may import whom: the arrows of the design, read from the source itself.

No file is named where a rule can speak of folders, so a new file is under the rules from its first line.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "joyedit"

FLOORS = (
    {"printable"},
    {"contents", "errors", "models"},
    {"job", "quantities"},
    {"weights"},
    {"runtime"},
    {"options"},
    {"replay"},
    {"request"},
    {"api", "cli"},
    {"__init__"},
    {"__main__"},
)
"""From the ground up. A module may import from its own room and from the floors below; two rooms of one floor
do not know each other."""

ALSO_APART = {"models": {"contents", "errors", "printable"}, "cli": {"api"}}
"""What a room does not import although its floor would allow it."""

PACKAGES = {
    "printable": set(),
    "contents": set(),
    "errors": set(),
    "quantities": set(),
    "job": {"PIL", "yaml", "pydantic", "pydantic_core", "numpy", "pillow_heif", "simplejpeg", "pyarrow", "fsspec"},
    "models": {"torch", "transformers", "triton"},
    "weights": {"torch", "safetensors", "huggingface_hub", "tqdm", "numpy", "gguf"},
    "runtime": {"torch", "PIL", "numpy", "transformers", "triton", "ray", "pyarrow", "prometheus_client", "lpips"},
    "options": set(),
    "replay": set(),
    "request": set(),
    "api": {"PIL", "IPython", "pandas", "pyarrow", "typing_extensions"},
    "cli": {"typer", "rich", "tqdm"},
    "__init__": set(),
    "__main__": set(),
}
"""Installed packages that a room may import."""

NO_TORCH = (
    "printable.py", "contents.py", "errors.py", "__init__.py", "__main__.py", "options", "replay.py", "request",
    "quantities.py",
    "api",
    "job", "cli", "runtime/pipeline",
    "runtime/doctor/__init__.py", "runtime/doctor/findings.py", "runtime/doctor/nvidia.py", "runtime/doctor/host.py",
    "runtime/doctor/software.py", "runtime/doctor/checkpoint.py", "runtime/doctor/diagnose.py",
    "runtime/tuning/processor.py",
    "runtime/parallel/layout.py", "runtime/parallel/place.py", "runtime/parallel/outcome.py",
    "runtime/parallel/links.py", "runtime/parallel/watch.py",
    "runtime/bench/batch.py", "runtime/bench/scaling.py", "runtime/bench/scaling_report.py",
    "runtime/protocol.py", "runtime/model.py", "runtime/lazy_model.py", "runtime/run.py", "runtime/session.py",
    "runtime/open_session.py", "runtime/fake.py", "runtime/workers", "runtime/ray_engine",
    "weights/defaults.py", "weights/hub.py", "weights/hub_tokenizer.py", "weights/wanted.py", "weights/find.py",
    "weights/locate.py", "weights/part.py", "weights/candidates.py", "weights/headers.py", "weights/roles.py",
    "weights/shards.py", "weights/gguf_header.py", "weights/literals.py", "weights/prompt_folders.py",
    "weights/prompt_sources.py", "weights/regular_files.py", "weights/describe.py",
    "weights/lora_facts.py",
    "runtime/metrics_file.py", "runtime/metric_families.py",
)  # fmt: skip

LIGHT = (
    "cli/main.py",
    "cli/run.py",
    "cli/recipes.py",
    "cli/verify.py",
    "cli/view.py",
    "cli/console.py",
    "cli/log.py",
    "job/event_log.py",
    "errors.py",
    "runtime/pipeline/interrupts.py",
)
"""What `joyedit --help` imports."""


def modules(path: str = ".") -> list[Path]:
    place = PACKAGE / path
    found = [place] if place.suffix else sorted(place.rglob("*.py"))
    assert found, path
    return found


def name_of(path: Path, package: Path = PACKAGE) -> str:
    """The dotted name below the package: `job.plan`; `job` for the folder's `__init__.py`."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


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
            for alias in node.names:  # `from joyedit.job import plan` is an import of joyedit.job.plan
                yield f"{node.module}.{alias.name}"


def graph(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports anywhere, for its types and inside functions too."""
    paths = {name_of(path, package): path for path in sorted(package.rglob("*.py"))}
    edges: dict[str, set[str]] = {}
    for name, path in paths.items():
        edges[name] = set()
        for imported in imports(path, everywhere=True):
            top, _, rest = imported.partition(".")
            if top != package.name:
                continue
            while rest and rest not in paths:  # a name inside a module
                rest = rest.rpartition(".")[0]
            edges[name].add(rest or "__init__")
        edges[name].discard(name)
    return edges


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, the first one repeated at the end; empty if there is none."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        stack = [(start, iter(sorted(edges[start])))]
        while stack:
            name, rest = stack[-1]
            if name not in path:
                path.append(name)
            step = next((other for other in rest if other not in done), None)
            if step is None:
                done.add(stack.pop()[0])
                path.pop()
            elif step in path:
                return [*path[path.index(step) :], step]
            else:
                stack.append((step, iter(sorted(edges[step]))))
    return []


def room(name: str) -> str:
    return name.partition(".")[0]


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(name) in rooms)


def is_upward(name: str, imported: str) -> bool:
    """Whether the design forbids this arrow."""
    here, there = room(name), room(imported)
    if here == there:
        return False
    return floor(imported) >= floor(name) or there in ALSO_APART.get(here, set())


def test_every_module_has_a_floor() -> None:
    assert {room(name) for name in graph()} == set().union(*FLOORS) == set(PACKAGES)


def test_no_import_circle() -> None:
    assert circle(graph()) == []


def test_no_import_runs_upward() -> None:
    found = graph()
    assert [f"{name} -> {one}" for name in found for one in sorted(found[name]) if is_upward(name, one)] == []


def test_rooms_use_their_own_packages() -> None:
    wrong = []
    for path in modules():
        for name in imports(path, everywhere=True):
            top = name.partition(".")[0]
            known = {"joyedit", *PACKAGES[room(name_of(path))], *sys.stdlib_module_names}
            if top not in known:
                wrong.append(f"{path.relative_to(PACKAGE)}: {name}")
    assert wrong == []


def test_transformers_stands_in_qwen_alone() -> None:
    users = {
        path.name for path in modules("models") for name in imports(path, everywhere=True)
        if name.startswith("transformers")
    }  # fmt: skip
    assert {name.partition("_")[0].removesuffix(".py") for name in users} == {"qwen"}


@pytest.mark.parametrize("place", NO_TORCH)
def test_no_torch_without_networks(place: str) -> None:
    for path in modules(place):
        for name in imports(path, everywhere=True):
            assert name.partition(".")[0] not in ("torch", "transformers"), path


@pytest.mark.parametrize("place", LIGHT)
def test_what_help_imports_is_light(place: str) -> None:
    (path,) = modules(place)
    allowed = (
        "joyedit.cli",
        "joyedit.errors",
        "joyedit.job.event_log",
        "joyedit.options",
        "joyedit.printable",
        "joyedit.runtime.pipeline.interrupts",
        "typer",
    )
    for name in imports(path, everywhere=False):
        fine = any(name == one or name.startswith(one + ".") for one in allowed)
        assert fine or name.partition(".")[0] in sys.stdlib_module_names, name


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


def test_a_circle_is_seen_wherever_it_hides(tmp_path: Path) -> None:
    package = tmp_path / "joyedit"
    for name, text in {
        "job/a.py": "from joyedit.job.b import x",
        "job/b.py": "def f():\n    from joyedit.job import c",
        "job/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from joyedit.job.a import y",
        "job/d.py": "from joyedit.job.a import y",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    found = graph(package)
    assert found == {"job.a": {"job.b"}, "job.b": {"job.c"}, "job.c": {"job.a"}, "job.d": {"job.a"}}
    assert circle(found) == ["job.a", "job.b", "job.c", "job.a"]
    assert circle(found | {"job.c": set()}) == []


@pytest.mark.parametrize(
    ("name", "imported", "upward"),
    [
        ("job.plan", "errors", False),
        ("job.plan", "job.new.file", False),
        ("job.new", "runtime.protocol", True),
        ("models.new", "errors", True),
        ("models.new", "job.spec", True),
        ("weights.new", "runtime.model", True),
        ("runtime.new", "cli.console", True),
        ("request", "runtime.model", False),
        ("request", "cli.flags", True),
        ("api", "cli.main", True),
    ],
)
def test_an_upward_import_is_seen(name: str, imported: str, upward: bool) -> None:
    assert is_upward(name, imported) == upward
