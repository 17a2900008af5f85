"""`--write`: rows whose columns have the names of joyedit's, or names that no file can have; items of other names."""

from __future__ import annotations

import base64
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command
from PIL import Image

from support import datasets

RUN = ("-m", "fake", "--basesize", "256", "--steps", "1", "--no-page")
ENDINGS = {"webdataset": "tar", "parquet": "parquet"}


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def final(out: str) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in Path(out, "results.jsonl").read_text().splitlines()]
    return {line["id"]: line for line in lines}


def lines_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(out, "metadata.jsonl").read_text().splitlines()]


def files_of(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        names = opened.getnames()
        assert len({name.lower() for name in names}) == len(names)
        return {name: opened.extractfile(name).read() for name in names}  # type: ignore[union-attr]


def manifest(count: int) -> str:
    for number in range(count):
        datasets.save(Path(f"in{number}.png"), number)
    told = [{"image": f"in{n}.png", "instruction": f"Make it blue {n}.", "id": f"a{n}"} for n in range(count)]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    return "m.jsonl"


@pytest.mark.parametrize("write", ENDINGS)
def test_what_joyedit_wrote_is_a_source_again_and_again(joyedit: Command, write: str) -> None:
    """Each run adds a picture, and loses none of those before."""
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    source, made = manifest(2), []
    for number in range(4):
        out = f"g{number}"
        joyedit("run", source, *RUN, "-o", f"loose{number}", "--seed", str(number))
        made.append(Path(f"loose{number}/a1.png").read_bytes())
        ended = joyedit("run", source, *RUN, "-o", out, "--write", write, "--seed", str(number))
        assert ended.code == 0, ended.err
        assert joyedit("verify", out).out == "records 2, ok 2, failed 0, left 0, files 1, off 0\n"
        source = f"{out}/edited-000000.{ENDINGS[write]}"
    names = [f"{'joyedit_' * number}edited_image" for number in range(4)]
    if write == "parquet":
        row = pq.read_table(source).to_pylist()[1]
        held = [row[name]["bytes"] for name in names]
    else:
        held = [files_of(Path(source))[f"a1.{name}.png"] for name in names]
    assert len(set(made)) == 4
    assert held == made
    ended = joyedit(
        "run", "g2/edited-000000." + ENDINGS[write], *RUN, "-o", "g3", "--write", write, "--seed", "9", "--update"
    )
    assert ended.code == 0, ended.err
    assert joyedit("verify", "g3").code == 0


def test_an_image_folder_of_rows_that_have_the_columns_of_joyedit(joyedit: Command) -> None:
    """The result is not lost behind a picture of the row that has its name, and the row keeps its own."""
    pytest.importorskip("pyarrow")
    hf = pytest.importorskip("datasets")
    given = datasets.instructpix2pix_rows()
    given[0] |= {"mask": datasets.struct(3), "file_name": "of the row.jpg"}
    datasets.write_parquet(Path("d/train.parquet"), given)
    ended = joyedit("run", "d", *RUN, "-o", "out", "--write", "imagefolder", "--map", "image=original_image")
    assert ended.code == 0, ended.err
    [line] = lines_of("out")
    assert line["joyedit_edited_image_file_name"] == "train-000000.png"
    assert line["edited_image_file_name"] == "columns/edited_image/train-000000.png"
    assert line["original_image_file_name"] == "originals/train-000000.png"
    assert line["mask_file_name"] == "masks/train-000000.png"
    assert (line["edit_prompt"], line["file_name_text"]) == ("Make the square blue.", "of the row.jpg")
    for name in ("original_image", "edited_image", "mask"):
        assert Path("out", line[f"{name}_file_name"]).read_bytes() == given[0][name]["bytes"]
    # The name of the picture begins with that of a split: then `data_dir` alone does not find the list.
    [row] = hf.load_dataset("imagefolder", data_dir="out", data_files="**", split="train")
    with Image.open("out/train-000000.png") as edited:
        assert row["joyedit_edited_image"].tobytes() == edited.tobytes()
    assert row["file_name_text"] == "of the row.jpg"


def test_columns_that_are_the_same_name_in_an_archive(joyedit: Command) -> None:
    pytest.importorskip("pyarrow")
    row = {"image": datasets.struct(0), "a b": datasets.struct(1), "a_b": datasets.struct(2), "A_B": datasets.struct(3)}
    datasets.write_parquet(Path("d/train.parquet"), [{**row, "instruction": "x"}])
    assert joyedit("run", "d", *RUN, "-o", "out", "--write", "webdataset").code == 0
    found = files_of(Path("out/edited-000000.tar"))
    held = [found[f"train-000000.{name}.png"] for name in ("image", "a_b", "A_B-2", "a_b-3")]
    assert held == [row[name]["bytes"] for name in ("image", "a_b", "A_B", "a b")]


def test_a_column_with_a_dot_keeps_its_name(joyedit: Command) -> None:
    members = [
        ("0.jpg", datasets.encoded(0, "JPEG")),
        ("0.seg.v2.png", datasets.encoded(1)),
        ("0.txt", "Make it blue."),
    ]
    datasets.write_tar(Path("x.tar"), members)
    ended = joyedit("run", "x.tar", "--map", "image=jpg", *RUN, "-o", "out", "--write", "webdataset")
    assert ended.code == 0, ended.err
    assert files_of(Path("out/edited-000000.tar"))["0.seg.v2.png"] == datasets.encoded(1)


def test_a_column_with_a_slash_in_an_image_folder(joyedit: Command) -> None:
    pytest.importorskip("pyarrow")
    row = {"image": datasets.struct(0), "obs/left": datasets.struct(1), "instruction": "x", "id": "deep/a"}
    datasets.write_parquet(Path("d/train.parquet"), [row])
    ended = joyedit("run", "d", *RUN, "-o", "out", "--write", "imagefolder", "--map", "id=id")
    assert ended.code == 0, ended.err
    [line] = lines_of("out")
    assert Path("out", line["obs/left_file_name"]).read_bytes() == datasets.encoded(1)


def test_an_item_whose_name_is_that_of_the_second_original_of_another(joyedit: Command) -> None:
    manifest(3)
    told = [{"images": ["in0.png", "in1.png"], "id": "a"}, {"image": "in2.png", "id": "a_2"}]
    Path("m.jsonl").write_text("".join(json.dumps({**line, "instruction": "x"}) + "\n" for line in told))
    ended = joyedit("run", "m.jsonl", *RUN, "-o", "out", "--write", "imagefolder")
    assert ended.code == 0, ended.err
    [first, second] = lines_of("out")
    found = [first["original_image_file_name"], first["original_image_2_file_name"], second["original_image_file_name"]]
    assert [Path("out", name).read_bytes() for name in found] == [datasets.encoded(n) for n in range(3)]


@pytest.mark.parametrize("write", [*ENDINGS, "imagefolder"])
def test_an_item_that_was_finished_under_another_default_id(joyedit: Command, write: str) -> None:
    """`a0` of an earlier run is `a0.png` since there is also a `a0.jpg`. Its picture belongs to the dataset too."""
    if write == "parquet":
        pytest.importorskip("pyarrow")
    for number in range(2):
        datasets.save(Path(f"f/a{number}.png"), number)
    assert joyedit("run", "f", "-p", "x", *RUN, "-o", "out").code == 0
    datasets.drawn(4).save("f/a0.jpg")
    for _ in range(2):
        ended = joyedit("run", "f", "-p", "x", *RUN, "-o", "out", "--write", write)
        assert ended.code == 0, ended.err
    assert sorted(final("out")) == ["a0", "a0.jpg", "a1"]
    assert joyedit("verify", "out").code == 0
    if write == "imagefolder":
        found = [(line["edited_image_file_name"], line["original_image_file_name"]) for line in lines_of("out")]
        assert found == [
            ("a0.jpg.png", "originals/a0.jpg.jpg"), ("a0.png", "originals/a0.png"), ("a1.png", "originals/a1.png"),
        ]  # fmt: skip
        return
    shard = f"edited-000000.{ENDINGS[write]}"
    assert [record["output"].partition("#")[0] for record in final("out").values()] == [shard] * 3
    assert not list(Path("out").glob("*.png"))
    length = len(Path("out/results.jsonl").read_text().splitlines())
    assert length == 6, "three edits, and three times into the shard"


@pytest.mark.parametrize("flags", [("--retry-failed",), ("--trust-journal",)])
def test_an_original_that_is_gone_does_not_stop_the_others(joyedit: Command, flags: tuple[str, ...]) -> None:
    source = manifest(4)
    assert joyedit("run", source, *RUN, "-o", "out").code == 0
    os.remove("in1.png")
    ended = joyedit("run", source, *RUN, "-o", "out", "--write", "imagefolder", *flags)
    assert ended.code == 3
    assert "in1.png" in ended.err
    assert sorted(path.name for path in Path("out/originals").iterdir()) == ["a0.png", "a2.png", "a3.png"]
    assert len(lines_of("out")) == (4 if flags == ("--retry-failed",) else 3)


def test_a_list_of_the_user_is_not_replaced(joyedit: Command) -> None:
    source = manifest(2)
    assert joyedit("run", source, *RUN, "-o", "out").code == 0
    Path("out/metadata.jsonl").write_text('{"file_name": "a0.png", "mine": 1}\n')
    ended = joyedit("run", source, *RUN, "-o", "out", "--write", "imagefolder")
    assert ended.code == 2
    assert "metadata.jsonl: this file is not from joyedit" in ended.err
    assert json.loads(Path("out/metadata.jsonl").read_text()) == {"file_name": "a0.png", "mine": 1}
    Path("out/metadata.jsonl").unlink()
    for _ in range(2):
        assert joyedit("run", source, *RUN, "-o", "out", "--write", "imagefolder").code == 0


@pytest.mark.parametrize("write", [*ENDINGS, "imagefolder"])
def test_finished_loose_pictures_of_a_dataset_become_what_a_run_at_once_writes(joyedit: Command, write: str) -> None:
    """Their records had no need of the pictures of the rows, and of what the instruction was read from."""
    pytest.importorskip("pyarrow")
    datasets.write_parquet(Path("d/train.parquet"), datasets.magicbrush_rows())
    assert joyedit("run", "d", *RUN, "-o", "at-once", "--write", write).code == 0
    assert joyedit("run", "d", *RUN, "-o", "later").code == 0
    ended = joyedit("run", "d", *RUN, "-o", "later", "--write", write)
    assert (ended.code, "2 items are already done" in ended.err) == (0, True), ended.err
    assert joyedit("verify", "later").code == 0
    name = "metadata.jsonl" if write == "imagefolder" else f"edited-000000.{ENDINGS[write]}"
    assert Path("later", name).read_bytes() == Path("at-once", name).read_bytes()
    before = Path("later/results.jsonl").read_bytes()
    assert joyedit("run", "d", *RUN, "-o", "later", "--write", write).code == 0
    assert Path("later/results.jsonl").read_bytes() == before, "the third time nothing is left to do"


def test_columns_that_are_named_later_come_into_the_shards(joyedit: Command) -> None:
    source = manifest(3)
    told = [
        {**json.loads(line), "topic": f"t{n}", "by": "x"}
        for n, line in enumerate(Path(source).read_text().splitlines())
    ]
    Path(source).write_text("".join(json.dumps(line) + "\n" for line in told))
    argv = ("run", source, *RUN, "-o", "out", "--write", "webdataset")
    assert joyedit(*argv, "--keep-columns", "topic", "--ignore-columns", "by").code == 0
    ended = joyedit(*argv, "--keep-columns", "topic,by")
    assert (ended.code, "3 items are already done" in ended.err) == (0, True), ended.err
    held = [json.loads(data) for name, data in files_of(Path("out/edited-000000.tar")).items() if name.endswith("json")]
    assert [(one["topic"], one["by"]) for one in held] == [(f"t{n}", "x") for n in range(3)]
    assert joyedit("verify", "out").code == 0


def test_a_file_of_the_user_under_the_name_of_a_packed_picture_stays(joyedit: Command) -> None:
    source = manifest(2)
    argv = ("run", source, *RUN, "-o", "out", "--write", "webdataset")
    assert joyedit(*argv).code == 0
    Path("out/a0.png").write_text("mine")
    for more, code in (((), 0), (("--seed", "3", "--update"), 3), (("--seed", "3", "--update", "--retry-failed"), 3)):
        assert joyedit(*argv, *more).code == code
        assert Path("out/a0.png").read_text() == "mine"
    Path("out/a0.png").unlink()
    assert joyedit(*argv, "--seed", "3", "--update", "--retry-failed").code == 0
    assert joyedit("verify", "out").code == 0


@pytest.mark.parametrize("write", ENDINGS)
def test_a_shard_is_written_anew_although_lines_left_the_source_with_their_pictures(
    joyedit: Command, write: str
) -> None:
    """The shard itself holds what is gone by now: a file, a mask, and a picture in its line."""
    if write == "parquet":
        pytest.importorskip("pyarrow")
    told = [json.loads(line) for line in Path(manifest(4)).read_text().splitlines()]
    Image.new("L", (96, 64), 255).save("mask.png")
    told[1]["mask"] = "mask.png"
    told[2]["image"] = "data:image/png;base64," + base64.b64encode(datasets.encoded(2)).decode()
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    argv = ("run", "m.jsonl", *RUN, "-o", "out", "--write", write)
    assert joyedit(*argv).code == 0
    before = pictures_of(write)
    for name in ("in0.png", "in1.png", "mask.png"):
        os.remove(name)
    Path("m.jsonl").write_text(json.dumps({**told[3], "seed": 7}) + "\n")
    ended = joyedit(*argv)
    assert ended.code == 0, ended.err
    assert joyedit("verify", "out").code == 0
    after = pictures_of(write)
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] != before[name]] == [("a3", "edited_image")]


