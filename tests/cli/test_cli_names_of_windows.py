"""A run goes on where an earlier joyedit gave ids that Windows cannot hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_command import Command
from PIL import Image

from joyedit.job.source import names

RUN = ("-p", "x", "-m", "fake", "--basesize", "256", "--steps", "1", "-q", "-o", "out")


def test_what_was_finished_under_an_earlier_id_is_done(joyedit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("is it?.png", "b.png", "c*d/e.png"):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), "red").save(Path("in", name))
    with monkeypatch.context() as earlier:
        earlier.setattr(names, "_FOREIGN", names.re.compile("(?!)"))
        assert joyedit("run", "in", *RUN).code == 0
    assert Path("out/is it?.png").exists()
    before = {path: os.stat(path).st_mtime_ns for path in Path("out").rglob("*.png")}
    records = Path("out/results.jsonl").read_text()
    assert joyedit("run", "in", *RUN).code == 0
    assert {path: os.stat(path).st_mtime_ns for path in Path("out").rglob("*.png")} == before
    assert Path("out/results.jsonl").read_text() == records
    ended = joyedit("verify", "out", "--json")
    assert ended.code == 0, ended.out
    assert joyedit("run", "in", *RUN[:-1], "new").code == 0
    ids = {json.loads(line)["id"] for line in Path("new/results.jsonl").read_text().splitlines()}
    assert ids == {"is it_", "b", "c_d/e"}
