"""What a line may cost: time that grows with its length, messages and records of bounded size."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import ManifestError
from joyedit.job.source import problems, readers
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.sources import Source, SourceOptions, open_source
from joyedit.job.spec import FailedItem

MANY = 40_000
HEX = [f"{number:x}" for number in range(MANY)]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("a.png")
    return tmp_path


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The unknown names that were compared with the known ones."""
    names: list[str] = []
    real = difflib.get_close_matches

    def counted(word: str, *args: Any, **kwargs: Any) -> list[str]:
        names.append(word)
        return real(word, *args, **kwargs)

    monkeypatch.setattr(problems.difflib, "get_close_matches", counted)
    problems._nearest.cache_clear()
    return names


def source(text: str, name: str) -> Source:
    Path(name).write_text(text)
    return open_source(name, SourceOptions(output=Path("out"), prompt="go"))


def told(opened: Source) -> ManifestError:
    with pytest.raises(ManifestError) as error:
        opened.check()
    return error.value


def bad_lines(opened: Source) -> list[FailedItem]:
    """The items of a source that has become wrong since its check."""
    return [item for item in opened.items() if isinstance(item, FailedItem)]


UNKNOWN = {
    "m.jsonl": "{" + ", ".join(f'"{name}": 0' for name in HEX) + "}\n",
    "m.json": "[{" + ", ".join(f'"{name}": 0' for name in HEX) + "}]\n",
    "m.csv": ",".join(f"x{name}" for name in HEX) + "\n" + ",".join("0" for _ in HEX) + "\n",
    "m.yaml": "- " + "\n  ".join(f"x{name}: 0" for name in HEX[:4_000]) + "\n",
    "sections.yaml": "\n".join(f"x{name}: 0" for name in HEX[:4_000]) + "\nitems: [image: a.png]\n",
}


@pytest.mark.parametrize("name", sorted(UNKNOWN))
def test_unknown_keys_are_few_in_every_message(name: str, compared: list[str]) -> None:
    opened = source(UNKNOWN[name], name)
    error = told(opened)
    assert len(compared) <= 12
    assert len(error.problems) <= 13
    assert len(str(error)) < 10_000
    more = 3_990 if name.endswith("yaml") else MANY - 10
    assert f"... and {more} more" in str(error)
    for item in bad_lines(opened):
        assert len(item.message) <= 2_100


def test_keys_that_stand_twice_take_linear_time(compared: list[str]) -> None:
    """Each name was compared with all others: 40,000 took 41 seconds, these would take many minutes."""
    pairs = [(name, 0) for name in HEX * 8]
    table = readers._pairs(pairs)
    assert isinstance(table, problems.Table)
    assert table.doubled == tuple(HEX)
    text = "{" + ", ".join(f'"{name}": 0, "{name}": 1' for name in HEX) + "}\n"
    error = told(source(text, "m.jsonl"))
    assert error.problems[0].text == "the key '0' is given twice (keep one of them)"
    assert len(error.problems) == 22  # each name is also unknown
    assert [error.problems[place].text for place in (10, 21)] == [f"... and {MANY - 10} more"] * 2
    assert len(compared) == 10


def test_yaml_keys_that_stand_twice_are_told_once() -> None:
    error = told(source("- image: a.png\n" + "  seed: 1\n" * 3_000, "m.yaml"))
    assert [problem.text for problem in error.problems] == ["the key 'seed' is given twice (keep one of them)"]


def test_a_repeated_section_of_yaml_is_counted() -> None:
    error = told(source("items: [image: a.png]\n" + "items: []\n" * 3_000, "m.yaml"))
    assert len(error.problems) == 11
    assert error.problems[-1].text == "... and 2990 more"


def test_a_wrong_name_on_every_line_is_compared_once(compared: list[str]) -> None:
    told(source('{"image": "a.png", "promt": "x"}\n' * 2_000, "m.jsonl"))
    assert compared == ["promt"]


