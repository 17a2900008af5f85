"""`--speed` and its parts: what is refused, told before and after, recorded, and made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command

from support.pictures import read_metadata

FAKE = ("-m", "fake", "--basesize", "256", "-p", "red", "--steps", "2")


def records(folder: str = "edited") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "results.jsonl").read_text().splitlines()]


def test_a_level_stands_in_each_record_in_the_report_and_in_the_pictures(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures, *FAKE, "--speed", "high", "--guidance-reuse", "3")
    assert ended.code == 0
    (told,) = [line for line in ended.messages if line.startswith("speed: ")]
    assert told.startswith("speed: high: steps that change by less than ")
    assert told.endswith("; the branch without the instruction is computed every 3 steps")
    for record in records():
        settings = record["settings"]
        assert settings["speed"] == "high"
        assert 0 < settings["reuse"]["threshold"] < 1
        assert settings["guidance_reuse"] == {"every": 3, "levels": [0.0, 1.0]}
        embedded = read_metadata(Path("edited") / record["output"])
        assert (embedded["speed"], embedded["guidance_reuse"]) == ("high", "3")
        assert "reuse" not in embedded
    report = json.loads(Path("edited/report.json").read_text())
    for key in ("speed", "reuse", "guidance_reuse"):
        assert report["speed"][key] == settings[key]
    assert report["computed"] is None  # the fake computes nothing


def test_an_exact_run_says_nothing_of_it(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures, *FAKE)
    assert not [line for line in ended.messages if line.startswith("speed")]
    (settings, *_) = [record["settings"] for record in records()]
    assert not {"speed", "reuse", "reuse_order", "guidance_reuse"} & set(settings)
    assert json.loads(Path("edited/report.json").read_text())["speed"] is None


def test_finished_pictures_are_replaced_only_if_that_is_asked_for(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", pictures, *FAKE).code == 0
    again = joyedit("run", pictures, *FAKE, "--speed", "exact")
    assert again.code == 0
    assert len(records()) == 3
    refused = joyedit("run", pictures, *FAKE, "--speed", "high")
    assert refused.code == 2
    assert "this run would replace 3 finished pictures in edited, because these differ: speed (3)" in refused.err
    assert "speed exact -> steps that change by less than" in refused.err
    assert "--update" in refused.err
    assert joyedit("run", pictures, *FAKE, "--speed", "high", "--update").code == 0
    assert [record["settings"].get("speed") for record in records()] == [None] * 3 + ["high"] * 3


def test_a_dry_run_says_what_would_be_left_out(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures, *FAKE, "--reuse", "0.2", "--reuse-order", "2", "-n")
    assert ended.code == 0
    assert "speed: steps that change by less than 0.2 are predicted by a parabola" in ended.messages
    none = ("--reuse", "off", "--guidance-reuse", "off")
    exact = joyedit("run", pictures, *FAKE, "--speed", "max", *none, "-n")
    assert "speed: max: everything is computed" in exact.messages


def test_the_time_of_another_level_is_no_estimate(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", pictures, *FAKE).code == 0
    same = joyedit("run", pictures, *FAKE, "-n", "--overwrite")
    other = joyedit("run", pictures, *FAKE, "-n", "--overwrite", "--speed", "max")
    assert [any(line.startswith("time: ") for line in one.out.splitlines()) for one in (same, other)] == [True, False]


def test_every_fault_is_told_at_once(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures, *FAKE, "--reuse", "lots", "--guidance-reuse", "0.9:0.1")
    assert ended.code == 2
    assert "--reuse must be auto, off, or a relative change from 0 to 1 such as 0.1, not 'lots'" in ended.err
    assert "--guidance-reuse must be off, a number of steps from 1 to 20" in ended.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--reuse-order", "1"], "and none are (add --reuse auto, or --speed high)"),
        (["--reuse-order", "1", "--reuse", "off", "--speed", "high"], "and --reuse is off (leave one of them out)"),
        (["--reuse-order", "3", "--reuse", "auto"], "--reuse-order"),
        (["--speed", "warp"], "--speed"),
    ],
)
def test_flags_that_cannot_work(joyedit: Command, pictures: Path, flags: list[str], said: str) -> None:
    ended = joyedit("run", pictures, *FAKE, *flags)
    assert ended.code == 2
    assert said in ended.err


def test_a_picture_is_made_again_with_what_it_left_out(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", pictures / "a.png", *FAKE, "-o", "one", "--speed", "max", "--reuse-order", "0").code == 0
    assert joyedit("run", "one/a.png", "-m", "fake", "-o", "again").code == 0
    first, second = records("one")[0]["settings"], records("again")[0]["settings"]
    assert first["speed"] == second["speed"] == "max"
    assert first["reuse"] == second["reuse"]
    assert first["reuse"]["order"] == 0
    assert joyedit("run", "one/a.png", "-m", "fake", "-o", "exact", "--speed", "high").code == 0
    assert records("exact")[0]["settings"]["speed"] == "high"
    shown = joyedit("show", "one/a.png")
    assert dict(line.split("  ", 1) for line in shown.out.splitlines())["speed"].strip() == "max"
