"""What a dataset says of a finished item: its columns, and the bytes of its pictures as they were seen."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import ItemError, Problem
from joyedit.job.writing.picture_endings import ending_of
from joyedit.job.writing.samples import Columns, Sample, about_in, own_name, sample_keys
from joyedit.job.writing.shard_names import kind_of, shard_name, shards_in
from joyedit.job.writing.trees import TREES
from support.datasets import encoded


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    data, edited = encoded(0), encoded(1)
    (tmp_path / "in.png").write_bytes(data)
    (tmp_path / "a.png").write_bytes(edited)
    return {
        "id": "a", "status": "ok", "instruction": "Make it blue.", "inputs": [str(tmp_path / "in.png")],
        "output": "a.png", "output_sha256": sha256(edited), "output_bytes": len(edited),
        "inputs_seen": [[sha256(data), len(data), 0, 0]], "settings": {"seed": 7, "model": "/models/x"},
    }  # fmt: skip


def sample(folder: Path, record: dict[str, Any]) -> Sample:
    return Sample.of(folder, record, lambda name: None)


def test_columns_are_those_of_instructpix2pix(tmp_path: Path, record: dict[str, Any]) -> None:
    one = sample(tmp_path, record)
    columns = Columns.of([one])
    found = dict(columns.pictures_of(one))
    assert {name: pictures[0].data for name, pictures in found.items()} == {
        "edited_image": encoded(1),
        "original_image": encoded(0),
    }
    assert columns.values_of(one) == {"id": "a", "edit_prompt": "Make it blue."}
    assert one.about()["settings"] == {"seed": 7, "model": "x"}, "no path of this machine"


def test_a_column_of_the_row_keeps_its_name(tmp_path: Path, record: dict[str, Any]) -> None:
    (tmp_path / "target.png").write_bytes(encoded(5))
    held = {
        "pictures": {"edited_image": str(tmp_path / "target.png")},
        "values": {"id": 17, "edit_prompt": "Make it blue."},
    }
    one = sample(tmp_path, {**record, "row": {**held, "edited": None}})
    columns = Columns.of([one])
    found = {name: [one.data for one in several] for name, several in columns.pictures_of(one)}
    assert found["edited_image"] == [encoded(5)]
    assert found["joyedit_edited_image"] == [encoded(1)]
    assert columns.values_of(one) == {"joyedit_id": "a", "id": 17, "edit_prompt": "Make it blue."}


def test_an_id_that_is_a_number_in_the_row_is_no_other_id(tmp_path: Path, record: dict[str, Any]) -> None:
    one = sample(tmp_path, {**record, "id": "17", "row": {"values": {"id": 17}, "pictures": {}, "edited": None}})
    assert Columns.of([one]).values_of(one) == {"id": 17, "edit_prompt": "Make it blue."}


def test_what_changed_since_is_refused(tmp_path: Path, record: dict[str, Any]) -> None:
    one = sample(tmp_path, record)
    (tmp_path / "in.png").write_bytes(encoded(3))
    with pytest.raises(ItemError, match=r"in\.png changed since a was edited"):
        one.original(0)
    (tmp_path / "in.png").unlink()
    with pytest.raises(ItemError, match="No such file"):
        one.original(0)
    (tmp_path / "a.png").write_bytes(encoded(4))
    with pytest.raises(ItemError, match="--update"):
        one.edited()


def test_keys_have_no_dots_and_are_apart(tmp_path: Path, record: dict[str, Any]) -> None:
    names = ("a.b.png", "a_b.png", "deep/.c.png", "A_B.png")
    assert sample_keys(sample(tmp_path, {**record, "output": name}) for name in names) == [
        "a_b", "a_b-2", "deep/_c", "A_B-3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "number"),
    [
        ("edited-000003.tar", "webdataset", 3),
        ("edited-000003.partial.parquet", "parquet", 3),
        ("edited-1234567.tar", "webdataset", 1234567),
        ("edited-3.tar", None, None),
        ("train-000003.tar", None, None),
    ],
)
def test_names_of_shards(tmp_path: Path, name: str, kind: str | None, number: int | None) -> None:
    assert kind_of(name) == kind
    (tmp_path / name).touch()
    assert list(shards_in(tmp_path)) == ([] if kind is None else [name])
    if kind is not None and number is not None:
        assert shard_name(number, kind, is_partial="partial" in name) == name


@pytest.mark.parametrize(
    ("begin", "ending"),
    [
        (b"\x89PNG\r\n\x1a\n", ".png"), (b"\xff\xd8\xff\xe0", ".jpg"), (b"RIFF....WEBPVP8 ", ".webp"),
        (b"....ftypavif", ".avif"), (b"II*\0", ".tif"), (b"?", ".png"),
    ],
)  # fmt: skip
def test_endings_by_content(begin: bytes, ending: str) -> None:
    assert ending_of(begin) == ending
    assert ending_of(b"?", "x.JPEG") == ".jpeg"


def test_a_tree_names_what_a_row_lacks() -> None:
    row = {"task_type": "color", "instruction_language": "en", "key": "k/1"}
    tree = TREES["gedit"]
    assert tree.name({**row, "key": "k1"}) == "fullset/color/en/k1"
    assert tree.name({**row, "key": 7}) == "fullset/color/en/7"
    for wrong in ("k/1", "..", None, "", True):
        assert isinstance(tree.name({**row, "key": wrong}), Problem)


@pytest.mark.parametrize(
    ("name", "taken", "made"),
    [
        ("edited_image", (), "edited_image"),
        ("edited_image", ("edited_image",), "joyedit_edited_image"),
        ("edited_image", ("edited_image", "joyedit_edited_image"), "joyedit_joyedit_edited_image"),
        ("joyedit", ("joyedit_joyedit",), "joyedit_joyedit_joyedit"),
        ("original_image", ("original_image_2",), "joyedit_original_image"),
        ("mask", ("mask_2", "unmask"), "mask"),
    ],
)
def test_no_column_of_joyedit_has_the_name_of_one_of_the_row(name: str, taken: tuple[str, ...], made: str) -> None:
    assert own_name(name, taken) == made
    assert name != "joyedit" or about_in((*taken, made)) == made
