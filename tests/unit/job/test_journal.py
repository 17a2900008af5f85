"""results.jsonl: what a record holds, what survives, and what a reader makes of a torn line."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from joyedit.errors import ManifestError, OutputError
from joyedit.job.journal import Journal, keep_earlier, read_journal
from joyedit.job.spec import ItemResult, Origin


def result(name: str, **changes: object) -> ItemResult:
    fields: dict[str, object] = {
        "id": name,
        "status": "ok",
        "instruction": "make it blue",
        "inputs": ("a.png",),
        "output": f"{name}.png",
        "bucket": (512, 1024),
        "settings": {"steps": 4},
        "seconds": {"read": 0.12345678},
        "notes": ("alpha flattened on white",),
        "origin": Origin(file="m.jsonl", line=3),
    }
    return ItemResult(**(fields | changes))  # type: ignore[arg-type]


def test_a_record_holds_what_the_docstring_says(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    line = journal.append(result("a"))
    journal.append(
        result("b", status="failed", output=None, bucket=None, error={"code": "x", "message": "y"}, origin=None)
    )
    journal.close()
    assert (tmp_path / "results.jsonl").read_text().splitlines()[0] == line
    first, second = read_journal(tmp_path / "results.jsonl")
    assert first == {
        "id": "a",
        "status": "ok",
        "instruction": "make it blue",
        "inputs": ["a.png"],
        "output": "a.png",
        "bucket": [512, 1024],
        "settings": {"steps": 4},
        "seconds": {"read": 0.123457},
        "notes": ["alpha flattened on white"],
        "error": None,
        "source": {"file": "m.jsonl", "line": 3},
    }
    assert second["error"] == {"code": "x", "message": "y"}
    assert (second["bucket"], second["output"], second["source"]) == (None, None, None)


def test_text_of_any_kind_stays_on_one_line_of_utf8(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    texts = ["把天空变成夜晚", 'two\nlines "quoted" \u2028', "lone \udc80 surrogate"]
    for number, text in enumerate(texts):
        journal.append(result(str(number), instruction=text))
    journal.close()
    data = (tmp_path / "results.jsonl").read_bytes()
    assert data.count(b"\n") == 3
    assert "把天空变成夜晚" in data.decode()
    assert [record["instruction"] for record in read_journal(tmp_path / "results.jsonl")] == texts


def test_a_record_reaches_the_system_at_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(result("a"))
    assert [record["id"] for record in read_journal(journal.path)] == ["a"]
    journal.close()


def test_the_disk_is_reached_in_groups_after_a_while_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    journal = Journal(tmp_path, clock=lambda: now[0])
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    for number in range(33):
        journal.append(result(str(number)))
    assert len(calls) == 2
    now[0] += 5
    journal.append(result("late"))
    assert len(calls) == 3
    journal.close()
    assert len(calls) == 4
    journal.close()
    assert len(calls) == 4


def test_appending_from_many_threads_tears_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    def work(name: str) -> None:
        for number in range(50):
            journal.append(result(f"{name}-{number}"))

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert len({record["id"] for record in read_journal(journal.path)}) == 200


def test_earlier_results_are_kept_under_the_next_free_number(tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        journal = Journal(tmp_path)
        journal.append(result(name))
        journal.close()
    names = ["results.1.jsonl", "results.2.jsonl", "results.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [next(read_journal(tmp_path / name))["id"] for name in names] == ["first", "second", "third"]


def test_empty_results_need_no_keeping(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").touch()
    assert keep_earlier(tmp_path / "results.jsonl") is None


def test_a_last_line_torn_at_any_byte_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(result("a"))
    whole = journal.path.stat().st_size
    journal.append(result("b"))
    journal.close()
    data = journal.path.read_bytes()
    for end in range(whole, len(data)):
        journal.path.write_bytes(data[:end])
        assert [record["id"] for record in read_journal(journal.path)] == ["a"], end
    journal.path.write_bytes(data)
    assert [record["id"] for record in read_journal(journal.path)] == ["a", "b"]


@pytest.mark.parametrize("broken", ["{", "[]", "{}", '{"id": 3}', "", "null", "[" * 100_000])
def test_a_line_that_is_broken_elsewhere_is_told_with_its_number(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "results.jsonl"
    good = json.dumps({"id": "a"})
    path.write_text(f"{good}\n{broken}\n{good}\n")
    with pytest.raises(ManifestError, match=r"results\.jsonl:2: this line is no record"):
        list(read_journal(path))


def test_a_journal_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        Journal(tmp_path / "missing")
    (tmp_path / "results.jsonl").symlink_to("/dev/full")
    journal = Journal(tmp_path)
    with pytest.raises(OutputError, match="No space left"):
        journal.append(result("a"))
    with pytest.raises(OutputError, match="cannot write"):
        journal.close()
