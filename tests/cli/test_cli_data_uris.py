"""Pictures that stand in the lines of a manifest, from the command line to the records and back."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command
from PIL import Image

import joyedit as package
from joyedit.errors import ItemError

RUN = ("-m", "fake", "--basesize", "256", "--steps", "1", "-q")


def encoded(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, "PNG")
    return file.getvalue()


def uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


RED, BLUE, CUT = encoded("red"), encoded("blue"), encoded("green")[:-30]


def name_of(data: bytes) -> str:
    return f"data-{hashlib.sha256(data).hexdigest()[:12]}"


def manifest(*images: bytes, **more: Any) -> str:
    lines = [{"image": uri(image), "instruction": "x", **more} for image in images]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return "m.jsonl"


def records(folder: str = "out") -> dict[str, Any]:
    found = map(json.loads, Path(folder, "results.jsonl").read_text().splitlines())
    return {record["id"]: record for record in found}


def test_a_run_and_what_its_records_hold(joyedit: Command) -> None:
    assert joyedit("run", manifest(RED, BLUE), *RUN, "-o", "out").code == 0
    found = records()
    assert found.keys() == {name_of(RED), name_of(BLUE)}
    record = found[name_of(RED)]
    sha256 = hashlib.sha256(RED).hexdigest()
    assert record["inputs"] == [f"data:image/png;sha256={sha256}"]
    assert record["inputs_seen"] == [[sha256, len(RED), 0, 0]]
    assert uri(RED)[30:60] not in Path("out/results.jsonl").read_text() + Path("out/report.json").read_text()
    assert joyedit("verify", "out").code == 0


@pytest.mark.parametrize("more", [(), ("--trust-journal",)])
def test_the_same_command_edits_what_changed(joyedit: Command, more: tuple[str, ...]) -> None:
    joyedit("run", manifest(RED, BLUE), *RUN, "-o", "out")
    before = {name: os.stat(f"out/{name}.png").st_mtime_ns for name in records()}
    assert joyedit("run", manifest(BLUE, RED, CUT), *RUN, "-o", "out", *more).code == 3
    assert {name: os.stat(f"out/{name}.png").st_mtime_ns for name in before} == before
    joyedit("run", manifest(RED, id="one"), *RUN, "-o", "other")
    first = records("other")["one"]["output_sha256"], records("other")["one"]["fingerprint"]
    assert joyedit("run", manifest(BLUE, id="one"), *RUN, "-o", "other", *more).code == 0
    assert records("other")["one"]["fingerprint"] != first[1]


def test_a_failed_one_is_tried_again_from_its_manifest(joyedit: Command) -> None:
    Path("gone.png").write_bytes(CUT)
    manifest(RED, CUT)
    with open("m.jsonl", "a") as file:
        file.write(json.dumps({"image": "gone.png", "instruction": "x"}) + "\n")
    ended = joyedit("run", "m.jsonl", *RUN[:-1], "-o", "out")
    assert ended.code == 3
    note = "not in failed.jsonl, because a picture stands in the line: 1 of the failed items"
    assert f"{note} (add --retry-failed to the same command)" in ended.err
    assert [json.loads(line)["id"] for line in Path("out/failed.jsonl").read_text().splitlines()] == ["gone"]
    assert records()[name_of(CUT)]["error"]["code"] == "truncated_picture"
    Path("gone.png").write_bytes(BLUE)
    ended = joyedit("run", "m.jsonl", *RUN, "-o", "out", "--retry-failed")
    assert ended.code == 3
    assert records()["gone"]["status"] == "ok"
    assert records()[name_of(CUT)]["status"] == "failed"
    assert not Path("out/failed.jsonl").exists()
    assert joyedit("verify", "out").code == 3


def test_a_dry_run_names_it_shortly(joyedit: Command) -> None:
    ended = joyedit("run", manifest(RED, CUT), "--dry-run")
    assert f"from data:image/png;sha256={hashlib.sha256(RED).hexdigest()} (64 x 48" in ended.out
    assert len(ended.out + ended.err) < 4000


def test_standard_input_goes_on(program: Command) -> None:
    stream = "".join(json.dumps({"image": uri(image), "instruction": "x"}) + "\n" for image in (RED, BLUE, b"text"))
    env = {"JOYEDIT_FAKE": "1"}
    ended = program("run", "-", *RUN, "-o", "out", "--json", stdin=stream, env=env)
    assert ended.code == 3
    told = {json.loads(line)["id"] for line in ended.out.splitlines()}
    assert told == {name_of(RED), name_of(BLUE), name_of(b"text")}
    ended = program("run", "-", *RUN, "-o", "out", "--json", stdin=stream, env=env)
    assert [json.loads(line)["error"]["code"] for line in ended.out.splitlines()] == ["unreadable_picture"]


def test_the_short_form_of_a_record_is_no_picture(joyedit: Command) -> None:
    joyedit("run", manifest(RED), *RUN, "-o", "out")
    [short] = records()[name_of(RED)]["inputs"]
    Path("again.jsonl").write_text(json.dumps({"image": short, "instruction": "x"}) + "\n")
    ended = joyedit("run", "again.jsonl", *RUN, "-o", "again")
    assert ended.code == 2
    assert "names a picture that stood in another line (give the picture itself" in ended.err


def test_from_python() -> None:
    editor = package.load("nano")
    try:
        edited = editor.edit(uri(RED), "Make the background blue.", basesize=256, steps=1)
        with pytest.raises(ItemError, match="broken base64"):
            editor.edit("data:image/png;base64,@", "x")
    finally:
        editor.close()
    assert edited.mode == "RGB"
