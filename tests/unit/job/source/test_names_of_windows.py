"""Characters that Windows and file servers do not allow in names: default ids go round them, given ids are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from joyedit.errors import ManifestError
from joyedit.job.source.names import earlier_name, earlier_problem, name_problem, safe_name
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.spec import EditItem

FOREIGN = '<>"|?*'


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pictures(*names: str) -> None:
    for name in names:
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(Path("in", name))


def items(source: str, **given: Any) -> dict[str, EditItem]:
    opened = open_source(source, SourceOptions(**{"output": Path("out"), "prompt": "x", **given}))
    opened.check()
    got = [item for item in opened.items() if isinstance(item, EditItem)]
    assert len({item.output.casefold() for item in got}) == len(got)
    return {item.images[0].name: item for item in got}


def from_manifest(*names: str) -> dict[str, EditItem]:
    Path("in/m.jsonl").write_text("".join(json.dumps({"image": name, "instruction": "x"}) + "\n" for name in names))
    return items("in/m.jsonl")


@pytest.mark.parametrize("character", FOREIGN)
def test_each_character(character: str) -> None:
    name = f"a{character}b"
    assert name_problem(name) == f"contains {character}, which no name on Windows can hold"
    assert (safe_name(name), earlier_name(name), earlier_problem(name)) == ("a_b", name, None)


@given(st.text(st.sampled_from("ab<>?*:\\. /\n\u00e9\ud800C")), st.just("con"))
@settings(max_examples=200, deadline=None)
def test_what_was_fine_stays_and_what_was_made_is_known(name: str, reserved: str) -> None:
    for one in (name, f"{reserved}/{name}"):
        if not set(one) & set(FOREIGN):
            assert safe_name(one) == earlier_name(one)
        assert name_problem(safe_name(one)) is None
        assert earlier_problem(earlier_name(one)) is None


def test_a_folder() -> None:
    pictures("is it?.png", "sub*/a.png", "plain.png")
    got = items("in")
    assert {name: item.id for name, item in got.items()} == {
        "is it?.png": "is it_", "a.png": "sub_/a", "plain.png": "plain",
    }  # fmt: skip
    assert "is it?" in got["is it?.png"].other_ids
    assert "sub*/a" in got["a.png"].other_ids
    assert from_manifest("is it?.png", "sub*/a.png", "plain.png")["is it?.png"].id == "is it_"


ALIKE = ("a?.png", "a*.png", "a_.png", "a:.png", "a .png")


def test_names_that_become_one_have_ids_of_their_own_in_any_order() -> None:
    pictures(*ALIKE)
    walked = {name: item.id for name, item in items("in").items()}
    assert len(set(walked.values())) == len(ALIKE)
    assert all(name.startswith("a_.png-") or name == "a .png" for name in walked.values())
    read = {name: item.id for name, item in from_manifest(*ALIKE).items()}
    assert read == {name: item.id for name, item in from_manifest(*reversed(ALIKE)).items()}
    assert len(set(read.values())) == len(ALIKE)


def test_a_neighbour_keeps_what_it_has_finished() -> None:
    pictures("a_.png")
    before = items("in")["a_.png"].id
    assert before == "a_"
    pictures("a?.png")
    got = items("in")
    assert before in got["a_.png"].other_ids
    assert "a?" in got["a?.png"].other_ids


@pytest.mark.parametrize("character", FOREIGN)
@pytest.mark.parametrize("key", ["id", "output"])
def test_a_given_name_is_checked(key: str, character: str) -> None:
    pictures("a.png")
    name = f"x{character}" + (".png" if key == "output" else "")
    Path("in/m.jsonl").write_text(json.dumps({"image": "a.png", "instruction": "x", key: name}))
    with pytest.raises(ManifestError, match="which no name on Windows can hold") as error:
        items("in/m.jsonl")
    assert str(error.value).startswith(f"in/m.jsonl:1: the {key} ")
