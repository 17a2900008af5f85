"""`joyedit verify` and `joyedit status`: what they print and how they end."""

from __future__ import annotations

import json
import os
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
    assert [(one["kind"], one["id"]) for one in found if not one["file"]] == [("no_record", "e")]
    summary = last["summary"]
    assert (summary["failed_by_code"], summary["left"]) == ({"empty_picture": 1}, 1)
    assert "missing_file: a: a.png: no such file" in joyedit("verify", out).out.splitlines()
    status = joyedit("status", out, "--json")
    assert (status.code, json.loads(status.out)["failed_by_code"]) == (3, {"empty_picture": 1})
    # The next run mends all of it but the files that are nobody's. The record of e is lost, so its picture is one.
    assert joyedit(*RUN).code == 3
    assert '"code": "output_taken"' in (out / "results.jsonl").read_text()
    (out / "e.png").unlink()
    (pictures / "broken.png").write_bytes((pictures / "a.png").read_bytes())
    assert joyedit(*RUN).code == 0
    assert joyedit("verify", out).out.splitlines()[0] == "stray_file: stray.png: no record names this file"


def write(*ids: str, name: str = "m.jsonl", **more: object) -> None:
    lines = ({"image": "pictures/a.png", "instruction": "x", "id": one, **more} for one in ids)
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))


FAKE = ("-m", "fake", "--basesize", "256", "-q")


def kinds(message: str) -> list[tuple[str, str]]:
    found = [json.loads(line) for line in message.splitlines()[:-1]]
    return [(one["kind"], one["id"]) for one in found]


