"""The documents agree with the code and with each other: links, tables of names, quoted messages, length."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import command_reference
import pytest
import yaml
from pages import PAGES, ROOT, Block, anchors, blocks, coded, links, name_of, prose, table_words, tables

import joyedit
from joyedit import errors
from joyedit.job.results import check_record, verify, verify_shards
from joyedit.job.results.report import Report
from joyedit.job.source.recipe_reader import list_recipes
from joyedit.job.source.schema import ALIASES, DEFAULTS_KEYS, ITEM_KEYS

DOCS = ROOT / "docs"
PACKAGE = ROOT / "joyedit"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_the_picture_is_small() -> None:
    for picture in (DOCS / "images").iterdir():
        assert picture.stat().st_size < 100_000, picture.name


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(ROOT / link).resolve() for link in links(ROOT / "README.md")}
    assert {page for page in PAGES if page.name != "README.md"} <= linked


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_commands_page_is_current() -> None:
    page = command_reference.PAGE.read_text(encoding="utf-8")
    assert page == command_reference.page(), "run: python tools/command_reference.py"


def test_every_option_is_in_the_reference() -> None:
    """The generator walks what typer gives it; this looks at the options that the sources spell."""
    page = command_reference.page()
    spelled = {
        node.value
        for path in [*(PACKAGE / "options").glob("*.py"), *(PACKAGE / "cli").glob("*.py")]
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and re.fullmatch(r"--?[a-z][a-z-]*", str(node.value))
    }
    assert "--trust-journal" in spelled
    assert {name for name in spelled if f"`{name}`" not in page} <= {"-h", "--help"}


def test_keys_of_a_manifest() -> None:
    assert list(table_words(DOCS / "manifest.md", "key")) == [
        *("image", "images", "instruction", "id", "output", "negative_prompt", "seed", "steps"),
        *(
            "guidance_scale",
            "basesize",
            "width",
            "height",
            "size",
            "fit",
            "lora",
            "mask",
            "box",
            "seeds",
            "sweep",
            "turns",
        ),
    ]
    assert set(table_words(DOCS / "manifest.md", "key")) == set(ITEM_KEYS)
    assert set(DEFAULTS_KEYS) < set(ITEM_KEYS)
    for alias in ALIASES:
        assert f"`{alias}`" in prose(DOCS / "manifest.md"), alias


def test_recipes() -> None:
    assert sorted(table_words(DOCS / "recipes.md", "recipe")) == [recipe.name for recipe in list_recipes()]
    for recipe in list_recipes():
        row = next(row for rows in tables(DOCS / "recipes.md") for row in rows if row[0] == f"`{recipe.name}`")
        assert set(coded(row[1])) - {"--prompt"} == set(recipe.parameters)


def test_exit_codes() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    rows = next(rows for rows in tables(DOCS / "overnight.md") if rows[1][0] == "0")
    assert {int(row[0]) for row in rows[1:]} == codes


def test_error_codes_of_items() -> None:
    table = set(table_words(DOCS / "overnight.md", "code"))
    assert table == set(raised_codes())


def raised_codes() -> Iterator[str]:
    """Every code that joyedit gives to an item: of an ItemError, or as `code` of a failure."""
    for path in sources():
        if path.name == "fake.py":
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                values = [*node.args, *(k.value for k in node.keywords if k.arg == "code")]
                if name in ("ItemError", "failed", "FailedItem"):
                    for value in values:
                        if isinstance(value, ast.Constant) and re.fullmatch("[a-z]+_[a-z_]+", str(value.value)):
                            yield str(value.value)
            named = getattr(node.targets[0], "id", "") if isinstance(node, ast.Assign) else ""
            if isinstance(node, ast.Assign) and named in ("code", "KILLED", "KILLED_WORKERS", "EARLIER_FAILED"):
                values = [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)]
                yield from (str(value) for value in values if re.fullmatch("[a-z]+_[a-z_]+", str(value)))


def test_mismatches_of_verify() -> None:
    kinds = {
        str(value.value)
        for path in map(Path, (verify.__file__, verify_shards.__file__, check_record.__file__))
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Mismatch", "mismatch")
        for value in [*node.args[:1], *(k.value for k in node.keywords if k.arg == "kind")]
        if isinstance(value, ast.Constant)
    }
    assert set(table_words(DOCS / "overnight.md", "mismatch")) == kinds


def test_rows_of_the_report() -> None:
    rows = next(rows for rows in tables(DOCS / "performance.md") if rows[0][0] == "row")
    keys = {key for row in rows[1:] for key in coded(row[1])}
    assert keys
    assert keys <= set(Report.__slots__)


def test_errors_from_python() -> None:
    named = set(table_words(DOCS / "python.md", "error"))
    assert named <= set(joyedit.__all__)
    tree = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert named == tree - {"JoyeditError"}


def test_environment_variables() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*sources(), *(ROOT / "tests").rglob("*.py")])
    for page in PAGES:
        for name in re.findall(r"`(JOYEDIT_[A-Z_]+)", prose(page)):
            assert f'"{name}"' in text, f"{name_of(page)}: {name}"


NAMED = re.compile(r"\]\((\S+?\.py)\)\s+`([A-Za-z_.]+)`")
"""A link to a source file, and a name in that file."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_stand_in_the_files_that_are_linked(page: Path) -> None:
    for path, name in NAMED.findall(prose(page)):
        assert name in names_in(tree_of((page.parent / path).resolve())), f"{name_of(page)}: no {name} in {path}"


