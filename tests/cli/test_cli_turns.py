"""Turns from the command line, on a backend without networks: what they make, say, refuse, and find again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command

from joyedit.job.results.records import final_records

FAKE = ("-m", "fake", "--basesize", "256", "--steps", "1", "--no-page")


def records(folder: str = "edited") -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in final_records(Path(folder) / "results.jsonl")}


def write(*lines: object, name: str = "m.jsonl") -> str:
    Path(name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return name


def line(name: str, image: str = "pictures/a.png", **more: object) -> dict[str, object]:
    return {"image": image, "id": name, **({} if "turns" in more else {"instruction": name}), **more}


CHAIN = (line("c", "@b"), line("a"), line("b", "@a"))


def test_a_chain_in_any_order(joyedit: Command, pictures: Path) -> None:
    """Each turn is, bit by bit, what a person gets who gives the file of the one before it."""
    write(*CHAIN)
    ended = joyedit("run", "m.jsonl", *FAKE)
    assert ended.code == 0, ended.err
    found = records()
    assert list(found) == ["a", "b", "c"]
    assert found["b"]["inputs"] == [str(Path("edited/a.png").absolute())]
    assert found["b"]["inputs_seen"][0][0] == found["a"]["output_sha256"]
    assert (found["b"]["earlier"], found["b"]["chain"], found["a"].get("earlier")) == (["a"], "a", None)
    assert joyedit("run", "edited/a.png", "-p", "b", *FAKE, "-o", "by-hand/").code == 0
    from PIL import Image

    with Image.open("edited/b.png") as ours, Image.open("by-hand/a.png") as theirs:
        assert ours.tobytes() == theirs.tobytes()
    assert joyedit("run", "m.jsonl", *FAKE).messages == ["3 items are already done"]
    assert "records 3, ok 3, failed 0, left 0, files 3, off 0" in joyedit("verify", "edited").out
    assert json.loads(joyedit("status", "edited", "--json").out)["left"] == 0
    assert "b" in joyedit("show", "edited/b.png").out


def test_the_dry_run_knows_sizes(joyedit: Command, pictures: Path) -> None:
    write(*CHAIN, line("m", turns=["one", "two"], size="64x48"))
    ended = joyedit("run", "m.jsonl", *FAKE, "-n")
    assert ended.code == 0, ended.err
    assert "items 5, batches 5, failed 0" in ended.out
    assert "'two', 64 x 48, seed 42, from edited/m-turn1.png (64 x 48" in ended.out
    assert ended.out.index("from edited/a.png") < ended.out.index("from edited/b.png")
    joyedit("run", "m.jsonl", *FAKE)
    assert "items 5, done 5, left 0, batches 0" in joyedit("run", "m.jsonl", *FAKE, "-n").out
    write(*CHAIN[:1], line("a", instruction="other"), CHAIN[2], line("m", turns=["one", "two"], size="64x48"))
    assert "items 5, done 2, left 0, batches 3" in joyedit("run", "m.jsonl", *FAKE, "-n").out


def test_a_change_goes_on_to_the_later_turns(joyedit: Command, pictures: Path) -> None:
    write(*CHAIN, line("x"))
    joyedit("run", "m.jsonl", *FAKE)
    before = records()
    write(CHAIN[0], CHAIN[1], {**CHAIN[2], "instruction": "other"}, line("x"))
    ended = joyedit("run", "m.jsonl", *FAKE)
    assert ended.code == 0
    assert "2 finished pictures are edited again" in ended.err
    after = records()
    assert {name for name in after if after[name]["at"] != before[name]["at"]} == {"b", "c"}
    assert after["c"]["inputs_seen"][0][0] == after["b"]["output_sha256"]


def test_a_lost_picture_is_made_again_alone(joyedit: Command, pictures: Path) -> None:
    """The same settings make the same picture, so the later turns stay."""
    write(*CHAIN)
    joyedit("run", "m.jsonl", *FAKE)
    before = records()
    Path("edited/a.png").unlink()
    assert joyedit("run", "m.jsonl", *FAKE).code == 0
    after = records()
    assert {name for name in after if after[name]["at"] != before[name]["at"]} == {"a"}
    assert after["a"]["output_sha256"] == before["a"]["output_sha256"]


def test_other_flags_are_refused_as_ever(joyedit: Command, pictures: Path) -> None:
    write(*CHAIN)
    joyedit("run", "m.jsonl", *FAKE)
    ended = joyedit("run", "m.jsonl", *FAKE, "--seed", "8")
    assert ended.code == 2
    assert "would replace 3 finished pictures" in ended.err
    assert joyedit("run", "m.jsonl", *FAKE, "--seed", "8", "--update").code == 0
    assert {one["settings"]["seed"] for one in records().values()} == {8}


def test_a_failed_turn_fails_those_that_follow(joyedit: Command, pictures: Path) -> None:
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    write(line("c", "@b"), line("a", "broken.png"), line("b", "@a"), line("x"), line("y", "@x"))
    ended = joyedit("run", "m.jsonl", *FAKE)
    assert ended.code == 3
    found = records()
    assert {name: one["status"] for name, one in found.items()} == {
        "a": "failed", "b": "failed", "c": "failed", "x": "ok", "y": "ok"
    }  # fmt: skip
    for name in ("b", "c"):  # the reason is that of the first one
        assert found[name]["error"]["code"] == "earlier_turn_failed"
        assert found[name]["error"]["message"].startswith("an earlier turn failed: a: truncated_picture: ")
        assert found[name]["planned_output"] == f"{name}.png"
    failed = [json.loads(text) for text in Path("edited/failed.jsonl").read_text().splitlines()]
    assert {one["id"]: one["image"] for one in failed} == {
        "a": str(Path("broken.png").absolute()), "b": "@a", "c": "@b"
    }  # fmt: skip
    Path("broken.png").write_bytes(Path("pictures/a.png").read_bytes())
    assert joyedit("run", "edited/failed.jsonl", *FAKE, "-o", "again").code == 0
    ended = joyedit("run", "m.jsonl", *FAKE, "--retry-failed")
    assert ended.code == 0, ended.err
    assert {one["status"] for one in records().values()} == {"ok"}
    assert records()["c"]["output_sha256"] == records("again")["c"]["output_sha256"]


def test_only_what_failed_is_tried_again(joyedit: Command, pictures: Path) -> None:
    """A later turn of an item that this run does not edit is not edited either, and does not fail."""
    write(line("x"))
    joyedit("run", "m.jsonl", *FAKE)
    write(line("x"), *CHAIN)
    ended = joyedit("run", "m.jsonl", *FAKE, "--retry-failed")
    assert ended.code == 3
    assert set(records()) == {"x"}
    assert joyedit("run", "m.jsonl", *FAKE).code == 0
    assert len(records()) == 4


def test_a_retouched_picture_is_the_input(joyedit: Command, pictures: Path) -> None:
    """Somebody changed the picture of a turn on purpose: it stays, and the later turns begin with it."""
    from PIL import Image

    write(*CHAIN)
    joyedit("run", "m.jsonl", *FAKE)
    Image.new("RGB", (50, 40), "red").save("edited/a.png")
    ended = joyedit("run", "m.jsonl", *FAKE)
    assert ended.code == 0, ended.err
    found = records()
    assert found["b"]["size"] == [40, 50]
    assert joyedit("run", "m.jsonl", *FAKE).code == 0
    assert records()["b"]["at"] == found["b"]["at"]


def test_refused_before_anything_is_loaded(joyedit: Command, pictures: Path) -> None:
    write(line("a", "@b"), line("b", "@a"))
    ended = joyedit("run", "m.jsonl", *FAKE)
    assert ended.code == 2
    assert "m.jsonl:1: these items wait for each other's results: 'a' -> 'b' -> 'a'" in ended.err
    assert not Path("edited").exists()
    write(*CHAIN)
    joyedit("run", "m.jsonl", *FAKE)
    write(*CHAIN, line("d", "@nobody"))
    ended = joyedit("run", "m.jsonl", *FAKE)  # also where an earlier run left records
    assert ended.code == 2
    assert "m.jsonl:4: '@nobody' is the result of no item" in ended.err
    assert len(records()) == 3


def test_seeds_and_limit(joyedit: Command, pictures: Path) -> None:
    write(line("a"), line("b", "@a"), line("c", "@b"))
    assert joyedit("run", "m.jsonl", *FAKE, "--seeds", "2", "-o", "seeds").code == 0
    found = records("seeds")
    assert len(found) == 6
    assert found["c_seed-43"]["earlier"] == ["b_seed-43"]
    assert joyedit("run", "m.jsonl", *FAKE, "--limit", "2", "-o", "some").code == 0
    assert set(records("some")) == {"a", "b"}


def test_formats_and_masks(joyedit: Command, pictures: Path) -> None:
    """The file counts, so a JPEG passes on what it has lost; a mask fits the result of the size of its picture."""
    from PIL import Image

    with Image.open("pictures/a.png") as shown:
        mask = Image.new("L", shown.size, 255)
    mask.save("mask.png")
    write(line("m", turns=["one", "two"], mask="mask.png"))
    ended = joyedit("run", "m.jsonl", *FAKE, "--format", "jpg", "--keep-unedited")
    assert ended.code == 0, ended.err
    found = records()
    assert found["m-turn2"]["inputs_seen"][0][0] == found["m-turn1"]["output_sha256"]
    assert found["m-turn2"]["output"] == "m-turn2.jpg"


def test_panoramas_in_parts(joyedit: Command, pictures: Path) -> None:
    from PIL import Image

    Image.new("RGB", (1600, 200), "green").save("wide.png")
    write(line("m", "wide.png", turns=["one", "two"]), line("n", turns=["one", "two"]))
    ended = joyedit("run", "m.jsonl", *FAKE, "--panorama", "parts", "--batch-size", "2")
    assert ended.code == 0, ended.err
    assert records()["m-turn2"]["parts"]["count"] > 1


def test_shards(joyedit: Command, pictures: Path) -> None:
    lines = [one for n in range(6) for one in (line(f"c{n}", f"@b{n}"), line(f"a{n}"), line(f"b{n}", f"@a{n}"))]
    write(*lines)
    for number in (1, 2):
        assert joyedit("run", "m.jsonl", *FAKE, "-o", "out", "--shard", f"{number}/2").code == 0
    verified = joyedit("verify", "out")
    assert verified.code == 0, verified.out
    status = json.loads(joyedit("status", "out", "--json").out)
    assert (status["done"], status["left"]) == (18, 0)
    assert joyedit("merge", "out").code == 0
    assert joyedit("run", "m.jsonl", *FAKE, "-o", "out").messages == ["18 items are already done"]
    lines[0] = {**lines[0], "instruction": "other"}
    write(*lines)  # a last turn changes: the shard finds its input among the merged pictures
    codes = [joyedit("run", "m.jsonl", *FAKE, "-o", "out", "--shard", f"{number}/2").code for number in (1, 2)]
    assert codes == [0, 0]
    made = [record for number in (1, 2) for record in records(f"out/shards/{number}-of-2").values()]
    assert [one["id"] for one in made] == ["c0"]
    assert made[0]["inputs"] == [str(Path("out/b0.png").absolute())]


def test_worker_processes(program: Command, pictures: Path) -> None:
    write(*(one for n in range(4) for one in (line(f"a{n}"), line(f"b{n}", f"@a{n}"), line(f"c{n}", f"@b{n}"))))
    ended = program("run", "m.jsonl", *FAKE, "--gpus", "2", "--device", "cpu", "--batch-size", "2")
    assert ended.code == 0, ended.err
    assert len(records()) == 12


def test_standard_input(program: Command, pictures: Path) -> None:
    text = "".join(f"{json.dumps(one)}\n" for one in (line("a"), line("b", "@a"), line("c", "@d"), line("d", "@b")))
    ended = program("run", "-", *FAKE, stdin=text)
    assert ended.code == 3, ended.err
    found = records()
    assert {name: one["status"] for name, one in found.items()} == {"a": "ok", "b": "ok", "c": "failed", "d": "ok"}
    assert found["c"]["error"]["code"] == "bad_line"
    ended = program("run", "-", *FAKE, stdin=text)
    assert records()["d"]["at"] == found["d"]["at"]


@pytest.mark.parametrize("kinds", [("edit", "plus", "text")])
def test_each_kind_of_item_in_one_manifest(joyedit: Command, pictures: Path, kinds: tuple[str, ...]) -> None:
    """No picture, one, and several: batches of each kind, one manifest."""
    write(
        line("edit"),
        {"images": ["pictures/a.png", "pictures/b.jpg"], "id": "plus", "instruction": "x"},
        {"images": [], "id": "text", "instruction": "x"},
        {"id": "text2", "instruction": "x"},
        line("edit2"),
    )
    dry = joyedit("run", "m.jsonl", *FAKE, "-n")
    assert "items 5, batches 3, failed 0" in dry.out
    assert joyedit("run", "m.jsonl", *FAKE).code == 0
    found = records()
    assert {name: len(found[name]["inputs"]) for name in kinds} == {"edit": 1, "plus": 2, "text": 0}
