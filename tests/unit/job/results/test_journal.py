"""results.jsonl: what a record holds, what survives, and what a reader makes of a torn line."""

from __future__ import annotations

import json
import os
import random
import threading
from datetime import datetime
from pathlib import Path

import pytest

from joyedit.errors import ManifestError, OutputError
from joyedit.job import failpoints
from joyedit.job.own_files import CUT
from joyedit.job.results.journal import Journal
from joyedit.job.results.records import damaged_lines, final_records, read_journal
from joyedit.job.spec import ItemResult, Origin, Seen, Stamp


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
        "fingerprint": "f",
        "output_bytes": 9,
        "output_sha256": "o",
        "inputs_seen": (Seen("i", Stamp(1, 2, 3)),),
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
    assert datetime.fromisoformat(first.pop("at")).tzinfo is not None
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
        "fingerprint": "f",
        "output_bytes": 9,
        "output_sha256": "o",
        "inputs_seen": [["i", 1, 2, 3]],
        "planned_output": None,
        "shared": None,
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


def test_a_later_journal_goes_on_and_the_last_record_of_an_id_counts(tmp_path: Path) -> None:
    for instruction in ("first", "second"):
        journal = Journal(tmp_path)
        for name in ("a", "b"):
            journal.append(result(name, instruction=instruction))
        journal.close()
    journal = Journal(tmp_path)
    journal.append(result("b", instruction="third"))
    assert len(journal) == 2
    message = {name: (journal.final(name) or {})["instruction"] for name in ("a", "b")}
    assert message == {"a": "second", "b": "third"}
    assert journal.final("c") is None
    journal.close()
    assert len(list(read_journal(journal.path))) == 5
    assert [(record["id"], record["instruction"]) for record in final_records(journal.path)] == [
        ("a", "second"),
        ("b", "third"),
    ]


def test_failures_are_those_whose_last_record_failed(tmp_path: Path) -> None:
    fault = {"status": "failed", "output": None, "error": {"code": "x", "message": "y"}}
    journal = Journal(tmp_path)
    journal.append(result("mended", **fault))
    journal.append(result("bad", **fault))
    journal.append(result("mended"))
    journal.append(result("worse"))
    journal.append(result("worse", **fault))
    assert [record["id"] for record in journal.failures()] == ["bad", "worse"]
    journal.close()
    journal = Journal(tmp_path)
    assert [record["id"] for record in journal.failures()] == ["bad", "worse"]
    journal.close()


def test_a_long_record_is_found_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(result("a", instruction="x" * 100_000))
    journal.append(result("b"))
    assert len((journal.final("a") or {})["instruction"]) == 100_000
    journal.close()


def test_records_are_found_in_any_order_and_as_they_are_now(tmp_path: Path) -> None:
    """Records of many lengths, so that a neighbour read along with another ends in the middle of a block."""
    journal = Journal(tmp_path)
    lengths = {str(number): number * 97 % 9000 for number in range(300)}
    for name, length in lengths.items():
        journal.append(result(name, instruction="x" * length))
    dice = random.Random(2)
    for _ in range(2000):
        name = dice.choice(list(lengths))
        if dice.random() < 0.1:
            lengths[name] = dice.randrange(20_000)
            journal.append(result(name, instruction="x" * lengths[name]))
        found = journal.final(name)
        assert found is not None
        assert (found["id"], len(found["instruction"])) == (name, lengths[name])
    journal.close()


@pytest.mark.parametrize("path", ["half a pair \udc80", "\udcff\udcfe", "😀 whole"])
def test_a_name_that_is_no_utf8_is_read_back(tmp_path: Path, path: str) -> None:
    journal = Journal(tmp_path)
    journal.append(result("a", inputs=(path,)))
    assert (journal.final("a") or {})["inputs"] == [path]
    journal.close()
    assert [record["inputs"] for record in read_journal(tmp_path / "results.jsonl")] == [[path]]


def test_a_record_of_nested_brackets_is_one(tmp_path: Path) -> None:
    deep = '{"id": "a", "status": "ok", "extra": ' + "[" * 400 + "]" * 400 + "}\n"
    (tmp_path / "results.jsonl").write_text(deep)
    assert [record["id"] for record in read_journal(tmp_path / "results.jsonl")] == ["a"]