def test_a_stranger_finds_three_places_in_one_hop() -> None:
    for name, line in (
        ("denoise", r"\bguidance\("),  # applies guidance
        ("Journal._append", r"self\._write\("),  # writes the journal
        ("find", r"\bdetect\("),  # chooses the layout
    ):
        (path,) = {path for path, other in NAMED.findall(prose(DOCS / "architecture.md")) if other == name}
        tree = tree_of((DOCS / path).resolve())
        (function,) = (n for n in ast.walk(tree) if getattr(n, "name", "") == name.rpartition(".")[2])
        assert re.search(line, ast.unparse(function)), name


def names_in(tree: ast.Module) -> set[str]:
    """Functions, classes, methods (`Class.method`) and constants of a module."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


QUOTED = [pytest.param(block, id=block.where) for block in blocks(DOCS / "troubleshooting.md") if block.kind == "text"]


@pytest.mark.parametrize("block", QUOTED)
def test_quoted_messages_are_printed(block: Block) -> None:
    """What stands between the `<...>` of a quoted message is part of a string in the sources."""
    text = re.sub(r"^(joyedit: error|note|failed: <id>: \w+): ", "", " ".join(block.text.split()))
    for part in re.split(r"<[^<>]*>", text):
        words = part.strip(" :,;()")
        if len(words) > 3:
            assert any(words in string for string in strings()), f"nothing prints {words!r}: correct the quotation"


@cache
def strings() -> tuple[str, ...]:
    """All constant strings of the sources, and what the system says of a full disk."""
    return (
        "No space left on device",
        *(
            " ".join(node.value.split())
            for path in sources()
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ),
    )


@cache
def sources() -> tuple[Path, ...]:
    return tuple(sorted(PACKAGE.rglob("*.py")))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_a_message_that_nobody_prints_is_seen() -> None:
    assert not any("this is not printed anywhere" in string for string in strings())
    assert any("and not a hub id (owner/name)" in string for string in strings())


def test_workflow_and_hooks() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert set(jobs) == {"pinned", "python-310", "oldest", "newest"}
    pythons = {
        version
        for job in jobs.values()
        for version in job.get("strategy", {"matrix": {"python": []}})["matrix"]["python"]
    }
    assert pythons >= {"3.10", "3.11", "3.12", "3.13"}
    (oldest,) = re.findall(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert any(f'"torch=={oldest}.0"' in step.get("run", "") for step in jobs["oldest"]["steps"])
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert {"ruff-check", "ruff-format", "end-of-file-fixer", "check-yaml", "mypy"} <= {
        hook["id"] for repo in hooks for hook in repo["hooks"]
    }
    (ruff,) = (repo["rev"] for repo in hooks if "ruff" in repo["repo"])
    assert f"ruff=={ruff.removeprefix('v')}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_the_figures_of_the_reports_are_those_of_their_tables() -> None:
    page = (DOCS / "reports.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+/\S+#\d+(?:, \S+/\S+#\d+)*) \|.*\| (\w+(?:, in part)?) \|$", page, re.MULTILINE)
    reports = [report for row, _ in rows for report in row.split(", ")]
    assert len(reports) == len(set(reports)) == len(re.findall(r"#\d+", page))
    verdicts = [verdict for _, verdict in rows]
    fixed, part, held, still = map(verdicts.count, ("fixed", "fixed, in part", "held", "open"))
    told = f"These are {len(reports)} reports of {len(rows)} kinds: {fixed} kinds are fixed and {part} in part, "
    assert f"{told}{held} held, and {still} is open." in page
