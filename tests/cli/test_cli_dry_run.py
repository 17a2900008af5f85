"""`joyedit run --dry-run`: the batches and the counts, without a model and without a trace."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from cli_command import Command
from PIL import Image

from joyedit.cli.main import main
from joyedit.cli.planned_text import cropped
from joyedit.job.fit import fit_to


def test_batches_and_counts(joyedit: Command, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"nothing")
    ended = joyedit("run", "pictures", "-n", "-p", "blue", "--basesize", "256", "--steps", "4")
    assert ended.code == 3
    *lines, last = ended.out.splitlines()
    assert lines[0].startswith("failed: broken: unreadable_picture: ")
    assert lines[1:] == [
        "batch 0: 2 items, 256 x 256, 4 steps",
        "  edited/a.png: 'blue', 100 x 100, seed 42, from pictures/a.png (100 x 100)",
        "  edited/deep/c.png: 'blue', 100 x 100, seed 42, from pictures/deep/c.png (100 x 100)",
        "batch 1: 1 item, 352 x 176, 4 steps",
        "  edited/b.png: 'blue', 200 x 100, seed 42, from pictures/b.jpg (200 x 100)",
    ]
    assert last == "items 4, batches 2, failed 1, passed over 1"
    assert ended.err.splitlines() == [
        "instruction: 'blue'",
        "steps: 4",
        "guidance scale: 4.0 (built-in)",
        "seed: 42 (built-in)",
        "negative prompt: '' (built-in)",
        "basesize: 256",
        "size: input (built-in)",
        "fit: auto (built-in)",
        "batch size: auto, shown with 4 (a run measures what fits its device)",
        "passed over: notes.txt: no picture",
    ]
    assert not Path("edited").exists()


def test_text_to_image_and_several_references(joyedit: Command, pictures: Path) -> None:
    lines = [
        {"instruction": "a cat", "id": "cat"},
        {"images": ["pictures/a.png", "pictures/b.jpg"], "instruction": "both", "id": "both"},
    ]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ended = joyedit("run", "m.jsonl", "-n", "--basesize", "256", "--batch-size", "8")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "batch 0: 1 item, 256 x 256, 40 steps",
        "  edited/cat.png: 'a cat', seed 42, from the instruction alone",
        "batch 1: 1 item, 352 x 176, 40 steps",
        "  edited/both.png: 'both', 200 x 100, seed 42, from pictures/a.png (100 x 100) + pictures/b.jpg (200 x 100)",
        "items 2, batches 2, failed 0, passed over 0",
    ]


def test_json_lines(joyedit: Command, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"nothing")
    ended = joyedit("run", "pictures", "-n", "-p", "blue", "--basesize", "256", "--batch-size", "2", "--json")
    assert ended.code == 3
    failed, *batches, passed, summary = [json.loads(line) for line in ended.out.splitlines()]
    assert failed["failed"] == "broken"
    assert failed["error"]["code"] == "unreadable_picture"
    edits = [batch.pop("edits") for batch in batches]
    assert [edit["id"] for batch in edits for edit in batch] == ["a", "deep/c", "b"]
    assert edits[1] == [
        {
            "id": "b",
            "instruction": "blue",
            "seed": 42,
            "output_path": str(Path("edited/b.png").absolute()),
            "inputs": [
                {
                    "path": "pictures/b.jpg",
                    "size": [100, 200],
                    "cropped": {"height": 0.0, "width": 0.0},
                    "padded": 0.0,
                }
            ],
            "size": [100, 200],
        }
    ]
    assert batches == [
        {"batch": 0, "bucket": [256, 256], "references": [[256, 256]], "steps": 40, "items": ["a", "deep/c"]},
        {"batch": 1, "bucket": [176, 352], "references": [[176, 352]], "steps": 40, "items": ["b"]},
    ]
    assert passed == {"passed_over": "notes.txt", "reason": "no picture"}
    assert summary == {
        "summary": {
            "items": 4,
            "batches": 2,
            "failed": 1,
            "passed_over": 1,
            "seconds": None,
            "untimed": 3,
            "weights": None,
        }
    }


def test_what_is_cropped(joyedit: Command, pictures: Path) -> None:
    Image.new("RGB", (1000, 100)).save("strip.png")
    run = ("run", "strip.png", "-n", "-p", "blue", "--basesize", "256", "-o", "new.png")
    whole = joyedit(*run).out.splitlines()
    assert whole[1] == "  new.png: 'blue', 1000 x 100, seed 42, from strip.png (1000 x 100, padded by 60%)"
    assert not any("loses" in line for line in whole)
    lines = joyedit(*run, "--fit", "crop", "--size", "bucket").out.splitlines()
    assert lines[1] == "  new.png: 'blue', seed 42, from strip.png (1000 x 100, cropped: 60% of the width)"
    assert lines[-1] == "1 item loses more than 10% of a picture by cropping (--fit pad keeps all of it)"
    fit = fit_to((300, 100), (256, 256), "crop", is_undone=False)
    assert cropped(fit) == {"height": 0.6667, "width": 0.0}


FAKE = ("-m", "fake", "--basesize", "256", "-p", "blue")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_run_would_refuse(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", "pictures", *FAKE).code == 0
    before = tree(Path("edited"))
    run, dry = (joyedit("run", "pictures", *FAKE, "--seed", "5", *extra) for extra in ([], ["-n"]))
    assert run.code == dry.code == 2
    assert "this run would replace 3 finished pictures in edited, because these differ: seed (3)" in run.err
    assert dry.messages[-1] == run.messages[-1]
    assert tree(Path("edited")) == before
    update = joyedit("run", "pictures", *FAKE, "--seed", "5", "-n", "--update")
    assert update.code == 0
    assert "items 3, done 0, left 0, batches 2, failed 0, passed over 1" in update.out.splitlines()


def test_what_is_done_and_how_long_the_rest_takes(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", "pictures", *FAKE, "--limit", "2").code == 0
    lines = [json.loads(line) for line in Path("edited/results.jsonl").read_text().splitlines()]
    for record in lines:
        record["seconds"] |= {"encode": 1.0, "denoise": 80.0, "decode": 3.0}  # 2 seconds a step
    Path("edited/results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lines))
    report = json.loads(Path("edited/report.json").read_text())
    report["stages"]["load"] = 90.0
    Path("edited/report.json").write_text(json.dumps(report))
    before = tree(Path("edited"))
    ended = joyedit("run", "pictures", *FAKE, "-n")
    assert ended.code == 0
    *_, counts, time = ended.out.splitlines()
    assert counts == "items 3, done 2, left 0, batches 1, failed 0, passed over 1"
    assert time.startswith("time: about 1 min 24 s on cpu, and 1 min 30 s to load the model, as in the run of ")
    ended = joyedit("run", "pictures", *FAKE, "-n", "--gpus", "3")
    assert ended.out.splitlines()[-1].startswith("time: about 28.0 s on cpu with --gpus 3, and 1 min 30 s to load")
    summary = json.loads(joyedit("run", "pictures", *FAKE, "-n", "--json").out.splitlines()[-1])["summary"]
    assert (summary["seconds"], summary["untimed"], summary["done"]) == (84.0, 0, 2)
    assert tree(Path("edited")) == before


def test_how_several_gpus_would_share_the_work(joyedit: Command, pictures: Path) -> None:
    run = ("run", "-m", "nano", "--device", "cpu", "-p", "blue", "--basesize", "256", "-n")
    assert (
        "parallel: 1 group of 2 x CPU process (guidance 2)" in joyedit(*run, "pictures/a.png", "--gpus", "2").messages
    )
    assert "parallel: 2 workers (data)" in joyedit(*run, "pictures", "--gpus", "2").messages
    off = joyedit(*run, "pictures/a.png", "--gpus", "2", "--guidance-scale", "1", "--json")
    assert json.loads(off.out.splitlines()[-1])["summary"]["parallel"] == "1 group of 2 x CPU process (sequence 2)"
    assert "parallel" not in json.loads(joyedit(*run, "pictures", "--json").out.splitlines()[-1])["summary"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("-m", "nano", "--parallel", "guidance"), "--parallel guidance is for several GPUs (add --gpus all"),
        (("-m", "nano", "--gpus", "1", "--parallel", "sequence"), "--parallel sequence is for several GPUs"),
        (("-m", "nano", "--gpus", "3", "--parallel", "guidance"), "takes pairs of GPUs, and 3 are given"),
        (("-m", "nano", "--gpus", "2", "--parallel", "guidance", "--guidance-scale", "1"), "it is off for all items"),
        (("-m", "fake", "--gpus", "2", "--parallel", "sequence"), "the fake model is in one process alone"),
    ],
)
def test_what_several_gpus_cannot_share(joyedit: Command, pictures: Path, flags: tuple[str, ...], message: str) -> None:
    ended = joyedit("run", "pictures", "-p", "x", "--device", "cpu", *flags)
    assert ended.code == 2
    assert message in ended.messages[-1]
    assert joyedit("run", "pictures", "-p", "x", *FAKE, "--gpus", "2", "--parallel", "auto", "-n").code == 0


def test_no_time_is_invented(joyedit: Command, pictures: Path) -> None:
    """Not for another device, another kind of item, or without records."""
    run = ("run", "pictures", *FAKE)
    assert "time:" not in joyedit(*run, "-n").out
    assert joyedit(*run).code == 0
    line = {"image": "pictures/a.png", "id": "new", "instruction": "x", "basesize": 512}
    Path("m.jsonl").write_text(json.dumps(line) + "\n")
    other = joyedit("run", "m.jsonl", *FAKE, "-n")
    assert "time:" not in other.out
    report = json.loads(Path("edited/report.json").read_text())
    Path("edited/report.json").write_text(json.dumps(report | {"device": "cuda"}))
    assert "time:" not in joyedit(*run, "-n", "--overwrite").out
    Path("edited/report.json").write_text(json.dumps(report))
    assert "time:" in joyedit(*run, "-n", "--overwrite").out


def test_without_a_model_nothing_is_compared(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", "pictures", *FAKE).code == 0
    ended = joyedit("run", "pictures", "-p", "other", "-n", "--basesize", "256")
    assert ended.code == 0
    assert ended.messages[-1] == "note: the finished pictures in edited are not looked at: that needs --model"
    hub = joyedit("run", "pictures", "-p", "other", "-n", "-m", "own/er")
    assert hub.messages[-1].endswith("that needs the checkpoint in a local folder")


def test_limit_and_quiet(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", "pictures", "-n", "-p", "blue", "--limit", "2", "--batch-size", "1")
    assert ended.out.splitlines()[-1] == "items 2, batches 2, failed 0, passed over 1"
    ended = joyedit("run", "pictures", "-n", "-p", "blue", "-q")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_memory_does_not_grow_with_the_manifest(pictures: Path) -> None:
    def peak(count: int) -> int:
        line = '{{"image": "pictures/a.png", "instruction": "edit {0}", "steps": {1}}}\n'
        with open("m.jsonl", "w") as file:
            file.writelines(line.format(number, 1 + number % 9) for number in range(count))
        tracemalloc.start()
        try:
            with pytest.raises(SystemExit) as caught:
                main(["run", "m.jsonl", "-n", "-q", "--batch-size", "8"])
            assert caught.value.code == 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # imports and caches
    # Threads read ahead: how far, and so a single peak, is a matter of their timing.
    few, many = (min(peak(count) for _ in range(3)) for count in (500, 4_500))
    # The tables of name hashes grow in steps, by 100 to 270 bytes an item; an item that is kept takes over 600.
    assert (many - few) / 4_000 < 350


def test_the_recipes_are_listed(joyedit: Command) -> None:
    ended = joyedit("recipes")
    assert ended.code == 0
    assert [line.split(":")[0] for line in ended.out.splitlines() if not line.startswith(" ")] == [
        "background-replace", "camera", "camera-orbit", "draft", "object-move", "object-rotate", "product-white",
        "quality", "restore", "style", "text-replace", "turnaround",
    ]  # fmt: skip
    assert "  --set yaw=VALUE  " in ended.out
