"""Objects of a program as a source: the same records, pictures and resume as the command has for the same data."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import joyedit
from joyedit.errors import ManifestError, UsageError

Run = Callable[..., joyedit.Outcome]


def shown(number: int, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (64, 48), (number * 20 % 256, 90, 200)).convert(mode)


def jpeg(number: int) -> bytes:
    held = io.BytesIO()
    shown(number).save(held, "JPEG")
    return held.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def records_of(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "results.jsonl").read_text().splitlines()
    return {record["id"]: record for record in map(json.loads, lines)}


def resumes(run: Run, source: Callable[[], Any], count: int, **options: Any) -> joyedit.Outcome:
    """Run twice: the second run edits nothing, and has the same results."""
    first, second = run(source(), **options), run(source(), **options)
    assert (first.exit_code, first.report.ok, first.report.skipped) == (0, count, 0)
    assert (second.exit_code, second.report.ok, second.report.skipped) == (0, count, count)
    assert [one.id for one in first] == [one.id for one in second]
    assert all(one.was_done for one in second)
    assert not any(one.was_done for one in first)
    return second


def test_rows_are_as_the_lines_of_a_manifest(fake_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        shown(number).save(f"{number}.png")
    Image.new("L", (64, 48), 255).save("mask.png")
    rows: list[dict[str, Any]] = [
        {"image": "0.png", "instruction": "a", "seed": 3},
        {"image": "1.png", "instruction": "b", "mask": "mask.png"},
        {"images": ["2.png", "3.png"], "instruction": "c", "id": "both"},
        {"image": "0.png", "instruction": "d", "seeds": 2},
        {"image": "@both", "instruction": "e"},
    ]
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    from_file, from_rows = fake_run("m.jsonl", output="file"), fake_run(rows, output="rows")
    assert from_file.exit_code == from_rows.exit_code == 0
    assert files_of(Path("file")) == files_of(Path("rows"))
    assert len(files_of(Path("rows"))) == 6
    here, there = records_of(Path("rows")), records_of(Path("file"))
    assert here.keys() == there.keys()
    for name, record in here.items():
        same = ("status", "instruction", "output", "settings", "output_sha256")
        assert [record[key] for key in same] == [there[name][key] for key in same]
        assert record["inputs"] == [one.replace("/file/", "/rows/") for one in there[name]["inputs"]]
    assert (Path("rows") / "index.html").is_file()
    assert [one.index for one in from_rows] == [0, 1, 2, 3, 3, 4]
    assert records_of(Path("rows"))["both"]["source"] == {"file": "source[2]", "line": None}


def test_pictures_in_memory_are_edited_as_files_are(fake_run: Run, tmp_path: Path) -> None:
    mask = Image.new("L", (64, 48), 0)
    mask.paste(255, (0, 0, 32, 48))
    shown(1).save(tmp_path / "a.png")
    mask.save(tmp_path / "m.png")
    in_files = fake_run(
        [{"image": tmp_path / "a.png", "mask": tmp_path / "m.png", "instruction": "x"}], output=tmp_path / "files"
    )
    in_memory = fake_run([{"image": shown(1), "mask": mask, "instruction": "x"}])
    assert in_files[0].image is not None
    assert in_memory[0].image is not None
    assert in_files[0].image.tobytes() == in_memory[0].image.tobytes()
    several = fake_run([{"images": [shown(1), tmp_path / "a.png"], "instruction": "two"}])
    assert len(several[0].inputs) == 2


def test_a_list_of_pictures_keeps_its_order_and_no_input_touches_the_disk(fake_run: Run, tmp_path: Path) -> None:
    given = [shown(n) for n in (5, 1, 3, 2)]
    outcome = resumes(fake_run, lambda: given, 4, prompt="x", page=False)
    for picture, result in zip(given, outcome, strict=True):
        assert result.inputs[0].startswith("data:image/png;sha256=")
        assert result.image is not None
        assert result.image.size == picture.size
    assert [one.index for one in outcome] == [0, 1, 2, 3]
    pictures = {path.name for path in tmp_path.rglob("*") if path.suffix in (".png", ".jpg", ".tiff")}
    assert pictures == {path.name for path in map(lambda one: one.path, outcome) if path is not None}


def test_the_same_picture_in_a_shuffled_longer_list_is_not_edited_again(fake_run: Run) -> None:
    fake_run([shown(n) for n in (1, 2, 3)], prompt="x")
    outcome = fake_run([shown(n) for n in (3, 9, 1, 2)], prompt="x")
    assert (outcome.report.ok, outcome.report.skipped) == (4, 3)
    assert [one.was_done for one in outcome] == [True, False, True, True]


def test_a_picture_that_was_changed_is_another_one(fake_run: Run) -> None:
    picture = shown(1)
    fake_run([{"id": "a", "image": picture, "instruction": "x"}])
    picture.putpixel((0, 0), (1, 2, 3))
    outcome = fake_run([{"id": "a", "image": picture, "instruction": "x"}])
    assert outcome.report.skipped == 0
    assert any("edited again" in note for note in outcome.notes)


def test_an_iterator_streams_and_is_never_made_a_list(fake_run: Run, tmp_path: Path) -> None:
    lead: list[int] = []

    def rows(count: int) -> Iterator[dict[str, Any]]:
        for number in range(count):
            done = tmp_path / "out" / "results.jsonl"
            lead.append(number - (len(done.read_text().splitlines()) if done.exists() else 0))
            yield {"id": str(number), "image": shown(number), "instruction": "x"}

    resumes(fake_run, lambda: rows(400), 400)
    assert max(lead[:400]) < 300, "rows that were asked for before their results were there"


def test_an_iterator_belongs_to_the_thread_of_its_caller(fake_run: Run) -> None:
    import sqlite3

    base = sqlite3.connect(":memory:")  # its cursors refuse every other thread
    base.execute("create table edits (id text, text text)")
    base.executemany("insert into edits values (?, ?)", [(str(n), f"edit {n}") for n in range(40)])
    cursor = base.execute("select id, text from edits")
    outcome = fake_run({"id": name, "image": shown(int(name)), "instruction": text} for name, text in cursor)
    assert outcome.report.ok == 40
    base.close()


def test_an_iterator_that_breaks_stops_the_run_and_keeps_what_is_done(fake_run: Run) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from ({"image": shown(n), "instruction": "x"} for n in range(3))
        raise RuntimeError("the line is cut")

    outcome = fake_run(rows())
    assert (outcome.exit_code, outcome.report.ok) == (1, 3)
    assert "source[3]: the iterator raised RuntimeError: the line is cut" in str(outcome.error)
    assert outcome.error is not None
    assert isinstance(outcome.error.__cause__, RuntimeError)
    with pytest.raises(ManifestError, match="source: the iterator has no items"):
        fake_run(iter([]))


def test_a_bad_row_of_an_iterator_fails_alone(fake_run: Run) -> None:
    rows = [{"image": shown(1), "instruction": "x"}, {"image": shown(2), "promt": "y"}, 5, shown(3)]
    outcome = fake_run(iter(rows), prompt="z")
    assert outcome.exit_code == 3
    assert [one.status for one in outcome] == ["ok", "failed", "failed", "ok"]
    assert "source[1]: unknown key 'promt'" in str(outcome[1].error)
    assert "source[2]: an item is a mapping of keys" in str(outcome[2].error)


def test_numbers_of_numpy_and_paths_are_read(fake_run: Run, tmp_path: Path) -> None:
    shown(1).save(tmp_path / "a.png")
    row = {"image": tmp_path / "a.png", "instruction": "x", "seed": np.int64(7), "guidance_scale": np.float32(2.5)}
    outcome = fake_run((row,))
    assert outcome[0].settings["seed"] == 7
    assert outcome[0].settings["guidance_scale"] == 2.5
    assert fake_run(row).report.skipped == 1, "one mapping is a list of one"
    assert fake_run(os.fspath(tmp_path / "a.png"), prompt="y", overwrite=True).report.ok == 1


def table_of_pictures() -> dict[str, list[Any]]:
    return {
        "src_img": [{"bytes": jpeg(n), "path": f"{n}.jpg"} for n in range(3)],
        "edit_prompt": ["a", "b", "c"],
        "kind": ["x", None, "z"],
    }


def test_data_frames(fake_run: Run) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"picture": [shown(n) for n in range(3)], "say": ["a", "b", "c"], "seed": [1, 2, 3]})
    frame["kind"] = ["x", None, "z"]
    outcome = resumes(fake_run, lambda: frame, 3, map={"image": "picture", "instruction": "say"})
    assert [(one.instruction, one.settings["seed"], one.columns["kind"]) for one in outcome] == [
        ("a", 1, "x"), ("b", 2, None), ("c", 3, "z"),
    ]  # fmt: skip
    assert [one.id for one in outcome] == ["row-000000", "row-000001", "row-000002"]
    named = frame.rename(columns={"picture": "image", "say": "instruction"}).set_index(
        pd.Index(["p", "q", "r"], name="id")
    )
    assert [one.id for one in fake_run(named)] == ["p", "q", "r"]
    with pytest.raises(UsageError, match="this DataFrame has the column 'a' twice"):
        fake_run(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_rows_where_a_column_is_true(fake_run: Run) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"image": [shown(0), shown(1)], "instruction": ["a", "b"], "good": [False, True]})
    outcome = fake_run(frame, where={"good": True}, ignore_columns="all")
    assert [(one.index, one.instruction) for one in outcome] == [(1, "b")]


def test_the_index_is_that_of_a_row_in_memory(fake_run: Run, tmp_path: Path) -> None:
    (tmp_path / "photos[3]").mkdir()
    shown(0).save(tmp_path / "photos[3]" / "a.png")
    assert [one.index for one in fake_run(tmp_path / "photos[3]", prompt="x")] == [None]
    rows = [{"image": shown(n), "instruction": "x"} for n in range(12)]
    assert [one.index for one in fake_run(rows, output=tmp_path / "rows")] == list(range(12))


def test_a_row_of_a_table_that_is_wrong_is_named_by_its_index(fake_run: Run) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"image": [shown(1), b"", shown(3)], "instruction": ["a", "b", "c"], "seed": [1, 2, -3]})
    outcome = fake_run(frame)
    assert [one.status for one in outcome] == ["ok", "failed", "failed"]
    assert "source.iloc[1]: the bytes of this picture are empty" in str(outcome[1].error)
    assert "source.iloc[2]: seed must be" in str(outcome[2].error)


def test_tables_of_arrow_are_as_their_parquet_file(fake_run: Run, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(table_of_pictures())
    pq.write_table(table, tmp_path / "t.parquet")
    from_memory = resumes(fake_run, lambda: table, 3, output=tmp_path / "memory")
    from_file = fake_run(tmp_path / "t.parquet", output=tmp_path / "file")
    pairs = list(zip(from_memory, from_file, strict=True))
    assert all(one.image.tobytes() == other.image.tobytes() for one, other in pairs if one.image and other.image)
    assert [one.fingerprint for one, _ in pairs] == [other.fingerprint for _, other in pairs]
    assert [one.columns for one in from_memory] == [{"kind": "x"}, {"kind": None}, {"kind": "z"}]


def test_what_can_be_a_table_of_arrow_is_one(fake_run: Run) -> None:
    pa = pytest.importorskip("pyarrow")

    class Table:
        """As those of polars and duckdb."""

        def __arrow_c_stream__(self, schema: Any = None) -> Any:
            return pa.table(table_of_pictures()).__arrow_c_stream__(schema)

    assert fake_run(Table()).report.ok == 3


def hub_dataset() -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict(table_of_pictures()).cast_column("src_img", datasets.Image())


def test_datasets_of_hugging_face(fake_run: Run, tmp_path: Path) -> None:
    dataset = hub_dataset()
    dataset.save_to_disk(tmp_path / "saved")
    outcome = resumes(fake_run, lambda: dataset, 3)
    saved = fake_run(tmp_path / "saved", output=tmp_path / "file")
    assert [one.fingerprint for one in outcome] == [one.fingerprint for one in saved]
    chosen = fake_run(dataset.select([2, 0]), output=tmp_path / "chosen", keep_columns="kind")
    assert [one.columns for one in chosen] == [{"kind": "z"}, {"kind": "x"}]
    assert fake_run(dataset, output=tmp_path / "where", where={"kind": "z"}).report.ok == 1
    turned = dataset.with_transform(
        lambda rows: rows | {"src_img": [one.rotate(90, expand=True) for one in rows["src_img"]]}
    )
    assert [one.image.size for one in fake_run(turned, output=tmp_path / "turned") if one.image] == [(48, 64)] * 3


def test_a_dataset_that_streams(fake_run: Run) -> None:
    dataset = hub_dataset().to_iterable_dataset()
    outcome = resumes(fake_run, lambda: dataset, 3)
    assert [one.instruction for one in outcome] == ["a", "b", "c"]
    assert outcome[0].inputs[0].startswith("data:image/jpeg"), "the bytes of the file, and not its pixels"
    with pytest.raises(UsageError, match="call filter"):
        fake_run(dataset, where={"kind": "z"})


def test_splits_of_a_dataset(fake_run: Run) -> None:
    datasets = pytest.importorskip("datasets")
    both = datasets.DatasetDict(train=hub_dataset(), test=hub_dataset().select([1]))
    outcome = resumes(fake_run, lambda: both, 1, split="test")
    assert [(one.id, one.source["file"]) for one in outcome] == [("test-000000", "source['test'][0]")]
    with pytest.raises(UsageError, match=r"several splits: train, test \(choose one: split=NAME\)"):
        fake_run(both)
    with pytest.raises(UsageError, match=r"no split 'dev' \(there are: train, test\)"):
        fake_run(both, split="dev")
    with pytest.raises(UsageError, match="split is for a DatasetDict"):
        fake_run(hub_dataset(), split="train")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (7, "a source is paths, a list of mappings, an iterator of mappings, pictures of Pillow.*, not int"),
        (np.zeros((4, 4, 3)), "not numpy.ndarray; PIL.Image.fromarray makes a picture of an array"),
        ([], "this list has no items"),
        ([{"image": "gone.png", "instruction": "x"}, {"image": 3}], r"source\[0\]: no such picture: 'gone.png'"),
        ([{"image": "gone.png", "instruction": "x"}, {"image": 3}], r"source\[1\]: a picture is a path or a picture"),
        ([{3: "x"}], r"source\[0\]: the key 3 is no text"),
        ([shown(1)], r"source\[0\]: no instruction"),
    ],
)
def test_what_is_no_source_is_refused_before_anything_is_written(
    fake_run: Run, tmp_path: Path, source: Any, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        fake_run(source)
    assert not (tmp_path / "out").exists()


def test_flags_that_cannot_be_about_objects(fake_run: Run) -> None:
    for options, told in (
        ({"exclude": "*.png"}, "exclude is for folders"),
        ({"split": "train"}, "split is for a DatasetDict"),
        ({"where": {"a": "b"}}, "a list of mappings is no dataset"),
    ):
        with pytest.raises(UsageError, match=told):
            fake_run([shown(1)], prompt="x", **options)
    with pytest.raises(UsageError, match="an iterator comes once"):
        fake_run(iter([shown(1)]), prompt="x", shard="1/2")
    with pytest.raises(UsageError, match="an iterator is of this program"):
        fake_run(iter([shown(1)]), prompt="x", engine="ray")
