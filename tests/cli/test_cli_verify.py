"""`joyedit verify` and `joyedit status`: what they print and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_command import Command

RUN = ("run", "pictures", "-p", "blue", "-m", "fake", "--basesize", "256", "-q")


def test_all_in_order(joyedit: Command, pictures: Path) -> None:
    assert joyedit(*RUN).code == 0
    verified = joyedit("verify", "edited")
    assert (verified.code, verified.out) == (0, "records 3, ok 3, failed 0, left 0, files 3, off 0\n")
    status = joyedit("status", "edited")
    assert status.code == 0
    assert [line.split() for line in status.out.splitlines()][:4] == [
        ["state", "complete"], ["done", "3"], ["failed", "0"], ["left", "0"],
    ]  # fmt: skip
    assert joyedit("verify", "edited", "--json").out.count("\n") == 1


def test_everything_that_can_be_off(joyedit: Command, pictures: Path) -> None:
    for name in ("d", "e", "f"):
        (pictures / f"{name}.png").write_bytes((pictures / "a.png").read_bytes())
    (pictures / "broken.png").touch()
    assert joyedit(*RUN).code == 3
    out = Path("edited")
    (out / "a.png").unlink()
    data = bytearray((out / "b.png").read_bytes())
    data[-20] ^= 1
    (out / "b.png").write_bytes(data)
    (out / "d.png").write_bytes(b"short")
    (out / "stray.png").touch()
    (out / f".{'a' * 16}.joyedit-tmp").touch()
    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"id": "e"' not in line]
    (out / "results.jsonl").write_text("".join(kept) + '{"id": "to')
    verified = joyedit("verify", out, "--json")
    assert verified.code == 3
    *found, last = [json.loads(line) for line in verified.out.splitlines()]
    assert sorted((one["kind"], one["file"]) for one in found if one["file"]) == [
        ("missing_file", "a.png"),
        ("stray_file", "e.png"),
        ("stray_file", "stray.png"),
        ("torn_journal", "results.jsonl"),
        ("unfinished_file", f".{'a' * 16}.joyedit-tmp"),
        ("wrong_content", "b.png"),
        ("wrong_size", "d.png"),
    ]
    assert [one["message"] for one in found if not one["file"]] == ["1 of 7 items have no record"]
    summary = last["summary"]
    assert (summary["failed_by_code"], summary["left"]) == ({"empty_picture": 1}, 1)
    assert "missing_file: a: a.png: no such file" in joyedit("verify", out).out.splitlines()
    status = joyedit("status", out, "--json")
    assert (status.code, json.loads(status.out)["failed_by_code"]) == (3, {"empty_picture": 1})
    # The next run mends all of it but the file that is nobody's.
    (pictures / "broken.png").write_bytes((pictures / "a.png").read_bytes())
    assert joyedit(*RUN).code == 0
    assert joyedit("verify", out).out.splitlines()[0] == "stray_file: stray.png: no record names this file"


@pytest.mark.parametrize("command", ["verify", "status"])
@pytest.mark.parametrize("place", [".", "gone", "pictures/a.png"])
def test_no_output_folder(joyedit: Command, pictures: Path, command: str, place: str) -> None:
    ended = joyedit(command, place)
    assert ended.code == 2
    assert "no output folder of joyedit" in ended.err
