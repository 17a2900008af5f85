"""Mistakes that people make in JSON, YAML and CSV: the message says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from joyedit.errors import ManifestError
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.spec import EditItem

QUOTES = 'keys and texts stand between straight double quotes: "'
COMMA = "remove the comma before the closing bracket"


def told(name: str, text: str) -> list[str]:
    """What a manifest with this text is refused for."""
    Path(name).write_text(text)
    with pytest.raises(ManifestError) as caught:
        open_source((name,), SourceOptions(output=Path("out"))).check()
    return [str(one) for one in caught.value.problems]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ('{"image": "a.png", }', COMMA),
        ('{"images": ["a.png",], "instruction": "x"}', COMMA),
        ("{'image': 'a.png'}", QUOTES),
        ("{\"image\": 'a.png'}", QUOTES),
        ('{\u201cimage\u201d: "a.png"}', QUOTES),
        ('{"image": None}', "write true, false or null"),
        ('{"instruction": "Say "hi" now"}', 'write \\\\" for each " inside of a text'.replace("\\\\", "\\")),
        ('{"image": "C:\\photos\\x.png"}', "write \\\\ for each \\ of a text, or / in a path"),
        ('{"instruction": "a\tb"}', "a text stands on one line, with \\n for the end of a line and \\t for a tab"),
        ('{"instruction": "x"},', "remove the comma behind the object"),
        ('{"instruction": "x"} {}', "each line is one JSON object"),
        ('{"image": "a.png"', "each line is one JSON object"),
    ],
)
def test_json_lines(line: str, remedy: str) -> None:
    (message,) = told("m.jsonl", line)
    assert message.startswith("m.jsonl:1: broken JSON: ")
    assert message.endswith(f" ({remedy})")


def test_a_list_in_json_lines() -> None:
    remedy = "(write each object on a line of its own, without [ ]; a file named .json holds a list)"
    assert told("m.jsonl", '[{"instruction": "x"}]') == [f"m.jsonl:1: this line is a list of items {remedy}"]
    first, last = told("m.jsonl", '[\n{"instruction": "x"}\n]\n')
    assert first.endswith(remedy)
    assert last.endswith(remedy)


def test_one_item_as_json_is_no_dataset() -> None:
    """An object of texts may be `{picture: instruction}` too, the list of some datasets."""
    assert told("m.json", '{\n "image": "a.png",\n "instruction": "x"\n}') == [
        "m.json:1: a JSON manifest is a list (write [ ... ], or name the file .jsonl)"
    ]


@pytest.mark.parametrize(
    ("text", "line", "remedy"),
    [
        ("- instruction: Make it: red\n", 1, "put the text between quotes if it has a colon and a space in it"),
        ("- instruction: x\n\timage: a.png\n", 2, "indent with spaces, not with tabs"),
        ("- image: @blue\n", 1, "put the text between quotes if it begins with @"),
    ],
)
def test_yaml(text: str, line: int, remedy: str) -> None:
    message = told("m.yaml", text)[-1]
    assert message.startswith(f"m.yaml:{line}: broken YAML: ")
    assert message.endswith(f" ({remedy})")


def test_a_table_without_a_first_line() -> None:
    assert told("m.csv", "photos/a.PNG,Make it red.\nphotos/b.png,Make it blue.\n") == [
        "m.csv:1: the first line of a table names the keys, and this one has a picture: 'photos/a.PNG' "
        "(put a line such as image,instruction above it)"
    ]


@pytest.mark.parametrize("text", ["Change the colour to", "Recolour", "Paint door 7"])
def test_a_text_that_yaml_cuts_at_a_hash(text: str) -> None:
    assert told("m.yaml", f"- instruction: {text} #ff0000 now\n  steps: 3 #few\n") == [
        "m.yaml:1: the text ends before '#ff0000', which is a comment to YAML "
        "(put the text between quotes; a comment has a space behind #)"
    ]


def test_comments_and_quoted_hashes_are_as_they_were() -> None:
    Path("m.yaml").write_text(
        "#all of them\n- instruction: Make it red. # as asked\n  id: a#1 ## note\n  seed: 7 #seven\n"
        "- instruction: 'Paint door #1'\n  id: b\n- instruction: |\n    Paint door #2\n  id: c\n"
    )
    found = open_source(("m.yaml",), SourceOptions(output=Path("out")))
    found.check()
    assert [(item.id, item.instruction.strip()) for item in found.items() if isinstance(item, EditItem)] == [
        ("a#1", "Make it red."),
        ("b", "Paint door #1"),
        ("c", "Paint door #2"),
    ]
