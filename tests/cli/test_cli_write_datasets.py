"""`--write webdataset|parquet|imagefolder`: read back by the libraries that people train with, field by field."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command
from PIL import Image

from joyedit import UsageError, run
from support import datasets

RUN = ("-m", "fake", "--basesize", "256", "--steps", "1", "--no-page")


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def records(out: str) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in Path(out, "results.jsonl").read_text().splitlines()]
    return {line["id"]: line for line in lines}


def rows_of(pattern: str) -> list[dict[str, Any]]:
    """The rows of Parquet shards as `datasets` gives them, with pictures as bytes."""
    hf = pytest.importorskip("datasets")
    found = hf.load_dataset("parquet", data_files=pattern, split="train")
    assert all(isinstance(one, hf.Image) for name, one in found.features.items() if name.endswith(("_image", "_img")))
    for name, kind in found.features.items():
        if isinstance(kind, hf.Image):
            found = found.cast_column(name, hf.Image(decode=False))
    return [dict(row) for row in found]


def samples_of(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The samples of archives as `webdataset` gives them. It leaves files open, so they are opened for it."""
    wds = pytest.importorskip("webdataset.tariterators")
    for path in sorted(paths):
        with open(path, "rb") as stream:
            files = wds.tar_file_expander([{"url": str(path), "stream": stream}], handler=wds.reraise_exception)
            yield from list(wds.group_by_keys(files, handler=wds.reraise_exception))


def decoded(data: bytes) -> tuple[tuple[int, int], bytes]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size, image.convert("RGB").tobytes()


def manifest(count: int = 5) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for number in range(count):
        datasets.save(Path(f"in{number}.png"), number)
        lines.append({"image": f"in{number}.png", "instruction": f"Make it blue {number}.", "id": f"a{number}"})
    return lines


