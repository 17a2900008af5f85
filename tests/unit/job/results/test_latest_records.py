"""The last record of an id, asked for while the journal grows: what was read is not read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from joyedit.job.results import latest_records
from joyedit.job.results.latest_records import LatestRecords


def line(name: str, **more: Any) -> str:
    return json.dumps({"id": name, "status": "ok", **more}) + "\n"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lines that were parsed."""
    seen: list[bytes] = []
    real = latest_records.parse

    def parse(data: bytes) -> dict[str, Any] | None:
        seen.append(data)
        return real(data)

    monkeypatch.setattr(latest_records, "parse", parse)
    return seen


def test_each_line_is_read_once_and_then_only_what_was_asked_for(tmp_path: Path, parsed: list[bytes]) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("".join(line(str(n)) for n in range(100)))
    latest = LatestRecords(path)
    assert all(latest.get(str(n)) == {"id": str(n), "status": "ok"} for n in range(100))
    assert len(parsed) == 200
    with path.open("a") as file:
        file.write(line("7", output="new.png") + "no record\n" + line("new", replaces=["8"]))
    assert latest.get("7") == {"id": "7", "status": "ok", "output": "new.png"}
    assert latest.get("new") is not None
    assert latest.get("8") is None
    assert len(parsed) == 200 + 3 + 2


def test_a_torn_end_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    text = line("a") + line("b")
    path.write_text(text[:-9])
    latest = LatestRecords(path)
    assert latest.get("a") is not None
    assert latest.get("b") is None
    path.write_text(text)
    assert latest.get("b") == {"id": "b", "status": "ok"}


def test_a_file_that_was_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(line("a") + line("b"))
    latest = LatestRecords(path)
    assert latest.get("b") is not None
    path.write_text(line("c") + line("longer than before") + line("b", at="now"))  # in place, and longer
    assert latest.get("b") == {"id": "b", "status": "ok", "at": "now"}
    path.write_text(line("b"))  # shorter
    assert latest.get("b") == {"id": "b", "status": "ok"}
    other = tmp_path / "other"
    other.write_text(line("x") + line("b", at="then"))
    other.replace(path)
    assert latest.get("b") == {"id": "b", "status": "ok", "at": "then"}
    assert latest.get("c") is None
    path.unlink()
    with pytest.raises(FileNotFoundError):
        latest.get("b")
