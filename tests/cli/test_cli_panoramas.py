"""Panoramas in parts: one item, one record, one picture without a seam."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_command import Command
from PIL import Image

from joyedit.job.parts import parts_of
from joyedit.job.results.records import final_records, read_journal

FAKE = ("-m", "fake", "--basesize", "256", "--steps", "1")
SIZE = (1400, 200)


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    """Slow waves, which scaling keeps."""
    across, down = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    waves = [120 + 100 * np.sin(across / 90 + down / 70 + shift) for shift in (0, 2, 4)]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    picture().save(tmp_path / "wide.png")
    picture((200, 1400)).save(tmp_path / "tall.png")
    picture((300, 300)).save(tmp_path / "square.png")
    lines = [{"image": f"{name}.png", "id": name, "instruction": "blue"} for name in ("wide", "tall", "square")]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def records(folder: str = "out") -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in final_records(Path(folder) / "results.jsonl")}


def pixels(path: str | Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def run(joyedit: Command, *more: str, code: int = 0, panorama: str = "parts") -> str:
    ended = joyedit("run", "e.jsonl", *FAKE, "-o", "out", "--panorama", panorama, *more)
    assert ended.code == code, ended.err
    return ended.err


def test_the_joined_result_is_that_of_the_whole(joyedit: Command, place: Path) -> None:
    """The fake lays a colour over all: its result is known, whatever parts it goes through in."""
    run(joyedit)
    tint = pixels("out/square.png") - 0.75 * pixels("square.png")
    colour = np.median(tint.reshape(-1, 3), axis=0)
    for name, size in (("wide", (200, 1400)), ("tall", (1400, 200))):
        result = pixels(f"out/{name}.png")
        assert result.shape[:2] == size
        assert np.abs(result - (0.75 * pixels(f"{name}.png") + colour)).max() <= 4
        told = records()[name]
        parts = parts_of(size, 256)
        assert parts is not None
        assert told["parts"] == {"count": len(parts.begins), "size": list(parts.bucket), "overlap": parts.overlap}
        assert told["size"] == list(size)
        assert told["bucket"] == list(parts.frame)
        assert told["fit"]["lost"] == told["fit"]["padded"] == 0
        assert told["notes"] == []
        assert abs(told["drift"]["dx"]) < 0.5
    assert "parts" not in records()["square"]
    assert len(list(read_journal(place / "out" / "results.jsonl"))) == 3
    assert json.loads((place / "out" / "report.json").read_text())["ok"] == 3
    assert joyedit("verify", "out").code == 0
    assert "panorama" in joyedit("show", "out/wide.png").out
    again = joyedit("run", "out/wide.png", "-m", "fake", "-o", "again")
    assert again.code == 0, again.err
    assert pixels("again/wide_again.png").tobytes() == pixels("out/wide.png").tobytes()
    page = "".join(path.read_text() for path in Path("out").glob("index*/**/*.js")) + Path("out/index.html").read_text()
    assert f"{len(parts.begins)} of {parts.bucket[1]} x {parts.bucket[0]}, which overlap by" in page


def test_by_default_it_goes_through_whole_and_is_told(joyedit: Command, place: Path) -> None:
    run(joyedit, panorama="whole")
    assert any("padded by reflection" in note for note in records()["wide"]["notes"])
    assert "parts" not in records()["wide"]
    assert "3 items are already done" in run(joyedit, panorama="whole")
    assert "would replace 3 finished pictures" in run(joyedit, code=2)
    run(joyedit, "--update")
    assert "parts" in records()["wide"]
    assert "3 items are already done" in run(joyedit)


@pytest.mark.parametrize("batch", ["1", "2", "16"])
def test_batches_change_nothing(joyedit: Command, place: Path, batch: str) -> None:
    run(joyedit)
    joyedit("run", "e.jsonl", *FAKE, "-o", "other", "--panorama", "parts", "--batch-size", batch)
    for name in ("wide", "tall", "square"):
        assert (place / "other" / f"{name}.png").read_bytes() == (place / "out" / f"{name}.png").read_bytes()


def test_sizes_masks_and_unedited(joyedit: Command, place: Path) -> None:
    parts = parts_of((200, 1400), 256)
    assert parts is not None
    mask = Image.new("L", SIZE)
    mask.paste(255, (600, 50, 800, 150))
    mask.save("m.png")
    for size, wanted in (("bucket", parts.frame[::-1]), ("long=700", (700, 100)), ("input", SIZE)):
        run(joyedit, "--size", size, "--overwrite", "--limit", "1", "--mask", "m.png", "--register")
        with Image.open("out/wide.png") as result:
            assert result.size == wanted
    black = np.asarray(mask) == 0
    assert np.array_equal(pixels("out/wide.png")[black], pixels("wide.png")[black])
    assert not np.array_equal(pixels("out/wide.png")[~black], pixels("wide.png")[~black])
    run(joyedit, "--overwrite", "--limit", "1", "--keep-unedited")
    assert pixels("out/wide.png").tobytes() == pixels("wide.png").tobytes(), "a tint of all is no edit"


def test_a_part_that_fails_fails_the_item_once(joyedit: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from joyedit.errors import ItemError
    from joyedit.runtime.pipeline.running_batch import RunningBatch

    real = RunningBatch.picture
    calls: list[int] = []

    def broken(self: RunningBatch, place: int) -> Image.Image:
        calls.append(place)
        if len(calls) in (2, 3):
            raise ItemError("not_finite", "the result holds NaN")
        return real(self, place)

    monkeypatch.setattr(RunningBatch, "picture", broken)
    run(joyedit, "--limit", "1", code=3)
    assert records()["wide"]["error"] == {"code": "not_finite", "message": "the result holds NaN"}
    assert len(list(read_journal(place / "out" / "results.jsonl"))) == 1
    assert records()["wide"]["bucket"] == list(parts_of((200, 1400), 256).frame)  # type: ignore[union-attr]
    assert not (place / "out" / "wide.png").exists()
    monkeypatch.setattr(RunningBatch, "picture", real)
    assert joyedit("run", "out/failed.jsonl", *FAKE, "-o", "out", "--panorama", "parts").code == 0
    assert records()["wide"]["status"] == "ok"


@pytest.mark.parametrize(("word", "code"), [("FAIL-BATCH", "edit_failed"), ("FAIL-OOM", "out_of_memory")])
def test_parts_that_all_fail_are_one_failure(joyedit: Command, place: Path, word: str, code: str) -> None:
    text = (place / "e.jsonl").read_text().replace('"blue"', f'"{word}"', 1)
    (place / "e.jsonl").write_text(text)
    run(joyedit, code=3)
    assert records()["wide"]["error"]["code"] == code
    assert [one["id"] for one in read_journal(place / "out" / "results.jsonl")].count("wide") == 1
    report = json.loads((place / "out" / "report.json").read_text())
    assert (report["ok"], report["failed"]) == (2, 1)


def test_a_broken_panorama_is_one_failure(joyedit: Command, place: Path) -> None:
    data = (place / "wide.png").read_bytes()
    (place / "wide.png").write_bytes(data[: len(data) // 2])
    run(joyedit, code=3)
    assert records()["wide"]["error"]["code"] == "truncated_picture"
    assert [one["id"] for one in read_journal(place / "out" / "results.jsonl")].count("wide") == 1


def test_the_dry_run_counts_the_edits(joyedit: Command, place: Path) -> None:
    dry = joyedit("run", "e.jsonl", *FAKE, "-o", "out", "--panorama", "parts", "--dry-run")
    count = len(parts_of((200, 1400), 256).begins)  # type: ignore[union-attr]
    assert f"part {count} of {count}" in dry.out
    assert "cropped" not in dry.out
    assert f"{2 * count} of the edits are parts of panoramas" in dry.out
    assert "items 3" in dry.out
    told = joyedit("run", "e.jsonl", *FAKE, "-o", "out", "--panorama", "parts", "--dry-run", "--json").out
    lines = [json.loads(line) for line in told.splitlines()]
    assert lines[-1]["summary"]["parts"] == 2 * count
    edits = [edit for line in lines[:-1] for edit in line["edits"] if edit["id"] == "tall"]
    assert sorted(edit["part"] for edit in edits) == [[number + 1, count] for number in range(count)]