def test_an_empty_journal_is_one(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").touch()
    journal = Journal(tmp_path)
    assert (len(journal), journal.repaired) == (0, None)
    journal.close()


def test_a_file_that_torn_records_ended_is_cut_back_at_every_byte(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    ends = []
    for name in ("a", "b", "c"):
        journal.append(result(name))
        ends.append(journal.path.stat().st_size)
    journal.close()
    data = journal.path.read_bytes()
    for end in range(ends[0], len(data) + 1):
        journal.path.write_bytes(data[:end])
        again = Journal(tmp_path)
        whole = sum(end >= one - 1 for one in ends)  # a record that lacks only the end of its line is whole
        assert (len(again), again.path.stat().st_size) == (whole, ends[whole - 1]), end
        assert (again.repaired is None) == (end in ends or end + 1 in ends), end
        again.append(result("d"))
        again.close()
        assert [record["id"] for record in read_journal(journal.path)] == [*"abc"[:whole], "d"], end
    assert not (tmp_path / CUT).exists()


@pytest.mark.parametrize(
    "tail", [b"\0" * 5000, b"not ours\n", b"{}\nmore", b'{"id": 3}\n', b"\xff\xfe", b"[" * 10**6 + b"\n"]
)
def test_a_foreign_end_is_cut_off_and_kept(tmp_path: Path, tail: bytes) -> None:
    journal = Journal(tmp_path)
    journal.append(result("a"))
    journal.close()
    data = journal.path.read_bytes()
    journal.path.write_bytes(data + tail)
    assert damaged_lines(journal.path) == ([], len(tail))
    journal = Journal(tmp_path)
    assert len(journal) == 1
    assert journal.repaired is not None
    assert str(len(tail)) in journal.repaired
    journal.close()
    assert journal.path.read_bytes() == data
    assert (tmp_path / CUT).read_bytes() == tail


def test_a_file_that_is_no_journal_at_all_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"score": 1}\n{"score": 2}\n')
    with pytest.raises(ManifestError, match="line is not a record"):
        Journal(tmp_path)
    assert path.read_text() == '{"score": 1}\n{"score": 2}\n'
    path.write_bytes(b'{"id": "a", "stat')  # a first record, torn
    journal = Journal(tmp_path)
    assert len(journal) == 0
    journal.close()


def test_a_broken_line_between_records_is_not_cut_away(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(result("a"))
    journal.close()
    line = journal.path.read_text()
    journal.path.write_text(line + "broken\n" + line)
    journal = Journal(tmp_path)
    assert (
        journal.damaged == "results.jsonl: 1 line is no record (line 2): joyedit keeps it as it is, and passes over it"
    )
    journal.append(result("b"))
    journal.close()
    assert journal.path.read_text().startswith(line + "broken\n" + line)
    assert [record["id"] for record in final_records(journal.path)] == ["a", "b"]


def test_after_a_fault_no_further_record_is_taken_and_the_file_ends_whole(
    tmp_path: Path,
) -> None:
    failpoints.arm("journal.half:2:enospc")
    try:
        journal = Journal(tmp_path)
        journal.append(result("a"))
        with pytest.raises(OutputError, match="No space left"):
            journal.append(result("b"))
    finally:
        failpoints.arm(None)
    with pytest.raises(OutputError, match="No space left"):
        journal.append(result("c"))
    journal.close()
    data = journal.path.read_bytes()
    assert data.endswith(b"\n")
    assert [record["id"] for record in read_journal(journal.path)] == ["a"]


def test_a_last_line_torn_at_any_byte_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(result("a"))
    whole = journal.path.stat().st_size
    journal.append(result("b"))
    journal.close()
    data = journal.path.read_bytes()
    for end in range(whole, len(data) - 1):
        journal.path.write_bytes(data[:end])
        assert [record["id"] for record in read_journal(journal.path)] == ["a"], end
    for end in (len(data) - 1, len(data)):  # an editor may take the end of the last line away
        journal.path.write_bytes(data[:end])
        assert [record["id"] for record in read_journal(journal.path)] == ["a", "b"]


@pytest.mark.parametrize("broken", ["{", "[]", "{}", '{"id": 3}', "", "null", "[" * 100_000])
def test_a_line_that_is_broken_elsewhere_is_passed_over_and_has_a_number(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "results.jsonl"
    good = json.dumps({"id": "a", "status": "ok"})
    path.write_text(f"{good}\n{broken}\n{good}\n")
    assert [record["id"] for record in read_journal(path)] == ["a", "a"]
    assert damaged_lines(path) == ([2], 0)


def test_a_journal_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        Journal(tmp_path / "missing")
    (tmp_path / "results.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"results\.jsonl in the output folder is a link"):
        Journal(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
