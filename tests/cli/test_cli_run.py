"""`joyedit run` on the fake backend: what it prints, what it writes, how it ends."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command
from PIL import Image

from joyedit.job import failpoints
from joyedit.job.own_files import PAGE, PAGE_FILES
from support.pictures import read_metadata

FAKE = ("-m", "fake", "--basesize", "256")


def records(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "results.jsonl").read_text().splitlines()
    message = [json.loads(line) for line in lines]
    assert len({record["id"] for record in message}) == len(message)
    return {record["id"]: record for record in message}


def report(folder: Path) -> dict[str, Any]:
    message: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert message["items"] == message["ok"] + message["failed"] == len(records(folder))
    return message


def files(folder: Path) -> list[str]:
    """All files but those of the page, which is one HTML file and a folder."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in found if name.partition("/")[0] not in (PAGE, PAGE_FILES))


def manifest(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_folder_is_mirrored(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures, *FAKE, "-p", "make it night", "--steps", "2", "--batch-size", "1")
    assert ended.code == 0
    assert files(Path("edited")) == ["a.png", "b.png", "deep/c.png", "report.json", "results.jsonl"]
    assert ended.messages == [
        "loading fake",
        "model: fake (fake layout)",
        "device: cpu (auto)",
        "dtype: fp32 (auto)",
        "attention: sdpa (auto)",
        "schedule: original (auto)",
        "instruction: 'make it night'",
        "steps: 2",
        "guidance scale: 4.0 (built-in)",
        "seed: 42 (built-in)",
        "negative prompt: '' (built-in)",
        "basesize: 256",
        "size: input (built-in)",
        "fit: auto (built-in)",
        "batch size: 1",
        "passed over: 1 files and folders: 1 x no picture (-v names them)",
        "1/3 items, RATE, TIME left",
        "2/3 items, RATE, TIME left",
        "3/3 items, RATE",
    ]
    table = dict(line.split("  ", 1) for line in ended.out.splitlines())
    assert table["items"].strip() == "3: 3 ok, 0 failed"
    assert table["batches"].strip() == "3"
    assert set(records(Path("edited"))) == {"a", "b", "deep/c"}
    message = report(Path("edited"))
    assert (message["ok"], message["passed_over"], message["exit_code"]) == (3, 1, 0)
    assert message["settings"]["steps"] == 2


def test_once_more_with_nothing_and_with_something_to_do(joyedit: Command, pictures: Path) -> None:
    run = ("run", pictures, *FAKE, "-p", "make it night", "--batch-size", "1")
    assert joyedit(*run).code == 0
    again = joyedit(*run)
    assert again.code == 0
    assert again.messages == ["3 items are already done"], "no model is loaded"
    assert "3 of them" in again.out
    (pictures / "d.png").write_bytes((pictures / "a.png").read_bytes())
    more = joyedit(*run)
    assert more.code == 0
    assert more.messages[:2] == ["loading fake", "model: fake (fake layout)"]
    assert more.messages[-2:] == ["4/4 items, RATE", "3 items are already done"]
    assert len(records(Path("edited"))) == 4


def test_what_is_done_is_said_once(joyedit: Command, pictures: Path) -> None:
    """Done and failed items take turns, and each result would be a moment to say what was passed over before it."""
    (pictures / "broken.png").write_bytes(b"nothing")
    names = ("a", "broken", "c", "broken", "e")
    lines = [
        {"image": f"pictures/{'broken' if name == 'broken' else 'a'}.png", "id": f"{number}", "instruction": "x"}
        for number, name in enumerate(names)
    ]
    run = ("run", manifest(Path("m.jsonl"), *lines), *FAKE, "--batch-size", "1")
    assert joyedit(*run).code == 3
    again = joyedit(*run, "--retry-failed")
    assert again.code == 3
    assert [line for line in again.messages if "already done" in line] == ["3 items are already done"]


def test_one_picture_with_verbose_on_stdout_only_the_table(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures / "b.jpg", *FAKE, "-p", "blue", "-o", "out", "-v")
    assert ended.code == 0
    labels = [line.split("  ")[0] for line in ended.out.splitlines()]
    assert labels == [
        "items", "batches", "load", "read", "encode", "denoise", "decode", "write", "device waited",
        "device idle", "total", "images a second", "warm-up", "steady", "peak memory", "model", "device",
        "schedule", "output", "page",
    ]  # fmt: skip
    with Image.open("out/b.png") as image:
        assert image.size[0] == pytest.approx(2 * image.size[1], rel=0.1)


@pytest.mark.parametrize(("form", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_pictures_say_how_they_were_made(joyedit: Command, pictures: Path, form: str, kind: str) -> None:
    ended = joyedit(
        "run", pictures / "a.png", *FAKE, "-p", "把天空变成夜晚", "--format", form, "--seed", "9",
        "--steps", "3", "--neg-prompt", "blur", "--guidance-scale", "2.5", "--schedule", "diffusers",
        "--quality", "90",
    )  # fmt: skip
    assert ended.code == 0
    path = Path("edited") / f"a.{form}"
    with Image.open(path) as image:
        assert image.format == kind
    metadata = read_metadata(path)
    assert metadata.pop("software").startswith("joyedit ")
    (read,) = json.loads(metadata.pop("inputs"))
    assert read == {"name": "a.png", "sha256": hashlib.sha256((pictures / "a.png").read_bytes()).hexdigest()}
    assert metadata.pop("quality", "none") == ("none" if form == "png" else "90")
    assert metadata == {
        "instruction": "把天空变成夜晚",
        "negative_prompt": "blur",
        "seed": "9",
        "steps": "3",
        "guidance_scale": "2.5",
        "basesize": "256",
        "size": "input",
        "fit": "auto",
        "schedule": "diffusers",
        "dtype": "fp32",
        "model": "fake",
    }


def test_a_bad_picture_in_a_folder_fails_alone(joyedit: Command, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    ended = joyedit("run", pictures, *FAKE, "-p", "blue")
    assert ended.code == 3
    assert files(Path("edited")) == [
        "a.png", "b.png", "deep/c.png", "failed.jsonl", "joyedit.log", "report.json", "results.jsonl",
    ]  # fmt: skip
    message = report(Path("edited"))
    assert message["failed_by_code"] == {"truncated_picture": 1}
    assert records(Path("edited"))["broken"]["error"]["code"] == "truncated_picture"
    (failure,) = [line for line in ended.messages if line.startswith("failed: ")]
    assert failure.startswith("failed: broken: truncated_picture: ")
    assert ended.messages[-2:] == [
        "1 of 4 items failed: see edited/results.jsonl and edited/joyedit.log",
        "to edit only these items again, add --retry-failed to the same command, or run edited/failed.jsonl",
    ]
    assert "4: 3 ok, 1 failed (truncated_picture 1)" in ended.out


def test_a_failing_batch_takes_no_mates_with_it(joyedit: Command, pictures: Path) -> None:
    lines = [
        {"image": "pictures/a.png", "id": name, "instruction": text}
        for name, text in (("one", "blue"), ("two", "FAIL-BATCH"), ("three", "red"))
    ]
    ended = joyedit("run", manifest(Path("m.jsonl"), *lines), *FAKE, "--batch-size", "3")
    assert ended.code == 3
    message = records(Path("edited"))
    assert {name: record["status"] for name, record in message.items()} == {
        "one": "ok",
        "two": "failed",
        "three": "ok",
    }
    assert message["two"]["error"]["code"] == "edit_failed"
    assert message["two"]["source"] == {"file": "m.jsonl", "line": 2}
    assert report(Path("edited"))["failed_by_code"] == {"edit_failed": 1}
    assert "Traceback" in Path("edited/joyedit.log").read_text()
    assert "Traceback" not in ended.err


def test_an_items_own_line_wins_over_flags(joyedit: Command, pictures: Path) -> None:
    lines = [
        {"image": "pictures/a.png", "id": "own", "instruction": "x", "steps": 5, "seed": 1},
        {"image": "pictures/a.png", "id": "flags", "instruction": "x"},
    ]
    ended = joyedit("run", manifest(Path("m.jsonl"), *lines), *FAKE, "--steps", "2", "--seed", "0")
    assert ended.code == 0
    assert "steps: 2 (1 of 2 lines says otherwise: 5)" in ended.messages
    assert "seed: 0 (1 of 2 lines says otherwise: 1)" in ended.messages
    message = records(Path("edited"))
    assert [(message[name]["settings"]["steps"], message[name]["settings"]["seed"]) for name in ("own", "flags")] == [
        (5, 1),
        (2, 0),
    ]


def test_the_header_says_what_the_lines_say(joyedit: Command, pictures: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"image": "pictures/a.png", "id": "one", "instruction": "red", "steps": 8, "guidance_scale": 3},
        {"image": "pictures/a.png", "id": "two", "steps": 30, "guidance_scale": 3, "width": 256, "height": 256},
        {
            "image": "pictures/a.png",
            "id": "three",
            "instruction": "green",
            "steps": 20,
            "guidance_scale": 3,
            "seed": 42,
        },
        {"image": "pictures/a.png", "id": "four", "guidance_scale": 3, "negative_prompt": "grey"},
    ]
    source = manifest(Path("m.jsonl"), *lines)
    ended = joyedit("run", source, *FAKE, "-p", "blue", "--steps", "20", "--guidance-scale", "1")
    assert ended.code == 0, ended.err
    assert [line for line in ended.messages if line.split(":")[0] not in HEADER_OF_THE_MODEL][:10] == [
        "instruction: 'blue' (2 of 4 lines say otherwise)",
        "steps: 20 (2 of 4 lines say otherwise: 8 to 30)",
        "guidance scale: 3.0 (said by each of the 4 lines)",
        "seed: 42 (built-in)",
        "negative prompt: '' (built-in; 1 of 4 lines says otherwise: 'grey')",
        "basesize: 256",
        "size: input (built-in)",
        "fit: auto (built-in)",
        "width: that of the picture (1 of 4 lines says otherwise: 256)",
        "height: that of the picture (1 of 4 lines says otherwise: 256)",
    ]
    first = joyedit("run", source, *FAKE, "-n", "--limit", "1", "-p", "blue")
    assert "instruction: 'red' (said by the only line)" in first.messages, "only lines that are edited count"


HEADER_OF_THE_MODEL = {"loading fake", "model", "device", "dtype", "attention", "schedule"}


@pytest.mark.parametrize(("line", "told"), [('{"image": "pictures/a.png"}', True), ("pictures/a.png", False)])
def test_lines_that_are_to_come(
    joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch, line: str, told: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line.encode())))
    ended = joyedit("run", "-", *FAKE, "-p", "blue")
    assert ended.code == 0
    assert ("lines: what a line says itself comes before these settings" in ended.messages) == told


def test_origins_of_what_is_in_force(joyedit: Command, pictures: Path) -> None:
    Path("r.yaml").write_text("name: mine\ndescription: d\nsettings: {steps: 7}\n")
    Path("m.yaml").write_text("defaults: {seed: 5, steps: 9, instruction: x}\nitems:\n  - image: pictures/a.png\n")
    ended = joyedit("run", "m.yaml", "-m", "fake", "--recipe", "r.yaml", "--guidance-scale", "1")
    assert ended.code == 0, ended.err
    lines = ended.messages
    assert {"steps: 7 (recipe mine)", "seed: 5 (manifest defaults)", "guidance scale: 1.0"} <= set(lines)
    assert "basesize: 1024 (built-in)" in lines


def test_a_recipe_fills_its_places(joyedit: Command, pictures: Path) -> None:
    ended = joyedit(
        "run",
        pictures / "a.png",
        *FAKE,
        "--recipe",
        "object-rotate",
        "--set",
        "object=chair",
        "--set",
        "view=left",
    )
    assert ended.code == 0, ended.err
    assert "chair" in records(Path("edited"))["a"]["instruction"]


def test_limit(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures, *FAKE, "-p", "blue", "--limit", "2")
    assert ended.code == 0
    assert len(records(Path("edited"))) == report(Path("edited"))["ok"] == 2


def test_json_streams_the_records_and_nothing_else(joyedit: Command, pictures: Path) -> None:
    (pictures / "broken.png").touch()
    ended = joyedit("run", pictures, *FAKE, "-p", "blue", "--json")
    assert ended.code == 3
    lines = [json.loads(line) for line in ended.out.splitlines()]
    paths = {line["id"]: line.pop("output_path") for line in lines}
    assert lines == [json.loads(line) for line in Path("edited/results.jsonl").read_text().splitlines()]
    assert paths.pop("broken") is None
    assert set(paths) == {"a", "b", "deep/c"}
    assert all(os.path.isabs(path) and os.path.isfile(path) for path in paths.values())


def test_json_of_what_was_done_before_is_printed_on_request(joyedit: Command, pictures: Path) -> None:
    run = ("run", pictures, *FAKE, "-p", "blue")
    assert joyedit(*run, "--limit", "2").code == 0
    assert len(joyedit(*run, "--json").out.splitlines()) == 1, "what is done is no result of this run"
    ended = joyedit(*run, "--json=all")
    assert ended.code == 0
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert {line["id"]: line["status"] for line in lines} == {"a": "ok", "b": "ok", "deep/c": "ok"}
    assert all(os.path.isfile(line["output_path"]) for line in lines)


def test_json_takes_no_word_that_belongs_to_another_flag(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures / "a.png", "--json", *FAKE, "-p", "--json", "--", "-o")
    assert ended.code == 2
    assert "-o: no such file or folder" in ended.err
    ended = joyedit("run", "--json", *FAKE, "-p", "--json", "--", pictures / "a.png")
    assert ended.code == 0
    assert json.loads(ended.out)["instruction"] == "--json"


def test_quiet_says_only_errors(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures, *FAKE, "-p", "blue", "-q")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    (pictures / "broken.png").touch()
    ended = joyedit("run", pictures, *FAKE, "-p", "blue", "-q")
    assert (ended.code, ended.out) == (3, "")
    assert len(ended.messages) == 2
    assert ended.messages[0].startswith("failed: broken: ")


def test_verbose_names_each_item(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures / "a.png", *FAKE, "-p", "blue", "-v")
    assert "ok: a: a.png" in ended.messages


def test_many_failures_are_not_all_shown(joyedit: Command, pictures: Path) -> None:
    for number in range(30):
        (pictures / f"x{number}.png").touch()
    ended = joyedit("run", pictures, *FAKE, "-p", "blue")
    assert ended.code == 3
    assert len([line for line in ended.messages if line.startswith("failed: ")]) == 20
    assert "more items failed; use -v to see all of them here" in ended.messages
    assert report(Path("edited"))["failed"] == 30


def test_standard_input(joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b'{"image": "pictures/a.png", "instruction": "x"}\nnonsense\n{"image": "pictures/b.jpg"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    ended = joyedit("run", "-", *FAKE, "-p", "blue")
    assert ended.code == 3
    message = report(Path("edited"))
    assert (message["ok"], message["failed_by_code"]) == (2, {"bad_line": 1})


def test_an_interruption_ends_with_130(joyedit: Command, pictures: Path) -> None:
    lines = [
        {"image": "pictures/a.png", "id": name, "instruction": text}
        for name, text in (("one", "blue"), ("two", "INTERRUPT"), ("three", "red"))
    ]
    ended = joyedit("run", manifest(Path("m.jsonl"), *lines), *FAKE, "--batch-size", "1")
    assert ended.code == 130
    assert (
        "interrupted: no new batch starts; the running batch is finished and written"
        " (press Ctrl-C again to stop at once)" in ended.messages
    )
    assert set(records(Path("edited"))) == {"one"}
    assert report(Path("edited"))["state"] == "interrupted"


def test_a_full_disk_ends_with_1_and_one_message(joyedit: Command, pictures: Path) -> None:
    failpoints.arm("journal.append:1:enospc")
    try:
        ended = joyedit("run", pictures / "a.png", *FAKE, "-p", "blue")
    finally:
        failpoints.arm(None)
    assert ended.code == 1
    (message,) = [line for line in ended.messages if "error" in line]
    assert message.startswith("joyedit: error: cannot write edited/results.jsonl: ")


def test_what_is_passed_over_can_be_seen_by_name(joyedit: Command, pictures: Path) -> None:
    (pictures / "p.dng").write_bytes(b"x")
    run = ("run", "pictures", "-m", "fake", "-p", "blue", "--basesize", "256", "--steps", "1")
    ended = joyedit(*run)
    assert ended.code == 0
    assert "passed over: 2 files and folders: 1 x " in ended.err
    files = json.loads(Path("edited/report.json").read_text())["passed_over_files"]
    assert {"path": "p.dng", "reason": "a RAW photo, which needs to be developed first"} in files
    named = joyedit(*run, "-o", "again", "-v")
    assert "passed over: p.dng: a RAW photo, which needs to be developed first" in named.err
    assert "passed over: p.dng: a RAW photo" in joyedit(*run, "--dry-run").err


def test_several_sources_and_a_pattern(joyedit: Command, pictures: Path) -> None:
    Image.new("RGB", (50, 50), "white").save("one.png")
    flags = ("-m", "fake", "-p", "blue", "--basesize", "256", "--steps", "1")
    assert joyedit("run", "pictures/*.png", "one.png", "pictures/deep", *flags).code == 0
    assert {path.relative_to("edited").as_posix() for path in Path("edited").rglob("*.png")} == {
        "one.png",
        "pictures/a.png",
        "pictures/deep/c.png",
    }
    assert joyedit("verify", "edited").code == 0
    again = joyedit("run", "one.png", "pictures/deep", "pictures/a.png", *flags)
    assert again.code == 0
    assert "3 items are already done" in again.err
    refused = joyedit("run", "pictures/*.png", "one.png", *flags, "-o", "new.png")
    assert refused.code == 2
    assert "SOURCE may be many" in refused.err


def test_an_instruction_from_a_file_of_windows(joyedit: Command, pictures: Path) -> None:
    text = "\ufeffMake it blue.\r\nKeep the sky.\r"
    assert joyedit("run", pictures / "a.png", *FAKE, "-p", text).code == 0
    assert records(Path("edited"))["a"]["instruction"] == "Make it blue.\nKeep the sky."
