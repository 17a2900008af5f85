"""Tables, columns, missing pictures and home folders, from the command line to the records."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command

RUN = ("-m", "fake", "--basesize", "256", "--steps", "1", "-q")


def records(folder: str | Path) -> dict[str, Any]:
    found = map(json.loads, Path(folder, "results.jsonl").read_text().splitlines())
    return {record["id"]: record for record in found}


@pytest.fixture
def table(pictures: Path) -> str:
    lines = ["key;src;edit;task", "0;a.png;make it red;colour", "1;b.jpg;make it blue;colour", "2;gone.png;x;shape"]
    (pictures / "t.csv").write_bytes("\r\n".join(lines).encode("utf-16"))
    return "pictures/t.csv"


COLUMNS = ("--map", "image=src", "--map", "instruction=edit", "--ignore-columns", "key", "--keep-columns", "task")


def test_a_table_of_somebody_else(joyedit: Command, table: str) -> None:
    ended = joyedit("run", table, *RUN, "-o", "out", *COLUMNS)
    assert ended.code == 2
    assert "no such picture: 'gone.png'" in ended.err
    ended = joyedit("run", table, *RUN, "-o", "out", *COLUMNS, "--skip-missing")
    assert ended.code == 3
    found = records("out")
    assert {name: (record["status"], record["columns"]) for name, record in found.items()} == {
        "a": ("ok", {"task": "colour"}), "b": ("ok", {"task": "colour"}), "gone": ("failed", {"task": "shape"}),
    }  # fmt: skip
    assert found["gone"]["error"]["code"] == "missing_picture"
    assert [json.loads(line)["id"] for line in Path("out/failed.jsonl").read_text().splitlines()] == ["gone"]
    assert joyedit("verify", "out").code == 3


def test_the_same_command_goes_on(joyedit: Command, table: str, pictures: Path) -> None:
    joyedit("run", table, *RUN, "-o", "out", *COLUMNS, "--skip-missing")
    before = os.stat("out/a.png").st_mtime_ns
    (pictures / "gone.png").write_bytes((pictures / "a.png").read_bytes())
    assert joyedit("run", table, *RUN, "-o", "out", *COLUMNS).code == 0
    assert os.stat("out/a.png").st_mtime_ns == before
    assert joyedit("verify", "out").code == 0


def test_records_have_no_columns_unless_they_are_kept(joyedit: Command, pictures: Path) -> None:
    joyedit("run", pictures, "-p", "x", *RUN, "-o", "out")
    assert all("columns" not in record for record in records("out").values())


def test_text_to_image_is_asked_for(joyedit: Command) -> None:
    Path("t.csv").write_text("image,instruction\n,a red square\n")
    ended = joyedit("run", "t.csv", *RUN, "-o", "out")
    assert ended.code == 2
    assert "t.csv:2: image is empty, and an edit needs a picture (--text-to-image" in ended.err
    assert joyedit("run", "t.csv", *RUN, "-o", "out", "--text-to-image").code == 0
    assert joyedit("verify", "out").code == 0


def test_faults_of_the_flags_are_told_before_anything_is_read(joyedit: Command, table: str) -> None:
    ended = joyedit("run", table, *RUN, "-o", "out", "--map", "src", "--map", "imge=src")
    assert (ended.code, ended.messages) == (
        2, ["joyedit: error: --map takes KEY=COLUMN, for example image=source_img, not 'src'"]
    )  # fmt: skip
    assert not Path("out").exists()


def test_bytes_that_are_no_utf8_behind_a_flag(program: Command, pictures: Path) -> None:
    for flags in (["-p", b"caf\xe9"], ["-p", "x", "--neg-prompt", b"\xff"]):
        argv = [os.fsdecode(flag) if isinstance(flag, bytes) else flag for flag in flags]
        ended = program("run", "pictures", *argv, "-m", "nano", "-o", "out")
        assert ended.code == 2
        assert "is not valid UTF-8: " in ended.err
    assert not Path("out").exists()


def test_a_missing_picture_on_standard_input_can_be_retried(program: Command, pictures: Path) -> None:
    lines = "pictures/lost.png\npictures/a.png\n"
    ended = program("run", "-", "-p", "x", *RUN, "-o", "out", stdin=lines, env={"JOYEDIT_FAKE": "1"})
    assert ended.code == 3
    found = records("out")["pictures/lost"]
    assert found["error"]["code"] == "missing_picture"
    assert found["source"] == {"file": "-", "line": 1}
    [line] = Path("out/failed.jsonl").read_text().splitlines()
    assert json.loads(line)["image"] == str(pictures / "lost.png")


def test_a_home_folder_behind_an_equals_sign(
    joyedit: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    recipe = tmp_path / "home" / "r.yaml"
    recipe.parent.mkdir()
    recipe.write_text("instruction: x\n")
    pictures.rename(tmp_path / "home" / "pictures")
    assert joyedit("run", "~/pictures", "--recipe=~/r.yaml", *RUN, "--output=~/out").code == 0
    assert set(records(tmp_path / "home" / "out")) == {"a", "b", "deep/c"}
    assert not Path("~").exists()


def test_a_home_folder_that_does_not_exist_is_no_folder_here(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures, "-p", "x", *RUN, "--output=~nobody_here/out")
    assert (ended.code, ended.messages) == (
        2,
        ["joyedit: error: --output ~nobody_here/out: there is no home folder of this name "
         "(a folder here of this name: ./~nobody_here/out)"],
    )  # fmt: skip


def test_instructions_beside_the_pictures(joyedit: Command, pictures: Path) -> None:
    for name in ("a", "b", "deep/c"):
        (pictures / f"{name}.txt").write_text(f"edit {name}\n")
    assert joyedit("run", pictures, *RUN, "-o", "out").code == 0
    assert {record["instruction"] for record in records("out").values()} == {"edit a", "edit b", "edit deep/c"}
    (pictures / "metadata.csv").write_text("file_name,prompt\na.png,from the list\n")
    assert joyedit("run", pictures, *RUN, "-o", "listed").code == 0
    assert {record["instruction"] for record in records("listed").values()} == {"from the list"}
