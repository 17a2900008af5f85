"""Names of results in manifests: what they stand for, in which shard they are, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import ManifestError
from joyedit.job.shard import Shard
from joyedit.job.source.matrix import Axis, Matrix
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.source.turn_links import chains_of
from joyedit.job.spec import EditItem, FailedItem


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "@a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(name)


def options(**more: Any) -> SourceOptions:
    return SourceOptions(output=Path("out"), **more)


def line(name: str | None, image: Any = "a.png", **more: Any) -> dict[str, Any]:
    pictures = {"images": image} if isinstance(image, list) else {"image": image}
    said = {} if "turns" in more else {"instruction": "x"}
    return {**pictures, **said, **({} if name is None else {"id": name}), **more}


def source(*lines: dict[str, Any], **more: Any) -> Any:
    Path("m.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return open_source("m.jsonl", options(**more))


def items(*lines: dict[str, Any], **more: Any) -> dict[str, EditItem]:
    opened = source(*lines, **more)
    opened.check()
    return {one.id: one for one in opened.items() if isinstance(one, EditItem)}


def problems(*lines: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(ManifestError) as refused:
        source(*lines, **more).check()
    return [str(one) for one in refused.value.problems]


def test_names_in_any_order() -> None:
    found = items(line("c", "@b"), line("b", ["b.png", "@a"]), line("a"))
    assert found["c"].earlier == ("b",)
    assert found["b"].earlier == (None, "a")
    assert found["b"].images == (Path("b.png"), Path("@a"))
    assert found["a"].earlier == ()
    assert source(line("c", "@b"), line("b")).referred() == {"b"}
    assert not source(line("a")).referred()


def test_default_ids() -> None:
    found = items(line(None), line(None, "@a"), line(None, "@a-edited", instruction="y"))
    assert {name: one.earlier for name, one in found.items()} == {
        "a": (), "a-edited": ("a",), "a-edited-edited": ("a-edited",)
    }  # fmt: skip
    assert found["a-edited"].output == "a-edited.png"


def test_a_file_of_such_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert items(line("x", "./@a.png"))["x"].images == (Path("./@a.png"),)
    assert problems(line("x", "@a.png")) == [
        "m.jsonl:1: '@a.png' is the result of no item: there is none of the id 'a.png' "
        "(correct the id; a file of this name is './@a.png')"
    ]
    Path("list.txt").write_text("@a.png\n")
    for name in ("@a.png", "@list.txt"):  # a picture, and a list of paths, name no results
        opened = open_source(name, options(prompt="x"))
        opened.check()
        (one,) = opened.items()
        assert isinstance(one, EditItem)
        assert (one.id, one.earlier) == ("@a", ())


def test_refusals() -> None:
    assert problems(
        line("a", "@a"),
        line("b", "@d"),
        line("c", "@b"),
        line("d", "@c"),
        line("e", "@f"),
        line("deep/g"),
        line("h", "@g"),
    ) == [
        "m.jsonl:1: the item 'a' begins with its own result (name an earlier item)",
        "m.jsonl:5: '@f' is the result of no item: there is none of the id 'f' "
        "(correct the id; a file of this name is './@f')",
        "m.jsonl:7: '@g' is the result of no item: there is none of the id 'g' (did you mean '@deep/g'?)",
        "m.jsonl:2: these items wait for each other's results: 'b' -> 'd' -> 'c' -> 'b' "
        "(let one of them begin with a file)",
    ]
    assert problems(line("b", "@a"), line("a"), limit=1) == [
        "m.jsonl:1: '@a' is the result of an item that --limit leaves out "
        "(raise the limit, or put that item before this one)"
    ]
    assert items(line("a"), line("b", "@a"), line("c", "@b"), limit=2).keys() == {"a", "b"}


def test_a_faulty_line_is_told_alone() -> None:
    """What names the item of a faulty line is no fault of its own."""
    assert problems(line("a", "missing.png"), line("b", "@a")) == [
        f"m.jsonl:1: no such picture: 'missing.png' (paths are relative to {str(Path.cwd())!r})"
    ]


def test_a_long_circle_is_told_once() -> None:
    lines = [line(f"t{n}", f"@t{(n + 1) % 50}") for n in range(50)]
    (told,) = problems(*lines, line("z", "@t0"))
    assert "'t0' -> 't1' -> 't2' -> '...' -> 't0'" in told


def test_turns_of_one_line() -> None:
    found = items(line("m", ["b.png", "a.png"], turns=["one", "two", "three"], seed=3))
    told = {name: (one.instruction, one.images, one.earlier, one.chain) for name, one in found.items()}
    assert told == {
        "m-turn1": ("one", (Path("b.png"), Path("a.png")), (), None),
        "m-turn2": ("two", (Path("b.png"), Path("@m-turn1")), (None, "m-turn1"), "m-turn1"),
        "m-turn3": ("three", (Path("b.png"), Path("@m-turn2")), (None, "m-turn2"), "m-turn1"),
    }
    assert {one.sampling.seed for one in found.values()} == {3}
    assert items(line("m", [], turns=["draw", "edit"]))["m-turn2"].images == (Path("@m-turn1"),)
    assert items(line(None, turns=["one", "two"])).keys() == {"a-turn1", "a-turn2"}


def test_turns_and_other_keys() -> None:
    assert problems(line("m", turns=["one"], instruction="x", output="m.png")) == [
        "m.jsonl:1: 'turns' and 'instruction' are both given, and each of them is an instruction "
        "(leave 'instruction' out)",
        "m.jsonl:1: 'turns' and 'output' are both given, and they make several pictures (leave 'output' out)",
    ]
    (told,) = problems(line("m", turns=["one"], box=[0, 0, 9, 9]))
    assert told.startswith("m.jsonl:1: a red box is drawn on one picture, and turns make several")
    assert problems(line("m", turns=[])) == [
        "m.jsonl:1: turns must be a list of 1 to 64 instructions, not an empty list"
    ]
    (told,) = problems(line("m", turns=["one", "two"]), line("n", "@m"))
    assert told == "m.jsonl:2: 'm' stands for several items (name one of them: '@m-turn1', '@m-turn2')"


def test_turns_in_each_kind_of_manifest() -> None:
    texts = {
        "json": '[{"image": "a.png", "id": "m", "turns": ["one", "two"]}, {"image": "@m-turn2", "instruction": "x"}]',
        "yaml": "- {image: a.png, id: m, turns: [one, two]}\n- {image: '@m-turn2', instruction: x}\n",
        "csv": 'image,id,turns,instruction\na.png,m,"[""one"", ""two""]",\n@m-turn2,,,x\n',
    }
    for kind, text in texts.items():
        Path(f"m.{kind}").write_text(text)
        opened = open_source(f"m.{kind}", options())
        opened.check()
        assert [one.id for one in opened.items()] == ["m-turn1", "m-turn2", "m-turn2-edited"], kind


SEEDS = Matrix(axes=(Axis(key="seed", count=2),))


def test_a_matrix_keeps_to_its_cell() -> None:
    found = items(line("a"), line("b", "@a"), line("m", turns=["one", "two"]), matrix=SEEDS)
    assert found["b_seed-43"].earlier == ("a_seed-43",)
    assert found["m-turn2_seed-42"].earlier == ("m-turn1_seed-42",)
    assert len(found) == 8


def test_a_matrix_of_some_lines() -> None:
    found = items(line("a"), line("b", "@a", seeds=2))  # several edits of one result
    assert [one.earlier for one in found.values()] == [(), ("a",), ("a",)]
    found = items(line("a", seeds=2), line("b", "@a", seeds=2), line("c", "@a_seed-43"))
    assert found["b_seed-42"].earlier == ("a_seed-42",)
    assert found["c"].earlier == ("a_seed-43",)
    (told,) = problems(line("a", seeds=5), line("c", "@a"))
    assert told == (
        "m.jsonl:2: 'a' stands for several items (name one of them: '@a_seed-42', '@a_seed-43', '@a_seed-44', ...)"
    )


def test_a_chain_is_in_one_shard() -> None:
    lines = [one for n in range(40) for one in (line(f"z{n}", f"@y{n}"), line(f"y{n}", f"@x{n}"), line(f"x{n}"))]
    seen: dict[str, int] = {}
    for number in (1, 2, 3):
        opened = source(*lines, shard=Shard(3, number))
        assert opened.check().items == len(list(opened.items()))
        for one in opened.items():
            assert one.id not in seen
            seen[one.id] = number
    assert len(seen) == 120
    assert len(set(seen.values())) == 3
    assert all(seen[f"x{n}"] == seen[f"y{n}"] == seen[f"z{n}"] for n in range(40))
    assert all(Shard(3, seen[f"x{n}"]).holds(f"x{n}") for n in range(40))  # as without turns


def test_chains_that_meet_are_one() -> None:
    made = chains_of({"c": ["a", "b"], "d": ["c"], "f": ["e"]})
    assert made == {"b": "a", "c": "a", "d": "a", "f": "e"}


def stdin(*lines: dict[str, Any]) -> Iterator[EditItem | FailedItem]:
    text = "".join(json.dumps(one) + "\n" for one in lines)
    opened = open_source("-", options(), io.BytesIO(text.encode()))
    assert opened.referred() is None
    opened.check()
    return opened.items()


def test_standard_input_names_what_came() -> None:
    first, second, third, fourth = stdin(line("a"), line("b", "@a"), line("c", "@d"), line("d", "@b"))
    assert isinstance(second, EditItem)
    assert isinstance(fourth, EditItem)
    assert (second.earlier, fourth.earlier, fourth.chain) == (("a",), ("b",), "a")
    assert isinstance(third, FailedItem)
    assert (third.code, third.message) == (
        "bad_line",
        "-:3: '@d' is the result of no item before this one (an item comes before those that name it)",
    )
    assert first.id == "a"
    with pytest.raises(ManifestError, match="-:1: '@x' is the result of no item before this one"):
        next(stdin(line("b", "@x")))
