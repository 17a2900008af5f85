"""`joyedit export`: one row an item in CSV, Parquet and JSON lines, also of shards and of hostile records."""

from __future__ import annotations

import csv
import gc
import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command, program_environment

from joyedit.job.export.columns import Columns
from joyedit.job.export.export import Export
from joyedit.job.export.rows import FIRST, row_of
from joyedit.job.results.all_records import AllRecords, FinalRecord

FAKE = ("-m", "fake", "--basesize", "256")


def rows_of_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def record(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "status": "ok", "instruction": "x", "inputs": ["/a.png"], "output": f"{name}.png", **more}


def folder(path: Path, *records: dict[str, Any]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


@pytest.fixture
def edited(joyedit: Command, pictures: Path) -> Path:
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    assert joyedit("run", pictures, *FAKE, "-p", 'make it "blue",\nnow', "--no-page").code == 3
    return Path("edited")


def test_the_three_formats_say_the_same(joyedit: Command, edited: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert joyedit("export", edited, "-o", "t.csv").out == "t.csv\n"
    ended = joyedit("export", edited, "-o", "t.parquet")
    assert (ended.code, ended.out) == (0, "t.parquet\n")
    assert ended.messages[0].startswith("4 rows, ")
    lines = [json.loads(line) for line in joyedit("export", edited, "--to", "jsonl", "-o", "-").out.splitlines()]
    table = parquet.read_table("t.parquet").to_pylist()
    texts = rows_of_csv(Path("t.csv").read_text(encoding="utf-8"))
    assert [row["id"] for row in lines] == [row["id"] for row in table] == [row["id"] for row in texts]
    assert list(lines[0])[: len(FIRST)] == list(FIRST)
    for line, row, text in zip(lines, table, texts, strict=True):
        assert {**row, "at": row["at"].isoformat(timespec="milliseconds")} == {
            **line,
            "at": line["at"].replace("000+00:00", "+00:00"),
        }
        for name, value in line.items():
            shown = "" if value is None else value if isinstance(value, str) else json.dumps(value)
            assert text[name] == shown, name
    (failed,) = (row for row in lines if row["status"] == "failed")
    assert (failed["error_code"], failed["output"]) == ("truncated_picture", None)
    done = next(row for row in lines if row["id"] == "b")
    assert (done["width"], done["height"], done["settings_seed"]) == (200, 100, 42)
    assert done["instruction"] == 'make it "blue",\nnow'
    stages = [done[f"seconds_{stage}"] for stage in ("read", "encode", "denoise", "decode", "write")]
    assert done["seconds"] == pytest.approx(sum(stages))


def test_types_in_parquet(joyedit: Command, edited: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    joyedit("export", edited, "-o", "t.parquet")
    kinds = {field.name: str(field.type) for field in parquet.read_schema("t.parquet")}
    for name, kind in {
        "id": "string", "width": "int64", "settings_guidance_scale": "double", "settings_width": "int64",
        "inputs": "list<element: string>", "at": "timestamp[ms, tz=UTC]", "source_line": "int64", "shard": "string",
    }.items():  # fmt: skip
        assert kinds[name] == kind, name


def test_carried_columns_keep_their_names(joyedit: Command, pictures: Path) -> None:
    lines = [
        {"image": "pictures/a.png", "instruction": "x", "id": str(n), "score": n / 2, "label": "=1+1", "status": "mine"}
        for n in range(3)
    ]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kept = ("--ignore-columns", "all", "--keep-columns", "score,label,status")
    assert joyedit("run", "m.jsonl", *FAKE, *kept).code == 0
    found = rows_of_csv(joyedit("export", "edited", "--to", "csv").out)
    assert sorted((row["id"], row["score"], row["label"], row["columns_status"], row["status"]) for row in found) == [
        (str(n), str(n / 2), "'=1+1", "mine", "ok") for n in range(3)
    ]
    exact = rows_of_csv(joyedit("export", "edited", "--to", "csv", "--exact-text").out)
    assert {row["label"] for row in exact} == {"=1+1"}


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_no_cell_is_a_formula(joyedit: Command, tmp_path: Path, begin: str) -> None:
    text = f'{begin}HYPERLINK("http://x","y")'
    folder(Path("out"), record("-5", instruction=text, columns={text: text, "n": -5}))
    assert joyedit("export", "out", "--to", "csv", "-o", "t.csv").code == 0
    (row,) = rows_of_csv(Path("t.csv").read_bytes().decode())
    assert row["instruction"] == row[f"'{text}"] == f"'{text}"
    assert row["n"] == "-5"  # a number is no formula
    assert row["id"] == "'-5"


def test_excel_and_strange_texts(joyedit: Command, tmp_path: Path) -> None:
    hostile = 'é"\r\n,;\t\u2028 \x00 <b>'
    folder(Path("out"), record("é", instruction=hostile, inputs=["/\udcff.png"], columns={"\ud800": "\ud800"}))
    assert joyedit("export", "out", "--to", "csv", "--bom", "-o", "t.csv").code == 0
    data = Path("t.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfid,")
    (row,) = rows_of_csv(data.decode("utf-8-sig"))
    assert row["instruction"] == hostile
    assert row["inputs"] == '["/\\\\udcff.png"]'
    assert joyedit("export", "out", "--to", "csv", "--bom", "-o", "t.csv").code == 0  # its own file again
    (line,) = joyedit("export", "out", "--to", "jsonl").out.splitlines()
    assert json.loads(line)["instruction"] == hostile


def test_columns_of_several_kinds(joyedit: Command, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    values: list[Any] = [1, 2.5, True, "x", [1, 2], ["a"], {"k": 1}, None, 2**64 - 1, 2**70]
    records = [record(str(n), columns={"mixed": value}) for n, value in enumerate(values)]
    records.append(record("big", settings={"seed": 2**64 - 1}, columns={"numbers": 2, "flag": True}, at="no time"))
    records.append(record("odd", settings="odd", error=3, size=[1], inputs_seen=[1], seconds=None, columns=[1]))
    records.append(record("two", columns={"numbers": 2.5, "flag": None}))
    folder(Path("out"), *records)
    assert joyedit("export", "out", "-o", "t.parquet").code == 0
    table = parquet.read_table("t.parquet")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert (kinds["mixed"], kinds["settings_seed"], kinds["numbers"]) == ("string", "uint64", "double")
    assert (kinds["flag"], kinds["at"]) == ("bool", "string")
    found = {row["id"]: row for row in table.to_pylist()}
    assert [found[str(n)]["mixed"] for n in range(len(values))] == [
        None if value is None else value if isinstance(value, str) else json.dumps(value) for value in values
    ]
    assert found["big"]["settings_seed"] == 2**64 - 1


def test_numbers_that_are_not_finite(joyedit: Command, tmp_path: Path) -> None:
    """They are numbers in Parquet, and texts where JSON has no such number. Texts alone stay texts."""
    parquet = pytest.importorskip("pyarrow.parquet")
    columns: dict[str, list[Any]] = {"x": ["nan", 1, "-inf"], "y": ["inf"] * 3, "z": ["nan", 1, "a"]}
    rows = [{name: values[number] for name, values in columns.items()} for number in range(3)]
    folder(Path("out"), *(record(str(number), columns=row) for number, row in enumerate(rows)))
    for name in ("t.parquet", "t.csv", "t.jsonl"):
        assert joyedit("export", "out", "-o", name).code == 0
    table = parquet.read_table("t.parquet")
    assert [str(table.schema.field(name).type) for name in columns] == ["double", "string", "string"]
    assert list(map(str, table.column("x").to_pylist())) == ["nan", "1.0", "-inf"]
    assert table.column("z").to_pylist() == ["nan", "1", "a"]
    assert [row["x"] for row in rows_of_csv(Path("t.csv").read_text())] == ["nan", "1.0", "-inf"]
    assert [json.loads(line)["x"] for line in Path("t.jsonl").read_text().splitlines()] == ["nan", 1.0, "-inf"]


def test_whole_numbers_of_both_kinds(joyedit: Command, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    values = {"wide": (-1, 2**64 - 1, 3), "real": (2**64 - 1, -1, 0.5), "small": (-(2**63), 2**63 - 1, None)}
    folder(Path("out"), *(record(str(n), columns={name: of[n] for name, of in values.items()}) for n in range(3)))
    assert joyedit("export", "out", "-o", "t.parquet").code == 0
    table = parquet.read_table("t.parquet")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert (kinds["wide"], kinds["real"], kinds["small"]) == ("decimal128(20, 0)", "double", "int64")
    assert table["wide"].to_pylist() == list(values["wide"])
    assert table["small"].to_pylist() == list(values["small"])
    lines = joyedit("export", "out", "--to", "jsonl").out.splitlines()
    assert [json.loads(line)["wide"] for line in lines] == list(values["wide"])
    found = rows_of_csv(joyedit("export", "out", "--to", "csv").out)
    assert [row["wide"] for row in found] == list(map(str, values["wide"]))
    folder(Path("back"), *(record(str(n), columns={name: of[2 - n] for name, of in values.items()}) for n in range(3)))
    assert joyedit("export", "back", "-o", "back.parquet").code == 0
    assert {field.name: str(field.type) for field in parquet.read_schema("back.parquet")} == kinds


def test_a_carriage_return_ends_no_row(joyedit: Command, tmp_path: Path) -> None:
    folder(Path("out"), record("a", instruction="one\rtwo"), record("b"))
    assert joyedit("export", "out", "--to", "csv", "-o", "t.csv").code == 0
    text = Path("t.csv").read_bytes().decode()
    assert text.count("\n") == 3
    assert [(row["id"], row["instruction"]) for row in rows_of_csv(text)] == [("a", "one\rtwo"), ("b", "x")]


def test_a_table_that_was_interrupted_does_not_look_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("joyedit.job.export.writers._GROUP_ROWS", 10)
    export = Export(folder(tmp_path / "out", *(record(str(n)) for n in range(100))), "parquet")
    file, seen = io.BytesIO(), iter(range(50))

    def written() -> None:
        if next(seen, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.write(file, written)
    gc.collect()
    assert len(file.getvalue()) > 1000
    with pytest.raises(Exception, match="Parquet magic bytes not found"):
        parquet.read_table(io.BytesIO(file.getvalue()))


def test_only_the_last_record_of_an_item(joyedit: Command, tmp_path: Path) -> None:
    folder(Path("out"), record("a", status="failed"), record("b"), record("a"), record("c", replaces=["b"]))
    with Path("out/results.jsonl").open("a") as file:
        file.write('no record\n{"id": "torn", "status": "ok"')
    found = rows_of_csv(joyedit("export", "out", "--to", "csv").out)
    assert [(row["id"], row["status"]) for row in found] == [("a", "ok"), ("c", "ok")]


def test_shards_that_are_not_merged(joyedit: Command, pictures: Path) -> None:
    for shard in ("1/2", "2/2"):
        assert joyedit("run", pictures, *FAKE, "-p", "x", "-o", "out", "--shard", shard).code == 0
    before = rows_of_csv(joyedit("export", "out", "--to", "csv").out)
    assert sorted(row["id"] for row in before) == ["a", "b", "deep/c"]
    assert {row["shard"] for row in before} <= {"1/2", "2/2"}
    assert all(Path("out", row["output"]).is_file() for row in before)
    assert joyedit("merge", "out").code == 0
    after = rows_of_csv(joyedit("export", "out", "--to", "csv").out)
    assert sorted(row["id"] for row in after) == ["a", "b", "deep/c"]
    assert {row["shard"] for row in after} == {""}
    assert all(Path("out", row["output"]).is_file() for row in after)


def test_shards_without_a_record_hide_no_other(tmp_path: Path) -> None:
    out = folder(tmp_path / "out")
    folder(out / "shards" / "1-of-4", record("a"))
    folder(out / "shards" / "2-of-4")
    folder(out / "shards" / "3-of-4", record("b"), record("c"))
    folder(out / "shards" / "4-of-4", record("d"))
    records = AllRecords(out)
    assert [one.record["id"] for one in records] == ["a", "b", "c", "d"]
    assert len(records) == 4
    found = records.get("b")
    assert found is not None
    assert found.output == "shards/3-of-4/b.png"


def test_which_record_counts_of_a_merged_item(tmp_path: Path) -> None:
    folder(tmp_path / "out", record("done"), record("again"), record("bad", status="failed"))
    shard = folder(
        tmp_path / "out" / "shards" / "1-of-2",
        record("done", status="failed"),
        record("again", output="new.png"),
        record("bad"),
    )
    records = AllRecords(tmp_path / "out")
    assert {one.record["id"]: one.output for one in records} == {
        "done": "done.png",
        "again": "shards/1-of-2/new.png",
        "bad": "shards/1-of-2/bad.png",
    }
    assert len(records) == 3
    found = records.get("again")
    assert found is not None
    assert found.shard is not None
    assert found.shard.path == shard
    assert records.get("none") is None


def test_while_a_run_goes_on(tmp_path: Path) -> None:
    out = folder(tmp_path / "out", record("a"), record("b"))
    export = Export(out, "jsonl")
    with (out / "results.jsonl").open("a") as file:
        file.write(json.dumps(record("b", status="failed")) + "\n" + json.dumps(record("c")) + "\n")
    file = io.BytesIO()
    export.write(file)
    assert [json.loads(line)["id"] for line in file.getvalue().splitlines()] == ["a", "b"]


def test_what_is_never_replaced(joyedit: Command, edited: Path) -> None:
    Path("mine.csv").write_text("id,status,mine\n")
    for name, told in (
        ("mine.csv", "the file is there already, and is no csv export"),
        ("edited/results.jsonl", "this is a file of a run, and stays"),
        ("edited", "this is a folder"),
    ):
        for more in (("--overwrite",), ()) if name != "mine.csv" else ((),):
            before = Path(name).read_bytes() if Path(name).is_file() else b""
            ended = joyedit("export", edited, "--to", "csv", "-o", name, *more)
            assert ended.code == 2
            assert told in ended.err
            assert not before or Path(name).read_bytes() == before
    for name in ("edited/a.png", str(Path("edited/deep/../a.png").absolute())):
        before = Path(name).read_bytes()
        ended = joyedit("export", edited, "--to", "csv", "-o", name, "--overwrite")
        assert (ended.code, Path(name).read_bytes()) == (2, before)
        assert "this is a file of a run, and stays" in ended.err
    Path("link.csv").symlink_to("mine.csv")
    assert joyedit("export", edited, "-o", "link.csv").code == 2
    assert joyedit("export", edited, "-o", "mine.csv", "--overwrite").code == 0
    assert joyedit("export", edited, "-o", "mine.csv").code == 0
    Path("copy.jsonl").write_bytes(Path("edited/results.jsonl").read_bytes())
    assert joyedit("export", edited, "-o", "copy.jsonl").code == 2
    assert joyedit("export", edited, "-o", "t.jsonl").code == 0
    assert joyedit("export", edited, "-o", "t.jsonl").code == 0


def test_refusals(joyedit: Command, edited: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for argv, told in (
        (("export", pictures, "--to", "csv"), "this is no output folder of joyedit"),
        (("export", edited), "the format is not known"),
        (("export", edited, "-o", "t.txt"), "the format is not known"),
        (("export", edited, "--to", "jsonl", "--bom"), "--exact-text and --bom are for CSV"),
        (("export", edited, "--to", "xml"), "xml"),
    ):
        ended = joyedit(*argv)
        assert ended.code == 2
        assert told in ended.err
    ended = joyedit("export", edited, "-o", f"{'x' * 300}.csv")
    assert ended.code == 1
    assert ended.err.endswith("...: File name too long (use -v to see where)\n")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ended = joyedit("export", edited, "--to", "parquet", "-o", "t.parquet")
    assert (ended.code, 'pip install "joyedit[parquet]"' in ended.err) == (2, True)
    assert not Path("t.parquet").exists()


def test_a_full_disk_leaves_no_file(joyedit: Command, edited: Path) -> None:
    from joyedit.job import failpoints

    assert joyedit("export", edited, "-o", "t.csv").code == 0
    before = Path("t.csv").read_bytes()
    try:
        failpoints.arm("file.fsync:1:enospc")
        ended = joyedit("export", edited, "-o", "t.csv")
    finally:
        failpoints.arm(None)
    assert ended.code == 1
    assert "No space left on device" in ended.err
    assert Path("t.csv").read_bytes() == before
    assert not [name for name in os.listdir() if name.endswith(".joyedit-tmp")]


def test_pipes(program: Command, edited: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    argv = [sys.executable, "-m", "joyedit", "export", "edited", "--to"]
    data = subprocess.run([*argv, "parquet"], capture_output=True, env=program_environment(), check=True).stdout
    assert parquet.read_table(io.BytesIO(data)).num_rows == 4
    piped = ["sh", "-c", f"{' '.join(argv)} csv | head -1"]
    done = subprocess.run(piped, capture_output=True, env=program_environment(), check=True)
    assert done.stdout.startswith(b"id,status,")
    assert done.stderr == b""


def test_a_long_export_tells_how_far_it_is(joyedit: Command, edited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyedit.job.export.export._TELL_SECONDS", 0.0)
    assert joyedit("export", edited, "-o", "t.csv").messages[:2] == ["1 rows so far", "2 rows so far"]
    ended = joyedit("export", edited, "-o", "t.csv", "--log-format", "json")
    done = [event["done"] for event in map(json.loads, ended.err.splitlines()) if event["event"] == "progress"]
    assert done == [1, 2, 3, 4]


def test_an_empty_run(joyedit: Command, tmp_path: Path) -> None:
    folder(Path("out"))
    assert joyedit("export", "out", "--to", "csv").out.startswith("id,status,output")
    assert joyedit("export", "out", "--to", "jsonl").out == ""
    pytest.importorskip("pyarrow")
    assert joyedit("export", "out", "-o", "t.parquet").code == 0


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    peaks = []
    for count in (20_000, 30_000):
        out = folder(tmp_path / str(count), *(record(f"item {n}", columns={"n": n}) for n in range(count)))
        tracemalloc.start()
        with (tmp_path / "t.csv").open("wb") as file:
            Export(out, "csv").write(file)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 10_000 * 100, peaks


def test_every_row_has_the_columns_of_its_kinds() -> None:
    columns = Columns()
    row = row_of(FinalRecord(record("a", mask={"path": "/m.png", "share": 0.5, "seen": ["00", 1]}), None))
    columns.learn(row)
    assert row["mask_sha256"] == "00"
    assert dict(zip(columns.kinds, columns.cells(row), strict=True))["mask_share"] == 0.5
