"""`--regions`: what is refused, and what is told before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command

from joyedit.job.run_config import RunConfig
from joyedit.job.speed.bundles import has_regions, regions_note
from support.pictures import read_metadata

FAKE = ("-m", "fake", "--basesize", "256", "-p", "red", "--steps", "2")
TOLD = "speed: patches within 0.3 of the reference are left out after 25% of the steps"


def records(folder: str = "edited") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "results.jsonl").read_text().splitlines()]


def test_regions_stand_in_the_header_the_records_and_the_pictures(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", pictures / "a.png", *FAKE).code == 0
    assert joyedit("run", pictures / "a.png", *FAKE, "--regions", "0.3").code == 2, "another picture"
    ended = joyedit("run", pictures / "a.png", *FAKE, "--regions", "0.3", "--update")
    assert ended.code == 0
    assert TOLD in ended.messages
    exact, record = records()
    assert "regions" not in exact["settings"]
    assert record["settings"]["regions"] == {"level": 0.3, "first": 0.25, "every": 0.2, "margin": 1}
    assert read_metadata(Path("edited") / record["output"])["regions"] == "0.3"
    off = joyedit("run", pictures / "a.png", *FAKE, "--regions", "off", "--update", "-n")
    assert not [line for line in off.messages if "patches" in line]


def test_an_item_that_is_computed_as_a_whole_says_why(joyedit: Command, pictures: Path) -> None:
    image = str(pictures / "a.png")
    lines: list[dict[str, Any]] = [
        {"id": "one", "image": image},
        {"id": "two", "images": [image, image]},
        {"id": "wide", "image": image, "width": 512, "height": 128},
        {"id": "none", "images": []},
    ]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ended = joyedit("run", "m.jsonl", *FAKE, "--regions", "auto", "--text-to-image")
    assert ended.code == 0, ended.err
    notes = {record["id"]: " ".join(record["notes"]) for record in records()}
    assert "as a whole" not in notes["one"]
    assert "and this has several" in notes["two"]
    assert "as a whole" not in notes["wide"], "its picture is fitted to the result's shape"
    assert "a picture to compare with" in notes["none"]


@pytest.mark.parametrize("level", ["some", "-0.1", "3", "nan"])
def test_a_level_that_cannot_be(joyedit: Command, pictures: Path, level: str) -> None:
    ended = joyedit("run", pictures, *FAKE, f"--regions={level}")
    assert ended.code == 2
    assert "--regions must be auto, off, or a difference from 0 to 2 such as" in ended.err


@pytest.mark.parametrize("way", ["guidance", "sequence"])
def test_a_picture_over_several_devices_is_computed_as_a_whole(joyedit: Command, pictures: Path, way: str) -> None:
    """It is refused before anything is loaded; by default each device takes pictures of its own."""
    flags = ("--regions", "auto", "--gpus", "2", "--device", "cpu")
    ended = joyedit("run", pictures, *FAKE, *flags, "--parallel", way)
    assert ended.code == 2
    assert f"--parallel {way} divides a picture that is computed as a whole" in ended.err
    assert joyedit("run", pictures, *FAKE, *flags, "-n").code == 0


def test_only_runs_with_regions_tell_of_them() -> None:
    plain = RunConfig(output=Path("out"))
    assert not has_regions(plain)
    assert regions_note(plain, (256, 256), ()) is None
    note = regions_note(RunConfig(output=Path("out"), regions="auto"), (256, 256), ((128, 512),))
    assert note == "computed as a whole: regions need a result of the shape of its picture"