def test_bad_bytes_in_a_json_list_take_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of each was counted from the beginning of the file."""
    counted: list[int] = []
    monkeypatch.setattr(readers, "line_at", lambda text, position: counted.append(position) or 0)
    Path("m.json").write_bytes(b"[\n" + b",\n".join([b'{"image": "\xff"}'] * 3_000) + b"\n]\n")
    error = told(open_source("m.json", SourceOptions(output=Path("out"), prompt="go")))
    assert error.total == 3_000
    assert [problem.line for problem in error.problems[:3]] == [2, 3, 4]
    assert counted == []


def test_problems_inside_a_yaml_value_are_bounded() -> None:
    opened = source("- {" + ", ".join(f"{number}: 0" for number in range(4_000)) + "}\n", "m.yaml")
    error = told(opened)
    assert len(error.problems) == 11
    assert error.problems[-1].text == "... and 3990 more"
    assert error.problems[-1].line == 1


def test_long_names_in_yaml_are_cut() -> None:
    for text in (
        "- *" + "a" * 100_000,
        "- !" + "t" * 100_000 + " x",
        "- &" + "a" * 100_000 + " x\n- [",
        "%" + "y" * 99,
    ):
        assert len(str(told(source(text, "m.yaml")))) < 1_000


LONG = "y" * 1_000_000


@pytest.mark.parametrize(
    "line",
    [
        {LONG: 1},
        {"image": LONG},
        {"image": "a.png", "id": LONG},
        {"image": "a.png", "output": LONG},
        {"image": "a.png", "instruction": LONG, "steps": 0},
        {"image": "a.png", "steps": LONG},
        {"images": ["a.png"] * 200_000},
        {"images": [0] * 200_000},
        {"images": [LONG[:200_000]] * 5},
        {"images": [LONG[:4_090]] * 64, "steps": 0},
        {"image": "a.png", "instruction": "\ud800" * 100_000},
    ],
)
def test_the_record_of_a_bad_line_is_bounded(line: dict[str, Any]) -> None:
    opened = source(json.dumps(line) + "\n", "m.jsonl")
    error = told(opened)
    assert len(str(error)) < 30_000
    [item] = opened.items()
    assert isinstance(item, FailedItem)
    assert item.code == "bad_line"
    size = sum(len(str(path)) for path in item.images) + len(item.instruction) + len(item.message) + len(item.id)
    assert size < 30_000
    for text in (item.instruction, *map(str, item.images)):
        assert len(text) <= 2_000
        assert len(text) < 1_000 or text.endswith(" [cut]")


def test_as_many_references_as_are_allowed(place: Path) -> None:
    opened = source(json.dumps({"images": ["a.png"] * 64}) + "\n", "m.jsonl")
    assert opened.check().items == 1
    error = told(source(json.dumps({"images": ["a.png"] * 65}) + "\n", "m.jsonl"))
    assert str(error) == "m.jsonl:1: images has 65 paths, and 64 are the most"


def test_one_message_tells_how_many_more_there_are() -> None:
    many = [problems.Problem("x" * 400)] * 40
    message = problems.one_message(many)
    assert len(message) <= problems.MAX_MESSAGE
    assert message.endswith(" [cut]; ... and 30 more")
    assert problems.one_message(many[:2]) == "; ".join(["x" * 400] * 2)


def test_faults_of_a_recipe_do_not_multiply(compared: list[str]) -> None:
    names = [f"q{number}" for number in range(2_000)]
    parameters = "".join(f"  {name}: {{}}\n" for name in names)
    places = "".join("{z" + name + "}" for name in HEX[:20_000])
    Path("r.yaml").write_text(f"instruction: '{places}'\nparameters:\n{parameters}")
    with pytest.raises(ManifestError) as error:
        load_recipe("r.yaml")
    assert len(compared) <= 10
    assert "r.yaml:1: ... and 19990 more" in str(error.value)
    assert len(str(error.value)) < 100_000


def test_names_of_many_choices_are_cut() -> None:
    assert problems.nearest("zzzz", [f"q{n}" for n in range(5_000)]).endswith("q29, ... and 4970 more")
    assert problems.one_of([f"q{n}" for n in range(5_000)]).endswith("'q29', ... and 4970 more")


def test_a_value_is_shown_without_reading_all_of_it() -> None:
    class Long(str):
        def __repr__(self) -> str:
            raise AssertionError("all of the text was made printable")

    assert problems.shown(Long("x" * 100)) == "'" + "x" * 56 + "..."
