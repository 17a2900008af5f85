"""What a run gives back: results in the order of the source, a table, HTML, and a folder that lives with them."""

from __future__ import annotations

import gc
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import joyedit
from joyedit.api.folder import ResultFolder
from joyedit.api.outcome import remember
from joyedit.api.result_list import ResultList
from joyedit.errors import OutputError
from joyedit.job.results import latest_records
from joyedit.job.results.objects.names import Mark

Run = Callable[..., joyedit.Outcome]


def rows(*instructions: str) -> list[dict[str, object]]:
    return [
        {"id": f"n{number}", "image": Image.new("RGB", (60, 40), (number, 9, 9)), "instruction": text}
        for number, text in enumerate(instructions)
    ]


def test_results_have_the_fields_of_their_records(fake_run: Run, tmp_path: Path) -> None:
    outcome = fake_run(rows("a", "FAIL-NAN", "c"))
    assert outcome.exit_code == 3
    assert [one.id for one in outcome] == ["n0", "n1", "n2"]
    assert len(outcome) == 3
    assert [one.id for one in outcome[1:]] == ["n1", "n2"]
    good, bad = outcome[0], outcome[1]
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert good.record in [json.loads(line) for line in lines]
    assert (good.status, good.ok, good.error) == ("ok", True, None)
    assert good.output_sha256 == good.record["output_sha256"]
    assert "output_sha256" in dir(good)
    assert good.path == tmp_path / "out" / "n0.png"
    assert good.image is not None
    assert good.image.size == (60, 40)
    assert good.seconds > 0
    assert (bad.ok, bad.error_code, bad.image, bad.path) == (False, "not_finite", None, None)
    assert outcome.failed[0].id == "n1"
    with pytest.raises(AttributeError, match=r"a result has no field 'colour' \(there are: id, status"):
        good.colour  # noqa: B018


def test_a_picture_that_is_gone_is_told(fake_run: Run, tmp_path: Path) -> None:
    outcome = fake_run(rows("a"))
    (tmp_path / "out" / "n0.png").unlink()
    with pytest.raises(OutputError, match=r"n0.png: cannot read this picture: No such file"):
        outcome[0].image  # noqa: B018
    assert "n0" in outcome._repr_html_()
    (tmp_path / "out" / "results.jsonl").unlink()
    with pytest.raises(OutputError, match="cannot read this file"):
        outcome[0]


def test_results_are_found_after_a_later_run_wrote_more(fake_run: Run) -> None:
    first = fake_run(rows("a", "b"))
    assert first[0].instruction == "a"
    fake_run(rows("c"), update=True)
    assert [one.instruction for one in first] == ["a", "b"], "the records that it had found"
    again = fake_run(rows("c", "b"))
    assert [(one.instruction, one.was_done) for one in again] == [("c", True), ("b", True)]


def test_the_table(fake_run: Run) -> None:
    outcome = fake_run([{**row, "note": 7} for row in rows("a", "FAIL-NAN")], keep_columns="note")
    good, bad = outcome.table()
    assert good.keys() == bad.keys()
    assert (good["id"], good["status"], good["width"], good["height"], good["seed"]) == ("n0", "ok", 60, 40, 42)
    assert (good["note"], bad["note"]) == (7, 7)
    assert (bad["error_code"], bad["output"]) == ("not_finite", None)
    assert Path(good["output"]).is_file()


def test_the_table_of_libraries(fake_run: Run) -> None:
    outcome = fake_run(rows("a", "FAIL-NAN"))
    pytest.importorskip("pandas")
    assert list(outcome.to_pandas()["id"]) == ["n0", "n1"]
    pytest.importorskip("pyarrow")
    assert outcome.to_arrow().to_pylist() == outcome.table()


def test_a_table_of_arrow_takes_what_records_hold(fake_run: Run, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    given = rows("a", "b", "c")
    for row, value, score in zip(given, (1, "x", [2]), (0.5, float("nan"), float("-inf")), strict=True):
        row |= {"mixed": value, "number": 5, "big": 2**70, "score": score}
    outcome = fake_run(given, keep_columns=["mixed", "number", "big", "score"])
    table = outcome.to_arrow()
    assert list(map(str, table["score"].to_pylist())) == ["0.5", "nan", "-inf"]
    assert table["mixed"].to_pylist() == ["1", "x", "[2]"]
    assert table["big"].to_pylist() == [str(2**70)] * 3
    assert table["number"].type == pa.int64()
    folder = tmp_path / "odd\udcff"
    folder.mkdir()
    Image.new("RGB", (60, 40)).save(folder / "a.png")
    odd = fake_run(folder, prompt="x", output=tmp_path / "other").to_arrow()
    assert odd["inputs"].to_pylist() == [[f"{tmp_path}/odd\\udcff/a.png"]]
    assert replace(outcome, results=ResultList(ResultFolder(tmp_path), {})).to_arrow().num_rows == 0


def test_pictures_in_heic_and_in_shards(fake_run: Run) -> None:
    pytest.importorskip("pillow_heif")
    outcome = fake_run(rows("a"), format="heic")
    assert outcome[0].image is not None
    assert outcome[0].image.size == (60, 40)
    assert outcome._repr_html_().count("<img ") == 1
    packed = fake_run(rows("a", "b"), output=outcome.folder.parent / "packed", write="webdataset")
    assert packed._repr_html_().count("<img ") == 2


def test_many_results_of_shards_read_their_records_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_run: Run
) -> None:
    options = {"model": "fake", "output": tmp_path / "out", "steps": 1, "basesize": 256, "progress": False}
    given = list(joyedit.stream(rows(*"x" * 30), **options, write="webdataset", shard_size=10, page=False))
    assert any("packed" not in one.record for one in given)
    looks = []
    real = latest_records.parse
    monkeypatch.setattr(latest_records, "parse", lambda line: looks.append(line) or real(line))
    for one in given:
        assert one.image is not None
    lines = (tmp_path / "out" / "results.jsonl").read_bytes().count(b"\n")
    assert len(looks) <= lines + len(given)


