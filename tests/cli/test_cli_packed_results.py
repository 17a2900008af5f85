"""Pictures in shards, asked for from elsewhere: from Python, by a comparison, and by an export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_command import Command
from PIL import Image

from joyedit import run, stream

RUN = ("-m", "fake", "--basesize", "256", "--steps", "1", "--no-page")


def lines(count: int) -> None:
    for number in range(count):
        Image.new("RGB", (64, 48), (60 * number, 90, 30)).save(f"in{number}.png")
    made = [{"id": f"i{n}", "image": f"in{n}.png", "instruction": f"edit {n}"} for n in range(count)]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made))


def test_results_of_python_show_what_lies_in_a_shard(joyedit: Command) -> None:
    pytest.importorskip("pyarrow")
    lines(3)
    options = {"model": "fake", "basesize": 256, "steps": 1, "progress": False}
    plain = run("m.jsonl", output="loose", **options)
    packed = run("m.jsonl", output="packed", write="webdataset", shard_size=2, **options)
    assert [str(one.path).partition("#")[2] != "" for one in packed] == [True] * 3
    for one, other in zip(plain, packed, strict=True):
        assert one.image is not None
        assert other.image is not None
        assert one.image.tobytes() == other.image.tobytes()
        assert other._repr_png_() is not None
    given = list(stream("m.jsonl", output="streamed", write="parquet", shard_size=1, **options))
    assert not any(one.path is not None and one.path.exists() for one in given), "the files are in shards now"
    assert all(one.image is not None for one in given)


def test_a_comparison_and_an_export_of_shards(joyedit: Command) -> None:
    lines(3)
    assert joyedit("run", "m.jsonl", *RUN, "-o", "a").code == 0
    assert joyedit("run", "m.jsonl", *RUN, "-o", "b", "--write", "webdataset", "--shard-size", "2").code == 0
    done = joyedit("compare", "a", "b", "--json", "told.json", "--page", "page.html")
    assert done.code == 0, done.err
    told = json.loads(Path("told.json").read_text())
    assert [item["state"] for item in told["items"]] == ["identical"] * 3
    done = joyedit("export", "b", "--to", "jsonl", "-o", "b.jsonl")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in Path("b.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == ["i0", "i1", "i2"], "rows are in the order in which items ended"
    assert all("#" in row["output"] for row in rows)
