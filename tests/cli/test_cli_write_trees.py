"""`--write gedit|imgedit|kris|spatialedit`: the official files of benchmarks in, what their scorers read out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_command import Command
from PIL import Image

from support import datasets

RUN = ("-m", "fake", "--basesize", "256", "--steps", "1")


def files(out: str) -> list[str]:
    """The pictures and what lies beside them; not joyedit's own files."""
    found = (path.relative_to(out).as_posix() for path in sorted(Path(out).rglob("*")) if path.is_file())
    own = ("index.", "results.jsonl", "report.json", "failed.jsonl", "joyedit.log")
    return [name for name in found if not name.startswith(own)]


def kind_and_size(path: Path) -> tuple[str | None, tuple[int, int]]:
    with Image.open(path) as image:
        image.load()
        return image.format, image.size


def test_gedit(joyedit: Command) -> None:
    pytest.importorskip("pyarrow")
    rows = datasets.gedit_rows()
    rows[1]["input_image"]["bytes"] = datasets.encoded(0, "JPEG")
    datasets.write_parquet(Path("GEdit-Bench/data/train-00000-of-00001.parquet"), rows)
    ended = joyedit("run", "GEdit-Bench", *RUN, "-o", "results/joyimage", "--write", "GEdit")
    assert ended.code == 0, ended.err
    made = [
        f"fullset/{task}/{language}/{key}{end}"
        for task, key in (("color_alter", "k0"), ("subject-remove", "k1"))
        for language in ("cn", "en")
        for end in (".png", "_SRCIMG.png")
    ]
    assert files("results/joyimage") == sorted(made)
    assert {kind_and_size(Path("results/joyimage", name)) for name in made} == {("PNG", (96, 64))}
    source = Path("results/joyimage/fullset/color_alter/en/k0_SRCIMG.png")
    assert source.read_bytes() == rows[0]["input_image"]["bytes"]
    assert joyedit("verify", "results/joyimage").code == 0
    again = joyedit("run", "GEdit-Bench", *RUN, "-o", "results/joyimage", "--write", "gedit")
    assert again.code == 0
    assert "4 items" in again.err
    source.unlink()
    found = joyedit("verify", "results/joyimage")
    assert (found.code, "missing_file" in found.out) == (3, True)
    assert joyedit("run", "GEdit-Bench", *RUN, "-o", "results/joyimage", "--write", "gedit").code == 0
    assert source.read_bytes() == rows[0]["input_image"]["bytes"]
    assert joyedit("verify", "results/joyimage").code == 0


def test_imgedit(joyedit: Command) -> None:
    for number in range(3):
        datasets.save(Path(f"ImgEdit/singleturn/animal/{number}.jpg"), number)
    told = {f"{n}": {"id": f"animal/{n}.jpg", "prompt": "Make it blue.", "edit_type": "adjust"} for n in range(3)}
    Path("ImgEdit/basic_edit.json").write_text(json.dumps(told))
    argv = ("run", "ImgEdit/basic_edit.json", *RUN, "--image-root", "ImgEdit/singleturn")
    ended = joyedit(*argv, "-o", "imgedit", "--write", "imgedit")
    assert ended.code == 0, ended.err
    assert files("imgedit") == ["0.png", "1.png", "2.png"]
    assert kind_and_size(Path("imgedit/1.png")) == ("PNG", (96, 64))


def test_imgedit_of_several_turns(joyedit: Command) -> None:
    datasets.save(Path("ImgEdit/multiturn/a.png"), 1)
    told = [{"id": "a.png", "turn1": "Make it blue.", "turn2": "Make it red."}]
    Path("ImgEdit/multi.json").write_text(json.dumps(told))
    argv = ("run", "ImgEdit/multi.json", *RUN, "--image-root", "ImgEdit/multiturn")
    ended = joyedit(*argv, "-o", "turns", "--write", "imgedit")
    assert ended.code == 0, ended.err
    assert len(files("turns")) == 2
    assert all(name.startswith("0") and name.endswith(".png") for name in files("turns"))


def test_kris(joyedit: Command) -> None:
    for number in range(3):
        datasets.save(Path(f"KRIS_Bench/color_change/{number}.jpg"), number)
    told = {
        "1": {"ori_img": "0.jpg", "instruction": "Make it blue.", "explain": "a colour", "gt_img": "2.jpg"},
        "2": {"ori_img": ["0.jpg", "1.jpg"], "instruction": "Put both together.", "explain": "", "gt_img": ""},
    }
    Path("KRIS_Bench/color_change/annotation.json").write_text(json.dumps(told))
    ended = joyedit("run", "KRIS_Bench", *RUN, "-o", "kris", "--write", "kris")
    assert ended.code == 0, ended.err
    assert files("kris") == ["results/fake/color_change/1.jpg", "results/fake/color_change/2.jpg"]
    assert kind_and_size(Path("kris/results/fake/color_change/1.jpg")) == ("JPEG", (96, 64))
    refused = joyedit("run", "KRIS_Bench", *RUN, "-o", "kris2", "--write", "kris", "--format", "png")
    assert (refused.code, Path("kris2").exists()) == (2, False)
    assert "the scorer of KRIS-Bench reads JPEG" in refused.err