def test_pictures_on_an_object_store(tmp_path: Path, fake_run: Run) -> None:
    fsspec = pytest.importorskip("fsspec")
    outcome = fake_run(rows("a"))
    result, address = outcome[0], f"memory://{tmp_path.name}/run"
    fsspec.filesystem("memory").pipe_file(f"{address}/n0.png", result.path.read_bytes())
    state = tmp_path / "state"
    state.mkdir()
    (state / "results.jsonl").write_bytes((tmp_path / "out" / "results.jsonl").read_bytes())
    Mark(address=address).write(state)
    there = joyedit.Result(result.record, ResultFolder(state), was_done=False, file=None)
    assert there.image is not None
    assert there.image.tobytes() == result.image.tobytes()


def test_an_item_that_is_given_up_is_a_result_too(fake_run: Run, tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (60, 40), (number, 0, 0)).save(tmp_path / f"{number}.png")
    given = [{"id": str(n), "image": tmp_path / f"{n}.png", "instruction": "x"} for n in range(2)]
    fake_run(given)
    path = tmp_path / "out" / "results.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        if record["id"] == "1":
            error = {"code": "killed_the_run", "message": "the process died"}
            record |= {"status": "failed", "output": None, "error": error, "fingerprint": None}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "out" / "1.png").unlink()
    outcome = fake_run(given)
    assert outcome.exit_code == 3
    assert [(one.id, one.status, one.was_done) for one in outcome] == [("0", "ok", True), ("1", "failed", True)]
    assert [one.error_code for one in outcome.failed] == ["killed_the_run"]


def test_html_is_small_and_escaped(fake_run: Run) -> None:
    outcome = fake_run([{**row, "instruction": f"<script>{n}</script>"} for n, row in enumerate(rows(*"x" * 30))])
    text = outcome._repr_html_()
    assert "<script>" not in text
    assert "&lt;script&gt;0&lt;/script&gt;" in text
    assert text.count("<img ") == 12
    assert "... and 18 more" in text
    assert "30 edited" in text
    assert len(text) < 60_000
    sources = re.findall(r'src="([^"]*)"', text)
    assert all(one.startswith("data:image/jpeg;base64,") for one in sources)
    shown = outcome[0]._repr_html_()
    assert "&lt;script&gt;0" in shown
    assert "<script>" not in shown
    failed = fake_run([{**rows("x")[0], "instruction": "FAIL-NAN <i>"}], update=True)
    assert "the result holds NaN" in failed[0]._repr_html_()
    assert failed[0]._repr_png_() is None


def test_a_picture_as_a_notebook_shows_it(fake_run: Run) -> None:
    large = Image.new("RGB", (1200, 600), "white")
    outcome = fake_run([{"image": large, "instruction": "x"}])
    data = outcome[0]._repr_png_()
    assert data is not None
    with Image.open(io.BytesIO(data)) as shown:
        assert shown.size == (512, 256)


def test_a_temporary_folder_lives_as_long_as_a_result(fake_run: Run) -> None:
    outcome = fake_run(rows("a", "b"), output=None)
    folder, result = outcome.folder, outcome[0]
    assert (folder / "n0.png").is_file()
    remember(fake_run(rows("c")))
    del outcome
    gc.collect()
    assert result.image is not None
    del result
    gc.collect()
    assert not folder.exists()


def test_one_picture_with_a_name_of_its_own(fake_run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.png")
    outcome = fake_run(tmp_path / "a.png", prompt="x", output=tmp_path / "new.png")
    assert outcome[0].path == tmp_path / "new.png"
    assert outcome[0].image is not None
    assert outcome.folder == tmp_path


def test_the_last_outcome_and_how_it_reads(fake_run: Run) -> None:
    outcome = fake_run(rows("a", "FAIL-NAN"))
    assert joyedit.last_outcome() is outcome
    assert repr(outcome).startswith("Outcome(1 edited, 1 failed; ")
    assert repr(outcome[1]) == "Result('n1', failed: not_finite)"
    assert isinstance(outcome, joyedit.RunOutcome)
    assert outcome