def write_lines(lines: Iterable[dict[str, Any]], name: str = "m.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return name


def test_parquet_of_a_manifest_trains_instructpix2pix(joyedit: Command) -> None:
    source = write_lines({**line, "topic": f"t{n}"} for n, line in enumerate(manifest()))
    argv = ("run", source, *RUN, "-o", "out", "--write", "parquet", "--shard-size", "2", "--keep-columns", "topic")
    ended = joyedit(*argv)
    assert ended.code == 0, ended.err
    assert [path.name for path in sorted(Path("out").glob("edited-*"))] == [
        f"edited-00000{n}.parquet" for n in range(3)
    ]
    rows = rows_of("out/edited-*.parquet")
    assert [row["id"] for row in rows] == [f"a{n}" for n in range(5)]
    for number, row in enumerate(rows):
        assert row["edit_prompt"] == f"Make it blue {number}."
        assert row["topic"] == f"t{number}"
        assert row["original_image"]["bytes"] == Path(f"in{number}.png").read_bytes()
        about = json.loads(row["joyedit"])
        assert (about["id"], about["settings"]["steps"], about["settings"]["seed"]) == (f"a{number}", 1, 42)
        assert decoded(row["edited_image"]["bytes"])[0] == (96, 64)
        assert row["edited_image"]["path"] == f"a{number}.png"
    assert not list(Path("out").glob("*.png"))
    assert joyedit("verify", "out").out == "records 5, ok 5, failed 0, left 0, files 3, off 0\n"
    again = joyedit(*argv)
    assert again.code == 0
    assert "5 items" in again.err


def test_the_same_pictures_as_in_a_folder(joyedit: Command) -> None:
    source = write_lines(manifest())
    assert joyedit("run", source, *RUN, "-o", "loose").code == 0
    assert joyedit("run", source, *RUN, "-o", "tar", "--write", "webdataset").code == 0
    [sample, *_] = found = list(samples_of(Path("tar").glob("*.tar")))
    assert sample.keys() == {"__key__", "__url__", "edited_image.png", "original_image.png", "txt", "json"}
    for number, one in enumerate(found):
        assert one["__key__"] == f"a{number}"
        assert one["edited_image.png"] == Path(f"loose/a{number}.png").read_bytes()
        assert one["original_image.png"] == Path(f"in{number}.png").read_bytes()
        assert one["txt"].decode() == f"Make it blue {number}."
        assert json.loads(one["json"])["joyedit"]["settings"]["seed"] == 42
    assert joyedit("run", source, *RUN, "-o", "loose", "--write", "WebDataset").code == 0, "what is done is only packed"
    assert Path("loose/edited-000000.tar").read_bytes() == Path("tar/edited-000000.tar").read_bytes()
    assert len(Path("loose/results.jsonl").read_text().splitlines()) == 10


PUBLISHED = {
    "gedit": (datasets.gedit_rows, {"input_image", "input_image_raw"}),
    "magicbrush": (datasets.magicbrush_rows, {"source_img", "mask_img", "target_img"}),
    "omniedit": (datasets.omniedit_rows, {"src_img", "edited_img"}),
    "hq-edit": (datasets.hq_edit_rows, {"input_image", "output_image"}),
    "instructpix2pix": (datasets.instructpix2pix_rows, {"original_image", "edited_image"}),
}


def fields(rows: Iterable[dict[str, Any]], pictures: set[str]) -> list[dict[str, Any]]:
    return [{k: v["bytes"] if k in pictures else v for k, v in row.items()} for row in rows]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_dataset_loses_no_field_and_no_pixel_in_parquet(joyedit: Command, name: str) -> None:
    pytest.importorskip("pyarrow")
    make, pictures = PUBLISHED[name]
    given = make()
    datasets.write_parquet(Path("d/train.parquet"), given)
    ended = joyedit("run", "d", *RUN, "-o", "out", "--write", "parquet")
    assert ended.code == 0, ended.err
    found = fields(rows_of("out/edited-*.parquet"), pictures)
    own = {column for column in found[0] if column not in given[0]}
    edited = "joyedit_edited_image" if name == "instructpix2pix" else "edited_image"
    assert {edited, "joyedit"} <= own
    assert own <= {"id", "edit_prompt", "joyedit_edit_prompt", "edited_image", "mask", "joyedit", edited}
    assert [{k: row[k] for k in given[0]} for row in found] == fields(given, pictures)
    assert all(decoded(row[edited]["bytes"])[0] == (96, 64) for row in found)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_dataset_loses_no_field_and_no_pixel_in_archives(joyedit: Command, name: str) -> None:
    pytest.importorskip("pyarrow")
    make, pictures = PUBLISHED[name]
    given = make()
    datasets.write_parquet(Path("d/train.parquet"), given)
    assert joyedit("run", "d", *RUN, "-o", "out", "--write", "webdataset").code == 0
    found = []
    for sample in samples_of(Path("out").glob("*.tar")):
        held = {key.rpartition(".")[0]: value for key, value in sample.items() if key.endswith((".png", ".jpg"))}
        found.append({**json.loads(sample["json"]), **held})
    assert [{k: row[k] for k in given[0]} for row in found] == fields(given, pictures)


def test_archives_in_and_out(joyedit: Command) -> None:
    members = [
        (f"{n:04}{end}", content)
        for n in range(3)
        for end, content in (
            (".jpg", datasets.encoded(n, "JPEG")),
            (".depth.png", datasets.encoded(n + 1)),
            (".txt", f"Make it blue {n}."),
            (".json", {"width": 96, "url": f"https://x/{n}", "exif": {"a": [1, 2]}}),
        )
    ]
    datasets.write_tar(Path("x-000000.tar"), members)
    ended = joyedit("run", "x-000000.tar", "--map", "image=jpg", *RUN, "-o", "out", "--write", "webdataset")
    assert ended.code == 0, ended.err
    for n, sample in enumerate(samples_of(Path("out").glob("*.tar"))):
        assert sample["__key__"] == f"{n:04}"
        assert sample["jpg"] == datasets.encoded(n, "JPEG")
        assert sample["depth.png"] == datasets.encoded(n + 1)
        assert sample["txt"].decode() == f"Make it blue {n}."
        told = json.loads(sample["json"])
        assert (told["width"], told["url"], told["exif"]) == (96, f"https://x/{n}", {"a": [1, 2]})
        assert decoded(sample["edited_image.png"])[0] == (96, 64)


@pytest.mark.parametrize("write", ["webdataset", "parquet"])
def test_what_was_written_is_a_source_again(joyedit: Command, write: str) -> None:
    if write == "parquet":
        pytest.importorskip("pyarrow")
    assert joyedit("run", write_lines(manifest(3)), *RUN, "-o", "one", "--write", write).code == 0
    [shard] = Path("one").glob("edited-*")
    ended = joyedit("run", shard, *RUN, "-o", "two")
    assert ended.code == 0, ended.err
    assert sorted(records("two")) == ["a0", "a1", "a2"]
    assert records("two")["a1"]["instruction"] == "Make it blue 1."
    assert records("two")["a1"]["inputs"][0].endswith(("a1.original_image.png", "row=1.original_image"))
    assert "joyedit" in records("two")["a1"]["columns"]


def test_an_image_folder_reloads_with_the_columns_of_instructpix2pix(joyedit: Command) -> None:
    hf = pytest.importorskip("datasets")
    lines = [{**line, "topic": f"t{n}"} for n, line in enumerate(manifest())]
    lines[3]["id"] = "deep/a3"
    argv = ("run", write_lines(lines), *RUN[:-1], "-o", "out", "--write", "imagefolder", "--keep-columns", "topic")
    ended = joyedit(*argv)
    assert ended.code == 0, ended.err
    line = json.loads(Path("out/metadata.jsonl").read_text().splitlines()[3])
    assert line["edited_image_file_name"] == "deep/a3.png"
    assert line["original_image_file_name"] == "originals/deep/a3.png"
    assert line["edit_prompt"] == "Make it blue 3."
    found = hf.load_dataset("imagefolder", data_dir="out", split="train")
    assert isinstance(found.features["original_image"], hf.Image)
    assert isinstance(found.features["edited_image"], hf.Image)
    assert len(found) == 5
    by_id = {row["id"]: row for row in found}
    for number in range(5):
        row = by_id["deep/a3" if number == 3 else f"a{number}"]
        assert (row["edit_prompt"], row["topic"]) == (f"Make it blue {number}.", f"t{number}")
        with Image.open(f"in{number}.png") as original:
            assert row["original_image"].tobytes() == original.tobytes()
        assert row["edited_image"].size == (96, 64)
    assert joyedit("verify", "out").code == 0
    Path("out/originals/a1.png").unlink()
    assert joyedit(*argv).code == 0, "what is missing beside a finished picture comes back"
    assert joyedit("verify", "out").code == 0
    again = joyedit("run", "out", *RUN, "-o", "again")
    assert again.code == 0, again.err
    assert records("again")["originals/a0"]["instruction"] == "Make it blue 0."


PLAIN = ("img_id", "turn_index", "instruction")


def test_image_folder_of_published_rows(joyedit: Command) -> None:
    hf = pytest.importorskip("datasets")
    given = datasets.magicbrush_rows()
    datasets.write_parquet(Path("d/train.parquet"), given)
    assert joyedit("run", "d", *RUN, "-o", "out", "--write", "imagefolder").code == 0
    found = hf.load_dataset("imagefolder", data_dir="out", split="train")
    assert {"original_image", "edited_image", "mask_img", "target_img"} <= set(found.features)
    for row, was in zip(sorted(found, key=lambda one: one["turn_index"]), given, strict=True):
        assert (row["img_id"], row["turn_index"], row["instruction"]) == (
            was["img_id"],
            was["turn_index"],
            was["instruction"],
        )
        for column, name in (("original_image", "source_img"), ("mask_img", "mask_img"), ("target_img", "target_img")):
            assert row[column].tobytes() == decoded(was[name]["bytes"])[1]


def test_a_foreign_list_is_not_replaced(joyedit: Command) -> None:
    Path("out").mkdir()
    Path("out/metadata.jsonl").write_text("mine")
    ended = joyedit("run", write_lines(manifest(1)), *RUN, "-o", "out", "--write", "imagefolder")
    assert (ended.code, Path("out/metadata.jsonl").read_text()) == (2, "mine")


def every_kind() -> list[dict[str, Any]]:
    """A mask, two references, no reference, a picture in its line, and two turns."""
    lines = manifest(4)
    mask = Image.new("L", (96, 64))
    mask.paste(255, (4, 4, 40, 40))
    mask.save("mask.png")
    lines[0]["mask"] = "mask.png"
    del lines[1]["image"]
    lines[1]["images"] = ["in0.png", "in1.png"]
    del lines[2]["image"]
    uri = "data:image/png;base64," + base64.b64encode(datasets.encoded(3)).decode()
    lines[3]["image"] = uri
    lines.append({"image": "@a0", "instruction": "And then?", "id": "later"})
    return lines


@pytest.mark.parametrize("write", ["webdataset", "parquet"])
def test_masks_references_turns_and_pictures_in_lines(joyedit: Command, write: str) -> None:
    if write == "parquet":
        pytest.importorskip("pyarrow")
    lines = every_kind()
    argv = ("run", write_lines(lines), *RUN, "-o", "out", "--write", write, "--shard-size", "3")
    ended = joyedit(*argv)
    assert ended.code == 0, ended.err
    assert "waits" not in ended.err
    if write == "parquet":
        rows = {row["id"]: row for row in rows_of("out/edited-*.parquet")}
        held = {n: {k: v["bytes"] for k, v in row.items() if isinstance(v, dict)} for n, row in rows.items()}
    else:
        held = {
            json.loads(one["json"])["id"]: {k.rpartition(".")[0]: v for k, v in one.items() if k.endswith(".png")}
            for one in samples_of(Path("out").glob("*.tar"))
        }
    assert held["a0"]["mask"] == Path("mask.png").read_bytes()
    assert held["a1"]["original_image"] == Path("in0.png").read_bytes()
    assert held["a1"]["original_image_2"] == Path("in1.png").read_bytes()
    assert "original_image" not in held["a2"]
    assert held["a3"]["original_image"] == datasets.encoded(3)
    assert held["later"]["original_image"] == held["a0"]["edited_image"]
    assert not Path("out/.joyedit.inputs").exists()
    assert joyedit("verify", "out").code == 0
    lines[-1]["instruction"] = "Something else?"
    write_lines(lines)
    ended = joyedit(*argv)
    assert ended.code == 0, "a turn reads the result of the turn before also where that is packed"
    assert "1 finished picture is edited again" in ended.err
    assert joyedit("verify", "out").code == 0
    assert joyedit("view", "out", "--no-open").code == 0
    assert len(list(Path("out/index.files/pictures").glob("s-*.jpg"))) >= 5


def test_a_shard_waits_for_what_failed_and_may_be_partial(joyedit: Command) -> None:
    lines = manifest(6)
    Path("in1.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    argv = ("run", write_lines(lines), *RUN, "-o", "out", "--write", "webdataset", "--shard-size", "3")
    ended = joyedit(*argv)
    assert ended.code == 3
    assert "1 shard waits (edited-000000.tar): 1 item has no picture as asked, for example a1" in ended.err
    assert "--write-partial" in ended.err
    assert [path.name for path in Path("out").glob("edited-*")] == ["edited-000001.tar"]
    ended = joyedit(*argv, "--write-partial")
    assert ended.code == 3
    assert "1 shard is partial (edited-000000.partial.tar)" in ended.err
    keys = [one["__key__"] for one in samples_of(Path("out").glob("*.partial.tar"))]
    assert keys == ["a0", "a2"]
    assert joyedit("verify", "out").out == "records 6, ok 5, failed 1, left 0, files 2, off 0\n"
    retry = joyedit("run", "out/failed.jsonl", *RUN, "-o", "out", "--write", "webdataset", "--shard-size", "3")
    assert retry.code == 3
    assert "a retry by its list packs no shard" in retry.err
    datasets.save(Path("in1.png"), 1)
    ended = joyedit(*argv, "--retry-failed")
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in Path("out").glob("edited-*")) == ["edited-000000.tar", "edited-000001.tar"]
    assert [one["__key__"] for one in samples_of(Path("out").glob("*.tar"))] == [f"a{n}" for n in range(6)]
    assert joyedit("verify", "out").code == 0


def test_a_source_that_grows_and_an_item_that_changes(joyedit: Command) -> None:
    lines = manifest(7)
    argv = ("run", "m.jsonl", *RUN, "-o", "out", "--write", "webdataset", "--shard-size", "3")
    write_lines(lines[:4])
    assert joyedit(*argv).code == 0
    first = Path("out/edited-000000.tar").read_bytes()
    write_lines([lines[6], *lines[:6]])
    assert joyedit(*argv).code == 0
    shards = {path.name: [one["__key__"] for one in samples_of([path])] for path in sorted(Path("out").glob("*.tar"))}
    assert list(shards.values()) == [["a0", "a1", "a2"], ["a6", "a3", "a4"], ["a5"]]
    assert Path("out/edited-000000.tar").read_bytes() == first
    lines[1]["seed"] = 5
    write_lines([lines[6], *lines[:6]])
    assert joyedit(*argv).code == 0
    [_, sample, _] = samples_of([Path("out/edited-000000.tar")])
    assert json.loads(sample["json"])["joyedit"]["settings"]["seed"] == 5
    assert joyedit("verify", "out").code == 0
    assert joyedit(*argv, "--overwrite").code == 0
    assert joyedit("verify", "out").code == 0


@pytest.mark.parametrize("write", ["webdataset", "parquet"])
@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_a_damaged_shard_is_made_again(joyedit: Command, write: str, damage: str) -> None:
    if write == "parquet":
        pytest.importorskip("pyarrow")
    source = write_lines(manifest(5))
    argv = ("run", source, *RUN, "-o", "out", "--write", write, "--shard-size", "3")
    assert joyedit(*argv).code == 0
    [first, _] = sorted(Path("out").glob("edited-*"))
    whole = first.read_bytes()
    if damage == "gone":
        first.unlink()
    else:
        first.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"other")
    assert joyedit("verify", "out").code == 3
    ended = joyedit(*argv)
    assert ended.code == 0, ended.err
    assert first.read_bytes() == whole
    assert joyedit("verify", "out").code == 0