def spatial(folder: Path) -> Path:
    rows = []
    for number, kind in enumerate(("camera", "move", "rotate")):
        datasets.save(folder / f"images/{kind}/s{number}.jpg", number)
        told = {"image_path": f"images/{kind}/s{number}.jpg", "image_id": f"i{number}", "edit_id": f"e{number}"}
        rows.append({**told, "type": kind, "prompt": "Turn it.", "object": "square", "bbox_gt": "[0, 0, 1, 1]"})
    (folder / "images/camera/s0.json").write_text('{"yaw": 30}')
    datasets.save(folder / "images/camera/s0_gt.jpg", 4)
    (folder / "spatialedit.json").write_text(json.dumps(rows))
    return folder / "spatialedit.json"


def test_spatialedit(joyedit: Command) -> None:
    source = spatial(Path("SpatialEdit"))
    ended = joyedit("run", source, *RUN, "-o", "spatial", "--write", "spatialedit")
    assert ended.code == 0, ended.err
    assert files("spatial") == [
        "fullset/camera/en/i0/e0.png",
        "fullset/camera/en/i0/e0_gt.png",
        "fullset/camera/en/i0/s0.json",
        "fullset/move/en/i1/e1.png",
        "fullset/rotate/en/i2/e2.png",
    ]
    assert Path("spatial/fullset/camera/en/i0/s0.json").read_text() == '{"yaw": 30}'
    assert kind_and_size(Path("spatial/fullset/camera/en/i0/e0_gt.png")) == ("PNG", (96, 64))
    assert joyedit("verify", "spatial").code == 0


def test_spatialedit_without_its_camera_file_fails_before_the_edit(joyedit: Command) -> None:
    source = spatial(Path("SpatialEdit"))
    Path("SpatialEdit/images/camera/s0.json").unlink()
    ended = joyedit("run", source, *RUN, "-o", "spatial", "--write", "spatialedit")
    assert ended.code == 3
    assert "missing_file" in ended.err
    assert "s0.json: no such file" in ended.err
    assert files("spatial") == ["fullset/move/en/i1/e1.png", "fullset/rotate/en/i2/e2.png"]
    Path("SpatialEdit/images/camera/s0.json").write_text("{}")
    assert joyedit("run", source, *RUN, "-o", "spatial", "--write", "spatialedit", "--retry-failed").code == 0
    assert len(files("spatial")) == 5


@pytest.mark.parametrize(
    ("write", "fields"),
    [
        ("gedit", "task_type, instruction_language, key"),
        ("imgedit", "key"),
        ("kris", "category, key"),
        ("spatialedit", "type, image_id, edit_id"),
    ],
)
def test_another_source_is_refused_before_the_model(joyedit: Command, write: str, fields: str) -> None:
    datasets.save(Path("photos/a.png"))
    ended = joyedit("run", "photos", "-p", "x", *RUN, "-o", "out", "--write", write)
    assert (ended.code, Path("out").exists()) == (2, False)
    assert f"--write {write} needs the fields {fields}" in ended.err
    assert ended.err.count("joyedit: error") == 1
    assert "loading" not in ended.err


def test_a_row_without_a_field_fails_alone(joyedit: Command) -> None:
    pytest.importorskip("pyarrow")
    rows = datasets.gedit_rows()
    rows[2]["key"] = None
    datasets.write_parquet(Path("gedit/train.parquet"), rows)
    ended = joyedit("run", "gedit", *RUN, "-o", "out", "--write", "gedit")
    assert ended.code == 3
    assert "row=2" in ended.err
    assert "this row has no key" in ended.err
    assert len(files("out")) == 6


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--seeds", "2"), "its scorer reads one picture of each row"),
        (("--name", "{id}"), "names the pictures as their scorer wants"),
        (("--shard", "0/2"), "--write gedit and --shard exclude each other"),
        (("--shard-size", "3"), "--shard-size is for shards"),
        (("--format", "webp"), "the scorer of GEdit-Bench reads PNG"),
    ],
)
def test_what_does_not_go_together(joyedit: Command, more: tuple[str, ...], told: str) -> None:
    pytest.importorskip("pyarrow")
    datasets.write_parquet(Path("gedit/train.parquet"), datasets.gedit_rows())
    ended = joyedit("run", "gedit", *RUN, "-o", "out", "--write", "gedit", *more)
    assert (ended.code, Path("out").exists()) == (2, False)
    assert told in ended.err