def pictures_of(write: str) -> dict[tuple[str, str], bytes]:
    if write == "webdataset":
        found = files_of(Path("out/edited-000000.tar"))
        return {(name[:2], name[3:-4]): data for name, data in found.items() if name.endswith(".png")}
    import pyarrow.parquet as pq

    rows = pq.read_table("out/edited-000000.parquet").to_pylist()
    return {(row["id"], name): held["bytes"] for row in rows for name, held in row.items() if isinstance(held, dict)}


def test_an_item_that_left_the_source_before_its_shard_was_written_anew_holds_no_other_back(joyedit: Command) -> None:
    told = [json.loads(line) for line in Path(manifest(3)).read_text().splitlines()]
    argv = ("run", "m.jsonl", *RUN, "-o", "out", "--write", "webdataset")

    def run_with(lines: list[dict[str, Any]], *more: str) -> int:
        Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return joyedit(*argv, *more).code

    assert run_with(told) == 0
    Path("in1.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    assert run_with([{**told[0], "seed": 7}, {**told[1], "seed": 7}, told[2]]) == 3, "the new a0 waits for a1"
    os.remove("in0.png")
    assert run_with([{**told[2], "seed": 9}]) == 0
    assert sorted(name for name, _ in pictures_of("webdataset")) == ["a1", "a1", "a2", "a2"]
    assert final("out")["a0"]["output"] == "a0.png", "its finished picture is there, as a file"
    assert joyedit("verify", "out").code == 3, "a1 failed last"


def test_an_image_folder_goes_on_after_a_run_without_the_flag(joyedit: Command) -> None:
    """That run edits an item again and writes nothing beside it: what lies there is still joyedit's own."""
    source = manifest(2)
    argv = ("run", source, *RUN, "-o", "out")
    assert joyedit(*argv, "--write", "imagefolder").code == 0
    for number, write in ((5, ()), (6, ("--write", "imagefolder"))):
        datasets.save(Path("in0.png"), number)
        assert joyedit(*argv, *write).code == 0
    assert Path("out/originals/a0.png").read_bytes() == datasets.encoded(6)
    assert joyedit("verify", "out").code == 0


def test_the_original_of_an_item_with_another_default_id_lies_there_once(joyedit: Command) -> None:
    datasets.save(Path("f/a0.png"), 0)
    argv = ("run", "f", "-p", "x", *RUN, "-o", "out", "--write", "imagefolder")
    assert joyedit(*argv).code == 0
    datasets.drawn(4).save("f/a0.jpg")
    assert joyedit(*argv, "--seed", "3", "--update").code == 0
    assert sorted(path.name for path in Path("out/originals").iterdir()) == ["a0.jpg.jpg", "a0.png.png"]
    assert joyedit("verify", "out").code == 0
