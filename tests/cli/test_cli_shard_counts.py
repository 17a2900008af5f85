"""How far the shards of `--write` are: in `joyedit status`, in the table at the end, and in report.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command
from PIL import Image

from joyedit.runtime.pipeline.pack import Shards

RUN = ("run", "m.jsonl", "-m", "fake", "--basesize", "256", "--steps", "1", "--no-page", "-o", "out")
SHARDS = ("--write", "webdataset", "--shard-size", "2")


def manifest(failing: int | None) -> None:
    Image.new("RGB", (64, 48), (90, 90, 30)).save("in.png")
    texts = ["FAIL-NAN" if number == failing else f"edit {number}" for number in range(5)]
    lines = [{"id": f"a{number}", "image": "in.png", "instruction": text} for number, text in enumerate(texts)]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def report() -> dict[str, Any]:
    return dict(json.loads(Path("out/report.json").read_text()))


def test_a_shard_that_waits_is_told(joyedit: Command) -> None:
    manifest(failing=2)
    ended = joyedit(*RUN, *SHARDS)
    assert ended.code == 3
    assert "2 complete, 1 waiting (webdataset)" in ended.out
    assert report()["write"] == {
        "format": "webdataset", "shard_size": 2, "complete": 2, "partial": 0, "waiting": 1,
    }  # fmt: skip
    told = joyedit("status", "out")
    assert told.code == 3
    assert "2 complete (webdataset); 1 finished picture is in none yet" in told.out
    told = joyedit("status", "out", "--json")
    found = json.loads(told.out)
    assert found["shards"] == {"format": "webdataset", "complete": 2, "partial": 0, "loose": 1}
    assert (found["done"], found["packed"]) == (4, 3)

    assert joyedit(*RUN, *SHARDS, "--write-partial").code == 3
    assert report()["write"] | {"shard_size": 0} == {
        "format": "webdataset", "shard_size": 0, "complete": 2, "partial": 1, "waiting": 1,
    }  # fmt: skip
    assert "2 complete, 1 partial (webdataset)\n" in joyedit("status", "out").out

    manifest(failing=None)
    ended = joyedit(*RUN, *SHARDS)
    assert ended.code == 0, ended.err
    assert report()["write"]["complete"] == 3
    assert report()["write"]["waiting"] == report()["write"]["partial"] == 0
    assert "3 complete (webdataset)\n" in joyedit("status", "out").out


def test_other_layouts_have_no_shards(joyedit: Command) -> None:
    manifest(failing=None)
    assert joyedit(*RUN).code == 0
    assert report()["write"] is None
    assert json.loads(joyedit("status", "out", "--json").out)["shards"] is None
    assert "shards" not in joyedit("status", "out").out
    assert joyedit(*RUN[:-1], "pairs", "--write", "imagefolder").code == 0
    assert json.loads(Path("pairs/report.json").read_text())["write"] == {"format": "imagefolder"}
    assert "shards" not in joyedit("status", "pairs").out


def test_the_counts_wait_for_no_lock(joyedit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report of a run that is stopped at once is written by the handler of a signal, which may come anywhere."""
    manifest(failing=None)
    real, told = Shards.came, []

    def came(self: Shards, item: Any) -> None:
        with self._lock:
            told.append(self.counts()["waiting"])
        real(self, item)

    monkeypatch.setattr(Shards, "came", came)
    assert joyedit(*RUN, *SHARDS, "--batch-size", "5").code == 0
    assert told == [0, 1, 1, 2, 2]
