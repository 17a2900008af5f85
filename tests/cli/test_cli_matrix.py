"""`--seeds`, `--sweep` and `--name` on the command line: what a run makes, says, and finds again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from cli_command import Command
from PIL import Image

from joyedit.job.pictures.decode import load_picture
from joyedit.runtime.pipeline import check as checking
from joyedit.runtime.pipeline import read as reading

FAKE = ("-m", "fake", "--basesize", "256")


def made(folder: str = "edited") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.png"))


def records(folder: str = "edited") -> list[dict[str, object]]:
    return [json.loads(line) for line in (Path(folder) / "results.jsonl").read_text().splitlines()]


def test_a_matrix_over_a_folder(joyedit: Command, pictures: Path) -> None:
    run = ("run", "pictures", "-p", "x", *FAKE)
    dry = joyedit(*run, "--seeds", "2", "--sweep", "steps=1,2", "-n")
    assert "edits of each item: 4 (2 seeds x steps 1, 2)" in dry.err
    assert "\nsteps:" not in dry.err
    assert "items 12, batches 4, failed 0" in dry.out
    ended = joyedit(*run, "--seeds", "2", "--sweep", "steps=1,2")
    assert ended.code == 0, ended.err
    assert "12: 12 ok, 0 failed" in ended.out
    assert made() == sorted(
        f"{name}_seed-{seed}_steps-{steps}.png"
        for name in ("a", "b", "deep/c")
        for seed in (42, 43)
        for steps in (1, 2)
    )
    assert {record["settings"]["steps"] for record in records()} == {1, 2}  # type: ignore[index]
    status = joyedit("status", "edited", "--json")
    assert json.loads(status.out)["left"] == 0
    assert "records 12, ok 12, failed 0, left 0, files 12, off 0" in joyedit("verify", "edited").out
    # A larger matrix finds what is done, and makes the rest.
    again = joyedit(*run, "--seeds", "3", "--sweep", "steps=1,2")
    assert again.code == 0, again.err
    assert "12 of them" in again.out
    assert len(records()) == 18


def test_one_picture_and_standard_input(joyedit: Command, program: Command, pictures: Path) -> None:
    assert joyedit("run", "pictures/a.png", "-p", "x", *FAKE, "--seeds", "1,2", "--steps", "1", "-q").code == 0
    assert made() == ["a_seed-1.png", "a_seed-2.png"]
    lines = '{"image": "pictures/a.png", "instruction": "x"}\n{"image": "pictures/b.jpg"}\n'
    ended = program(
        "run", "-", *FAKE, "--seeds", "1,2", "--steps", "1", "-o", "piped", "--name", "{index}", stdin=lines
    )
    assert ended.code == 3, ended.err
    assert made("piped") == ["1.png", "2.png"]
    assert Counter(record["status"] for record in records("piped")) == {"ok": 2, "failed": 1}
    text = "pictures/a.png\npictures/b.jpg\n"
    run = ("run", "-", "-p", "x", *FAKE, "--steps", "1", "-o", "same", "--name", "one{steps}")
    ended = program(*run, stdin=text)
    assert (ended.code, made("same")) == (3, ["one1.png"])
    assert "is taken by line 1" in Path("same/joyedit.log").read_text()


def test_one_file_is_no_place_for_several_pictures(joyedit: Command, pictures: Path) -> None:
    run = ("run", "pictures/a.png", "-p", "x", *FAKE, "-o", "b.png")
    assert joyedit(*run, "--seeds", "2").err == (
        "joyedit: error: -o b.png names one picture, and each item is edited with 2 seeds (name a folder)\n"
    )
    assert joyedit(*run, "--sweep", "steps=5").err == (
        "joyedit: error: -o b.png names one picture, and each item is edited with steps 5 (name a folder)\n"
    )
    assert joyedit(*run, "--name", "{stem}").err == (
        "joyedit: error: -o b.png and --name both name the picture (leave one of them out)\n"
    )


def test_a_name_that_tells_edits_apart(joyedit: Command, pictures: Path) -> None:
    run = ("run", "pictures", "-p", "x", *FAKE, "--steps", "1", "--seeds", "2")
    refused = joyedit(*run, "--name", "{stem}")
    assert (refused.code, refused.err) == (
        2,
        "joyedit: error: --name '{stem}' gives several edits of an item one name, because each item is edited with "
        "2 seeds (add {seed}, {id} or {index})\n",
    )
    assert joyedit(*run, "--name", "{folder}/{stem}-{seed:04}", "-q").code == 0
    assert made() == ["a-0042.png", "a-0043.png", "b-0042.png", "b-0043.png", "deep/c-0042.png", "deep/c-0043.png"]


@pytest.mark.parametrize("source", [("pictures",), ("pictures/a.png",), ("pictures/a.png", "pictures/b.jpg")])
def test_a_line_where_there_is_none(joyedit: Command, pictures: Path, source: tuple[str, ...]) -> None:
    refused = joyedit("run", *source, "-p", "x", *FAKE, "--name", "{line}_{stem}", "-n")
    name = source[0] if len(source) == 1 else "SOURCE"
    assert refused.err == (
        f"joyedit: error: --name: {{line}} is a line of a manifest, and {name} has none (try {{index}} or {{id}})\n"
    )


def test_two_pictures_of_one_name_are_told_before_the_model_loads(joyedit: Command, pictures: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(pictures / "deep" / "a.png")
    for more in ((), ("-n",)):
        refused = joyedit("run", "pictures", "-p", "x", *FAKE, "--name", "{stem}", *more)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.endswith(
            "joyedit: error: pictures/deep/a.png: --name gives it the name 'a.png', which is another picture's "
            "(add {id} or {index} to the template)\n"
        )
    assert not Path("edited").exists()


def test_another_name_replaces_nothing_without_being_asked(joyedit: Command, pictures: Path) -> None:
    run = ("run", "pictures", "-p", "x", *FAKE, "--steps", "1")
    assert joyedit(*run).code == 0
    refused = joyedit(*run, "--name", "{id}-{seed}")
    assert refused.code == 2
    assert "would replace 3 finished pictures in edited, because these differ: name (3)" in refused.err
    assert "for example a: name 'a.png' -> 'a-42.png'" in refused.err
    assert made() == ["a.png", "b.png", "deep/c.png"]
    assert joyedit(*run, "--name", "{id}-{seed}", "--update").code == 0
    assert made() == ["a-42.png", "b-42.png", "deep/c-42.png"]
    assert "done before" in joyedit(*run, "--name", "{id}-{seed}").out
    assert joyedit("verify", "edited").code == 0


def test_a_failed_edit_of_a_matrix_is_tried_again(joyedit: Command, pictures: Path) -> None:
    Path("m.jsonl").write_text('{"image": "pictures/a.png"}\n{"image": "pictures/gone.png"}\n')
    run = ("run", "m.jsonl", "-p", "x", *FAKE, "--steps", "1", "--seeds", "2", "--skip-missing")
    assert joyedit(*run).code == 3
    failed = [json.loads(line) for line in Path("edited/failed.jsonl").read_text().splitlines()]
    assert [(line["id"], line["seed"]) for line in failed] == [
        ("pictures/gone_seed-42", 42),
        ("pictures/gone_seed-43", 43),
    ]
    Image.new("RGB", (64, 64)).save("pictures/gone.png")
    assert joyedit("run", "edited/failed.jsonl", "-m", "fake").code == 0
    ended = joyedit(*run)
    assert ended.code == 0
    assert "4 of them" in ended.out


def test_what_edits_share_is_read_once(joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    looked: Counter[str] = Counter()

    def load(path: Path, *more: object) -> object:
        read[path.name] += 1
        return load_picture(path, *more)  # type: ignore[arg-type]

    size_of = checking.header_size
    monkeypatch.setattr(reading, "load_picture", load)
    monkeypatch.setattr(checking, "header_size", lambda path, *a: looked.update([path.name]) or size_of(path, *a))
    run = ("run", "pictures", "-p", "x", *FAKE, "--seeds", "3", "--sweep", "steps=1,2", "--batch-size", "2")
    assert joyedit(*run).code == 0
    assert len(records()) == 18
    assert read == {"a.png": 1, "b.jpg": 1, "c.png": 1}
    assert max(looked.values()) <= 2  # a chunk of items may end between two edits of a picture


def test_seconds_of_a_shared_picture_count_once(joyedit: Command, pictures: Path) -> None:
    run = ("run", "pictures/a.png", "-p", "x", *FAKE, "--sweep", "steps=1,2,3")
    assert joyedit(*run).code == 0
    seconds = [record["seconds"]["read"] for record in records()]  # type: ignore[index]
    assert sum(one > 0 for one in seconds) == 1


def test_what_failed_to_be_read_is_read_again(
    joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from joyedit.errors import ItemError

    calls: list[Path] = []

    def load(path: Path, *more: object) -> object:
        calls.append(path)
        raise ItemError("unreadable_picture", "no")

    monkeypatch.setattr(reading, "load_picture", load)
    run = ("run", "pictures/a.png", "-p", "x", *FAKE, "--sweep", "steps=1,2,3")
    assert joyedit(*run).code == 3
    assert [record["error"]["code"] for record in records()] == ["unreadable_picture"] * 3  # type: ignore[index]
    assert calls


def test_the_python_interface_takes_a_matrix(pictures: Path) -> None:
    import joyedit

    outcome = joyedit.run(
        "pictures", model="fake", prompt="x", basesize=256, seeds=[7], sweep={"steps": [1, 2]}, name="{id}"
    )
    assert outcome.report.ok == 6
    assert made()[:2] == ["a_steps-1_seed-7.png", "a_steps-2_seed-7.png"]
    outcome = joyedit.run("pictures", model="fake", prompt="x", basesize=256, steps=1, seeds=2, output="two")
    assert len(made("two")) == 6
    flags = {"model": "fake", "prompt": "x", "basesize": 256, "output": "three"}
    joyedit.run("pictures/a.png", seeds=range(2), sweep=["steps=1,2"], **flags)
    assert len(made("three")) == 4
    with pytest.raises(joyedit.UsageError, match="seed must be a whole number"):
        joyedit.run("pictures/a.png", seeds=2, seed="x", **flags)