def test_standard_input_and_workers(program: Command) -> None:
    lines = manifest(5)
    write_lines(lines)
    ended = program(
        "run", "-", *RUN, "-o", "out", "--write", "webdataset", "--shard-size", "2", stdin=Path("m.jsonl").read_text()
    )
    assert ended.code == 0, ended.err
    assert len(list(Path("out").glob("edited-*.tar"))) == 3
    ended = program(
        "run",
        "m.jsonl",
        *RUN,
        "-o",
        "out2",
        "--write",
        "webdataset",
        "--shard-size",
        "2",
        "--gpus",
        "2",
        "--device",
        "cpu",
    )
    assert ended.code == 0, ended.err
    assert len(list(samples_of(Path("out2").glob("edited-*.tar")))) == 5


def test_from_python(joyedit: Command) -> None:
    pytest.importorskip("pyarrow")
    source = write_lines(manifest(3))
    settings: dict[str, Any] = {"model": "fake", "basesize": 256, "steps": 1, "page": False}
    outcome = run(source, output="out", write="Parquet", shard_size=2, **settings)
    assert outcome.exit_code == 0
    assert [row["id"] for row in rows_of("out/edited-*.parquet")] == ["a0", "a1", "a2"]
    with pytest.raises(UsageError, match="write must be folder, webdataset"):
        run(source, output="other", write="zip", **settings)


