"""Default ids that become longer because another picture or line came: one record and one picture an item."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from durability.harness import FAKE, Done, Forks, findings, pictures, records
from joyedit.job.own_files import FAILED

BROKEN = b"\x89PNG\r\n\x1a\nno more"


def draw(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 24), colour).save(path)


def run(forks: Forks, place: Path, *more: str, prompt: str = "x") -> Done:
    return forks("run", "photos", "-p", prompt, *FAKE, "-o", "out", *more, cwd=place)


def begin(forks: Forks, place: Path) -> None:
    """The picture a.png is edited under the id "a"; then a.jpg comes."""
    draw(place / "photos" / "a.png")
    assert run(forks, place).code == 0
    draw(place / "photos" / "a.jpg", "blue")


def statuses(out: Path) -> dict[str, str]:
    return {name: record["status"] for name, record in records(out).items()}


@pytest.mark.parametrize("flags", [(), ("--retry-failed",), ("--overwrite",), ("--update",)])
def test_what_failed_under_a_short_id_counts_no_more(forks: Forks, tmp_path: Path, flags: tuple[str, ...]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(BROKEN)
    assert run(forks, tmp_path).code == 3
    assert (tmp_path / "out" / FAILED).exists()
    draw(tmp_path / "photos" / "a.png")
    draw(tmp_path / "photos" / "a.jpg", "blue")
    ended = run(forks, tmp_path, *flags)
    assert ended.code == (3 if flags == ("--retry-failed",) else 0), ended.message  # a.jpg is left then
    assert statuses(tmp_path / "out").get("a.png") == "ok"
    assert "a" not in statuses(tmp_path / "out")
    assert not (tmp_path / "out" / FAILED).exists()
    assert run(forks, tmp_path).code == 0
    assert findings(tmp_path / "out") == []
    status = json.loads(forks("status", "out", "--json", cwd=tmp_path).message)
    assert (status["done"], status["failed"], status["left"]) == (2, 0, 0)


def test_what_failed_in_a_retry_counts_no_more(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(BROKEN)
    assert run(forks, tmp_path).code == 3
    assert run_lines(forks, tmp_path, source=f"out/{FAILED}").code == 3
    draw(tmp_path / "photos" / "a.png")
    draw(tmp_path / "photos" / "a.jpg", "blue")
    assert run(forks, tmp_path).code == 0
    assert statuses(tmp_path / "out") == {"a.png": "ok", "a.jpg": "ok"}


def test_one_that_fails_again_is_told_once(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(BROKEN)
    assert run(forks, tmp_path).code == 3
    draw(tmp_path / "photos" / "a.jpg", "blue")
    assert run(forks, tmp_path).code == 3
    assert statuses(tmp_path / "out") == {"a.png": "failed", "a.jpg": "ok"}
    assert len((tmp_path / "out" / FAILED).read_text().splitlines()) == 1


def test_the_way_back_to_short_ids(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(BROKEN)
    draw(tmp_path / "photos" / "a.jpg", "blue")
    assert run(forks, tmp_path).code == 3
    (tmp_path / "photos" / "a.jpg").unlink()
    draw(tmp_path / "photos" / "a.png")
    assert run(forks, tmp_path).code == 0
    assert statuses(tmp_path / "out") == {"a": "ok", "a.jpg": "ok"}


def test_what_was_finished_under_a_short_id_is_done(forks: Forks, tmp_path: Path) -> None:
    begin(forks, tmp_path)
    assert run(forks, tmp_path).code == 0
    assert statuses(tmp_path / "out") == {"a": "ok", "a.jpg": "ok"}
    assert findings(tmp_path / "out") == []


def test_a_damaged_picture_under_a_short_id(forks: Forks, tmp_path: Path) -> None:
    begin(forks, tmp_path)
    path = tmp_path / "out" / "a.png"
    path.write_bytes(path.read_bytes()[:-20])
    ended = run(forks, tmp_path)
    assert ended.code == 0, ended.message
    assert statuses(tmp_path / "out") == {"a.png": "ok", "a.jpg": "ok"}
    assert set(pictures(tmp_path / "out")) == {"a.png.png", "a.jpg.png"}
    assert findings(tmp_path / "out") == []


def test_a_retouched_picture_under_a_short_id_stays(forks: Forks, tmp_path: Path) -> None:
    begin(forks, tmp_path)
    draw(tmp_path / "out" / "a.png", "green")
    mine = (tmp_path / "out" / "a.png").read_bytes()
    assert run(forks, tmp_path).code == 0
    assert (tmp_path / "out" / "a.png").read_bytes() == mine
    assert set(pictures(tmp_path / "out")) == {"a.png", "a.jpg.png"}


def test_a_foreign_file_in_the_place_of_an_earlier_picture_stays(forks: Forks, tmp_path: Path) -> None:
    begin(forks, tmp_path)
    (tmp_path / "out" / "a.png").write_text("mine")
    assert run(forks, tmp_path).code == 0
    assert (tmp_path / "out" / "a.png").read_text() == "mine"
    assert statuses(tmp_path / "out") == {"a.png": "ok", "a.jpg": "ok"}


@pytest.mark.parametrize(
    ("flags", "ending"),
    [
        (("--overwrite",), ".png"),
        (("--update", "--format", "webp"), ".webp"),
        (("--overwrite", "--format", "jpg"), ".jpg"),
    ],
)
def test_no_second_picture_of_an_item_is_left(
    forks: Forks, tmp_path: Path, flags: tuple[str, ...], ending: str
) -> None:
    begin(forks, tmp_path)
    assert run(forks, tmp_path, *flags).code == 0
    assert set(pictures(tmp_path / "out")) == {f"a.png{ending}", f"a.jpg{ending}"}
    assert statuses(tmp_path / "out") == {"a.png": "ok", "a.jpg": "ok"}
    assert findings(tmp_path / "out") == []


def test_other_flags_are_refused_as_under_one_id(forks: Forks, tmp_path: Path) -> None:
    begin(forks, tmp_path)
    before = pictures(tmp_path / "out")
    for flags in (("--format", "jpg"), ("--seed", "7")):
        ended = run(forks, tmp_path, *flags)
        assert ended.code == 2
        assert "would replace 1 finished picture in out" in ended.message
    assert pictures(tmp_path / "out") == before
    assert run(forks, tmp_path, "--update", prompt="y").code == 0
    assert set(pictures(tmp_path / "out")) == {"a.png.png", "a.jpg.png"}


def test_a_finished_picture_outlives_a_failure_under_the_new_id(forks: Forks, tmp_path: Path) -> None:
    """The pictures are gone for a while, as with a share that is not mounted."""
    begin(forks, tmp_path)
    before = (tmp_path / "photos" / "a.png").read_bytes()
    (tmp_path / "photos" / "a.png").write_bytes(BROKEN)
    assert run(forks, tmp_path).code == 3
    (tmp_path / "photos" / "a.png").write_bytes(before)
    made = pictures(tmp_path / "out")
    assert run(forks, tmp_path).code == 0
    assert pictures(tmp_path / "out") == made
    assert findings(tmp_path / "out") == []


@pytest.mark.parametrize("kill", [1, 2, 3])
def test_a_kill_between_picture_and_record(forks: Forks, tmp_path: Path, kill: int) -> None:
    begin(forks, tmp_path)
    for point in ("file.renamed", "journal.append", "journal.half", "journal.appended"):
        place = tmp_path / f"{point}-{kill}"
        place.mkdir()
        shutil.copytree(tmp_path / "photos", place / "photos")
        (place / "photos" / "a.jpg").unlink()
        assert run(forks, place).code == 0
        draw(place / "photos" / "a.jpg", "blue")
        forks("run", "photos", "-p", "x", *FAKE, "-o", "out", "--overwrite", cwd=place, fault=f"{point}:{kill}:kill")
        assert run(forks, place, "--overwrite").code == 0
        assert set(pictures(place / "out")) == {"a.png.png", "a.jpg.png"}
        assert findings(place / "out") == []


# Lines of a manifest.


def lines(place: Path, *found: dict[str, object]) -> None:
    (place / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))


def run_lines(forks: Forks, place: Path, *more: str, source: str = "m.jsonl") -> Done:
    return forks("run", source, *FAKE, "-o", "out", *more, cwd=place)


def test_a_second_line_about_a_picture_takes_nothing_from_the_first(forks: Forks, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    lines(tmp_path, {"image": "a.png", "instruction": "one"})
    assert run_lines(forks, tmp_path).code == 0
    made = pictures(tmp_path / "out")
    lines(tmp_path, {"image": "a.png", "instruction": "two"}, {"image": "a.png", "instruction": "one"})
    assert run_lines(forks, tmp_path).code == 0
    assert made.items() <= pictures(tmp_path / "out").items()
    assert len(pictures(tmp_path / "out")) == 2
    assert findings(tmp_path / "out") == []
    assert run_lines(forks, tmp_path, "--overwrite").code == 0
    assert len(pictures(tmp_path / "out")) == 2
    assert len(statuses(tmp_path / "out")) == 2
    assert findings(tmp_path / "out") == []


def test_another_spelling_of_a_path_edits_nothing_again(forks: Forks, tmp_path: Path) -> None:
    place, home = tmp_path / "here", tmp_path / "home"
    place.mkdir()
    draw(home / "photos" / "a.png")
    env = {"HOME": str(home), "PHOTOS": str(home / "photos")}
    made: dict[str, bytes] = {}
    for written in (
        "$PHOTOS/a.png",
        "${PHOTOS}/a.png",
        "~/photos/a.png",
        "../home/photos/a.png",
        f"{home}/photos/a.png",
    ):
        lines(place, {"image": written, "instruction": "x"})
        ended = forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=place, **env)
        assert ended.code == 0, ended.message
        made = made or pictures(place / "out")
        assert pictures(place / "out") == made, written
        assert len((place / "out" / "results.jsonl").read_text().splitlines()) == 1
        ended = forks("verify", "out", cwd=place, **env)
        assert ended.code == 0, ended.message


def test_an_id_that_a_line_gives_is_nobody_elses(forks: Forks, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    first = {"image": "a.png", "instruction": "one", "id": "a.png"}
    lines(tmp_path, first)
    assert run_lines(forks, tmp_path).code == 0
    made = pictures(tmp_path / "out")
    lines(tmp_path, first, {"image": "a.png", "instruction": "two"})
    assert run_lines(forks, tmp_path).code == 0
    assert made.items() <= pictures(tmp_path / "out").items()
    assert statuses(tmp_path / "out") == {"a.png": "ok", "a": "ok"}
    assert run_lines(forks, tmp_path, "--overwrite").code == 0
    assert len(pictures(tmp_path / "out")) == 2


def test_the_records_of_another_source_are_not_of_this_one(forks: Forks, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "a.jpg")
    lines(tmp_path, {"image": "a.png", "instruction": "one"}, {"image": "a.jpg", "instruction": "one"})
    assert run_lines(forks, tmp_path).code == 0
    made = pictures(tmp_path / "out")
    (tmp_path / "n.jsonl").write_text(json.dumps({"image": "a.png", "instruction": "two"}) + "\n")
    assert run_lines(forks, tmp_path, "--overwrite", source="n.jsonl").code == 0
    assert made.items() <= pictures(tmp_path / "out").items()
    assert len(pictures(tmp_path / "out")) == 3


def test_standard_input_claims_nothing(forks: Forks, tmp_path: Path) -> None:
    """Nobody knows which lines are still to come."""
    draw(tmp_path / "a.png")
    lines(tmp_path, {"image": "a.png", "instruction": "x", "id": "a.png"}, {"image": "a.png", "instruction": "x"})
    around = {"streams": {"0": "file m.jsonl"}}
    for flags in ((), ("--overwrite",)):
        ended = forks("run", "-", *FAKE, "-o", "out", *flags, cwd=tmp_path, around=around)
        assert ended.code == 0, ended.message
    assert set(pictures(tmp_path / "out")) == {"a.png.png", "a.png"}