def test_ids_are_compared_with_the_manifest(joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a", "b", "c", "d")
    assert joyedit("run", "m.jsonl", *FAKE, "--format", "webp").code == 0
    # As many items as records, and yet not the same.
    write("a", "b", "new", "d", "newer")
    records = Path("edited/results.jsonl").read_text()
    Path("edited/results.jsonl").write_text(records.replace('"id": "d"', '"id": "e"'))
    monkeypatch.chdir("pictures")  # the manifest is found from anywhere
    verified = joyedit("verify", "../edited", "--json")
    assert verified.code == 3
    assert kinds(verified.out) == [("no_record", "new"), ("no_record", "d"), ("no_record", "newer")]
    summary = json.loads(verified.out.splitlines()[-1])["summary"]
    assert (summary["expected"], summary["left"], summary["unknown"]) == (5, 3, 2)
    message = joyedit("verify", "../edited").out.splitlines()
    assert message[0].startswith("no_record: new: this item has no record (")
    assert message[0].endswith("m.jsonl:3)")
    assert "not in the source 2" in message[-1]
    # Compared with a source that is named, an id too many is off as well.
    monkeypatch.chdir("..")
    assert sorted(kinds(joyedit("verify", "edited", "--source", "m.jsonl", "--json").out)[3:]) == [
        ("unknown_id", "c"), ("unknown_id", "e"),
    ]  # fmt: skip
    assert joyedit("verify", "edited", "--source", "gone.jsonl").code == 2
    write("a", "b", "c", "e", name="other.jsonl")
    assert joyedit("verify", "edited", "--source", "other.jsonl").code == 0


def test_ids_that_are_made_from_pictures_and_lines_that_are_none(joyedit: Command, pictures: Path) -> None:
    """Default ids, bad lines and a recipe's keys: the ids are those of the run."""
    Path("r.yaml").write_text(
        "name: r\ndescription: d\ninstruction: 'paint it {colour}'\nparameters:\n  colour: {default: red}\n"
    )
    Path("m.csv").write_text("image,colour\npictures/a.png,blue\npictures/a.png,\npictures/b.jpg,green\n")
    assert joyedit("run", "m.csv", *FAKE, "--recipe", "r.yaml").code == 0
    Path("r.yaml").unlink()
    assert joyedit("verify", "edited").code == 0
    assert "left 0" in joyedit("verify", "edited").out
    write("a", "b", name="n.jsonl")
    assert joyedit("run", "n.jsonl", *FAKE, "-o", "more", "--limit", "1").code == 0
    assert joyedit("verify", "more").code == 0, "the limit counts"
    with open("n.jsonl", "a") as file:
        file.write('{"no json\n')
    assert joyedit("verify", "more", "--source", "n.jsonl", "--json").out.count("no_record") == 3


def test_many_missing_items_are_one_line_and_all_of_them_json(joyedit: Command, pictures: Path) -> None:
    write(*(f"n{number}" for number in range(30)))
    assert joyedit("run", "m.jsonl", *FAKE, "--limit", "2").code == 0
    report = json.loads(Path("edited/report.json").read_text())
    report["asked"]["limit"] = None
    Path("edited/report.json").write_text(json.dumps(report))
    message = joyedit("verify", "edited").out.splitlines()
    assert len(message) == 20 + 2
    assert message[-2:] == ["no_record: 8 more items (use --json to see all of them)",
                         "records 2, ok 2, failed 0, left 28, files 2, off 28"]  # fmt: skip
    assert len(joyedit("verify", "edited", "--json").out.splitlines()) == 28 + 1


@pytest.mark.parametrize(
    "asked",
    [
        None,
        7,
        {"path": "-"},
        {"path": "gone.jsonl", "format": "png"},
        {"path": 3},
        {"path": "pipe.jsonl", "format": "png"},
        {"path": "m.jsonl", "format": "exe"},
    ],
)
def test_a_source_that_is_gone_is_counted(joyedit: Command, pictures: Path, asked: object) -> None:
    write("a", "b", "c")
    os.mkfifo("pipe.jsonl")
    assert joyedit("run", "m.jsonl", *FAKE).code == 0
    report = json.loads(Path("edited/report.json").read_text()) | {"asked": asked}
    Path("edited/report.json").write_text(json.dumps(report))
    lines = Path("edited/results.jsonl").read_text().splitlines(keepends=True)
    Path("edited/results.jsonl").write_text("".join(lines[:2]))
    verified = joyedit("verify", "edited")
    assert verified.code == 3
    assert "no_record: 1 of 3 items have no record" in verified.out
    assert "only the number of items is compared, not their ids" in verified.err


def test_a_retry_keeps_what_the_records_are_compared_with(joyedit: Command, pictures: Path) -> None:
    write("a", "b", "c")
    Path("broken.png").write_bytes(b"none yet")
    with open("m.jsonl", "a") as file:
        file.write(json.dumps({"image": "broken.png", "instruction": "x", "id": "late"}) + "\n")
    assert joyedit("run", "m.jsonl", *FAKE).code == 3
    Path("broken.png").write_bytes((pictures / "a.png").read_bytes())
    assert joyedit("run", "edited/failed.jsonl", *FAKE).code == 0
    verified = joyedit("verify", "edited")
    assert (verified.code, verified.out, verified.err) == (0, "records 4, ok 4, failed 0, left 0, files 4, off 0\n", "")


@pytest.mark.parametrize("command", ["verify", "status"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        (".", "no output folder of joyedit"),
        ("gone", "no such folder"),
        ("pictures/a.png", "no output folder of joyedit"),
    ],
)
def test_no_output_folder(joyedit: Command, pictures: Path, command: str, place: str, message: str) -> None:
    ended = joyedit(command, place)
    assert ended.code == 2
    assert message in ended.err


def test_another_source_of_another_kind(joyedit: Command, pictures: Path) -> None:
    flags = ("-m", "fake", "-p", "x", "--basesize", "256", "--steps", "1", "-o", "edited")
    assert joyedit("run", "pictures/a.png", "pictures/b.jpg", *flags).code == 0
    Path("l.txt").write_text("pictures/a.png\n")
    Path("m.jsonl").write_text('{"image": "pictures/a.png", "id": "a"}\n{"image": "pictures/b.jpg", "id": "b"}\n')
    assert joyedit("verify", "edited", "--source", "m.jsonl").code == 0
    told = joyedit("verify", "edited", "--source", "@l.txt")
    assert "no_record: pictures/a:" in told.out
    assert "no_record: deep/c:" in joyedit("verify", "edited", "--source", "pictures").out
