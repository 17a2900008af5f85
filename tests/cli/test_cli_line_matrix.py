"""`seeds` and `sweep` of single lines: what they make, say, refuse, and find again; in all kinds of manifests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_command import Command

from joyedit.job.results.records import final_records

FAKE = ("-m", "fake", "--basesize", "256", "--steps", "1")


def ids(folder: str = "edited") -> set[str]:
    return {record["id"] for record in final_records(Path(folder) / "results.jsonl")}


def write(name: str, *lines: object) -> str:
    Path(name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return name


def line(name: str, **more: object) -> dict[str, object]:
    return {"image": f"pictures/{name}", "instruction": "x", **more}


SWEPT = {"pictures/a_seed-42", "pictures/a_seed-43", "pictures/b_steps-1", "pictures/b_steps-2", "pictures/deep/c"}


@pytest.mark.parametrize("kind", ["jsonl", "json", "yaml", "csv", "tsv"])
def test_each_kind_of_manifest(joyedit: Command, pictures: Path, kind: str) -> None:
    lines = [line("a.png", seeds=2), line("b.jpg", sweep={"steps": [1, 2]}), line("deep/c.png")]
    texts = {
        "jsonl": "".join(f"{json.dumps(one)}\n" for one in lines),
        "json": json.dumps(lines),
        "yaml": "- {image: pictures/a.png, instruction: x, seeds: 2}\n"
        "- image: pictures/b.jpg\n  instruction: x\n  sweep:\n    steps: [1, 2]\n"
        "- {image: pictures/deep/c.png, instruction: x}\n",
        "csv": 'image,instruction,seeds,sweep\npictures/a.png,x,2,\npictures/b.jpg,x,,"steps=1,2"\n'
        "pictures/deep/c.png,x,,\n",
        "tsv": "image\tinstruction\tseeds\tsweep\npictures/a.png\tx\t2\t\n"
        'pictures/b.jpg\tx\t\t{"steps": [1, 2]}\npictures/deep/c.png\tx\t\t\n',
    }
    Path(f"m.{kind}").write_text(texts[kind])
    dry = joyedit("run", f"m.{kind}", *FAKE, "-n")
    assert "items 5," in dry.out
    assert "edits of each item: 1 (2 of 3 lines say otherwise: 2)" in dry.err
    ended = joyedit("run", f"m.{kind}", *FAKE)
    assert ended.code == 0, ended.err
    assert "5: 5 ok, 0 failed" in ended.out
    assert ids() == SWEPT
    assert joyedit("run", f"m.{kind}", *FAKE).messages == ["5 items are already done"]
    assert json.loads(joyedit("status", "edited", "--json").out)["left"] == 0
    assert "records 5, ok 5, failed 0, left 0, files 5, off 0" in joyedit("verify", "edited").out


def test_standard_input(program: Command, pictures: Path) -> None:
    text = json.dumps(line("a.png", seeds=[7, 8])) + "\n" + json.dumps(line("b.jpg", seeds="x")) + "\n"
    ended = program("run", "-", *FAKE, stdin=text)
    assert ended.code == 3, ended.err
    found = {record["id"]: record["status"] for record in final_records(Path("edited/results.jsonl"))}
    assert found == {"pictures/a_seed-7": "ok", "pictures/a_seed-8": "ok", "pictures/b": "failed"}


def test_more_seeds_keep_what_is_finished(joyedit: Command, pictures: Path) -> None:
    write("m.jsonl", line("a.png", id="a", seeds=2, output="one/a.png"), line("b.jpg", id="b"))
    assert joyedit("run", "m.jsonl", *FAKE, "--seed", "5").code == 0
    assert ids() == {"a_seed-5", "a_seed-6", "b"}
    assert sorted(path.name for path in Path("edited/one").iterdir()) == ["a_seed-5.png", "a_seed-6.png"]
    assert "off 0" in joyedit("verify", "edited").out, "the seeds are counted from the flag's"
    write("m.jsonl", line("a.png", id="a", seeds=4, output="one/a.png"), line("b.jpg", id="b"))
    again = joyedit("run", "m.jsonl", *FAKE, "--seed", "5")
    assert (again.code, "3 of them" in again.out) == (0, True), again.out
    assert ids() == {"a_seed-5", "a_seed-6", "a_seed-7", "a_seed-8", "b"}


def test_a_line_is_stronger_than_the_run(joyedit: Command, pictures: Path) -> None:
    write(
        "m.jsonl",
        line("a.png", id="a", seeds=[1, 2]),
        line("b.jpg", id="b", sweep={"guidance_scale": [3, 4]}),
        line("deep/c.png", id="c", seed=9, seeds=1),
    )
    run = ("run", "m.jsonl", "-m", "fake", "--basesize", "256", "--seeds", "7,8", "--sweep", "steps=1,2")
    assert joyedit(*run).code == 0
    wanted = {f"a_steps-{steps}_seed-{seed}" for steps in (1, 2) for seed in (1, 2)}
    wanted |= {f"b_seed-{seed}_steps-{n}_guidance_scale-{g}" for seed in (7, 8) for n in (1, 2) for g in (3, 4)}
    wanted |= {f"c_steps-{steps}_seed-9" for steps in (1, 2)}
    assert ids() == wanted
    assert "off 0" in joyedit("verify", "edited").out


def test_a_weaker_matrix_gives_way(joyedit: Command, pictures: Path) -> None:
    Path("m.yaml").write_text(
        "defaults:\n  instruction: x\n  matrix: {seeds: 3, steps: [1, 2]}\n"
        "items:\n- {image: pictures/a.png, id: a, seeds: [5]}\n- {image: pictures/b.jpg, id: b, steps: 1, seed: 4}\n"
    )
    assert joyedit("run", "m.yaml", "-m", "fake", "--basesize", "256").code == 0
    assert ids() == {"a_steps-1_seed-5", "a_steps-2_seed-5", "b"}


def test_parameters_of_a_recipe(joyedit: Command, pictures: Path) -> None:
    Path("r.yaml").write_text("instruction: Make it {colour}.\nparameters:\n  colour: {choices: [red, blue, green]}\n")
    image = {"image": "pictures/a.png", "id": "a", "sweep": {"colour": ["red", "green"]}}
    assert joyedit("run", write("m.jsonl", image), *FAKE, "--recipe", "r.yaml").code == 0
    texts = {record["id"]: record["instruction"] for record in final_records(Path("edited/results.jsonl"))}
    assert texts == {"a_colour-red": "Make it red.", "a_colour-green": "Make it green."}
    assert "off 0" in joyedit("verify", "edited").out
    wrong = joyedit("run", write("m.jsonl", {**image, "sweep": {"colour": ["pink"]}}), *FAKE, "--recipe", "r.yaml")
    assert "sweep: colour:" in wrong.err


def test_lines_of_one_picture(joyedit: Command, pictures: Path) -> None:
    """What they sweep tells them apart, as their words do."""
    write("m.jsonl", line("a.png", seeds=[1, 2]), line("a.png", seeds=[2, 3]), line("a.png"))
    ended = joyedit("run", "m.jsonl", *FAKE)
    assert ended.code == 0, ended.err
    found = ids()
    assert len(found) == 5
    assert len({name.partition("_")[0] for name in found}) == 3


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"seeds": "many"}, "seeds must be a number of seeds, or a list of seeds, not 'many'"),
        ({"seeds": True}, "seeds must be a number of seeds, or a list of seeds, not true"),
        ({"seeds": 0}, "seeds is from 1 to 10000 seeds, not 0 (one seed is 'seed')"),
        ({"seeds": []}, "sweep: seed has no values"),
        ({"seeds": [1, 1]}, "sweep: seed: 1 is given twice (keep one of them)"),
        ({"seeds": 2, "seed": 2**64 - 1}, "2 seeds from 18446744073709551615 on lead beyond the largest seed"),
        ({"seeds": [1, 2], "seed": 3}, "this line gives seed one value, and sweeps it too (keep one of them)"),
        ({"seeds": 2, "sweep": {"seed": [1, 2]}}, "sweep: seed and seeds are one axis (keep one of them)"),
        ({"sweep": {"seeds": 3}}, "sweep: seeds is a key of the line itself"),
        ({"sweep": [20, 40]}, "sweep must be a mapping of keys to lists of values, not a list"),
        ({"sweep": {"steps": 20}}, "sweep: steps must be a list of values, not 20"),
        ({"sweep": {"steps": [0]}}, "sweep: steps: steps must be a whole number from 1 to 1000, not 0"),
        ({"sweep": {"stepz": [1]}}, "sweep: cannot change 'stepz' (did you mean 'steps'?)"),
        ({"sweep": {"steps": [1, 2]}, "steps": 3}, "this line gives steps one value, and sweeps it too"),
        ({"seeds": 5000, "sweep": {"steps": [1, 2, 3]}}, "sweep: it has 15,000 edits of each item"),
    ],
)
def test_faults(joyedit: Command, pictures: Path, more: dict[str, object], told: str) -> None:
    ended = joyedit("run", write("m.jsonl", line("b.jpg"), line("a.png", **more)), *FAKE)
    assert ended.code == 2
    assert told in ended.err
    assert "m.jsonl:2: " in ended.err
    assert not Path("edited").exists()


@pytest.mark.parametrize(("seeds", "found"), [("2", 2), ("3.0", 3), ("7, 8", 2), ("7;8;9", 3), ("[4, 5]", 2), ("", 1)])
def test_cells_of_seeds(joyedit: Command, pictures: Path, seeds: str, found: int) -> None:
    Path("m.csv").write_text(f'image,instruction,seeds\npictures/a.png,x,"{seeds}"\n')
    assert f"items {found}," in joyedit("run", "m.csv", *FAKE, "-n").out


@pytest.mark.parametrize("sweep", ["steps", "steps=1;steps=2", "{steps}", "=3"])
def test_cells_that_are_no_sweep(joyedit: Command, pictures: Path, sweep: str) -> None:
    Path("m.csv").write_text(f"image,instruction,sweep\npictures/a.png,x,{sweep}\n")
    ended = joyedit("run", "m.csv", *FAKE, "-n")
    assert ended.code == 2
    assert "m.csv:2: sweep" in ended.err


def test_ids_that_meet(joyedit: Command, pictures: Path) -> None:
    """An edit that a line makes has no name of another line, in either order."""
    two = [line("a.png", id="a", seeds=[7], output="x.png"), line("b.jpg", id="a_seed-7", output="y.png")]
    for lines in (two, two[::-1]):
        ended = joyedit("run", write("m.jsonl", *lines), *FAKE)
        assert ended.code == 2
        assert "m.jsonl:2: the id 'a_seed-7', which a matrix gives, is taken by line 1" in ended.err


def test_a_failed_edit_is_tried_again(joyedit: Command, pictures: Path) -> None:
    write("m.jsonl", line("a.png", id="a", seeds=2) | {"instruction": "FAIL-NAN"})
    assert joyedit("run", "m.jsonl", *FAKE).code == 3
    again = [json.loads(text) for text in Path("edited/failed.jsonl").read_text().splitlines()]
    assert sorted((one["id"], one["seed"], "seeds" in one) for one in again) == [
        ("a_seed-42", 42, False),
        ("a_seed-43", 43, False),
    ]
    assert joyedit("run", "m.jsonl", *FAKE, "--retry-failed").code == 3


def test_a_name_tells_the_edits_apart(joyedit: Command, pictures: Path) -> None:
    write("m.jsonl", line("a.png", seeds=2))
    assert joyedit("run", "m.jsonl", *FAKE, "--name", "{stem}-{seed}").code == 0
    assert sorted(path.name for path in Path("edited").glob("*.png")) == ["a-42.png", "a-43.png"]
    refused = joyedit("run", "m.jsonl", *FAKE, "--name", "{stem}", "-o", "other")
    assert "m.jsonl:1: --name gives several edits of this item the name 'a.png'" in refused.err.replace(
        "'a'", "'a.png'"
    )


def test_the_largest_base_size_counts(joyedit: Command, pictures: Path) -> None:
    """Memory is planned for it."""
    write("m.jsonl", line("a.png", sweep={"basesize": [256, 512]}), line("b.jpg", sweep={"negative_prompt": ["", "x"]}))
    dry = joyedit("run", "m.jsonl", *FAKE, "-n")
    assert "basesize: 256 (1 of 2 lines says otherwise: 256 to 512)" in dry.err
    assert "edits of each item: 2 (said by each of the 2 lines)" in dry.err