def test_what_is_refused(joyedit: Command) -> None:
    source = write_lines(manifest(2))
    assert joyedit("run", source, *RUN, "-o", "out", "--write", "webdataset").code == 0
    for write in ("folder", "parquet", "imagefolder"):
        ended = joyedit("run", source, *RUN, "-o", "out", "--write", write)
        assert ended.code == 2
        assert "out holds shards of webdataset (edited-000000.tar): go on with --write webdataset" in ended.err
    Path("mine").mkdir()
    Path("mine/edited-000004.tar").write_text("mine")
    ended = joyedit("run", source, *RUN, "-o", "mine", "--write", "webdataset")
    assert (ended.code, Path("mine/edited-000004.tar").read_text()) == (2, "mine")
    for more, told in (
        (("--shard", "0/2"), "exclude each other"),
        (("--engine", "ray"), "exclude each other"),
        (("-o", "one.png"), "name a folder"),
    ):
        ended = joyedit("run", "in0.png", "-p", "x", *RUN, "-o", "new", "--write", "webdataset", *more)
        assert (ended.code, Path("new").exists()) == (2, False), ended.err
        assert told in ended.err


def test_an_original_that_changed_since_is_not_written(joyedit: Command) -> None:
    source = write_lines(manifest(2))
    assert joyedit("run", source, *RUN, "-o", "out").code == 0
    records_before = records("out")
    datasets.save(Path("in1.png"), 9)
    ended = joyedit("run", source, *RUN, "-o", "out", "--write", "webdataset", "--trust-journal", "--retry-failed")
    assert ended.code == 3
    assert not list(Path("out").glob("edited-*"))
    assert records("out") == records_before
    assert "in1.png changed since a1 was edited" in ended.err
