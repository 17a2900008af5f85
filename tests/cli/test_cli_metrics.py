"""`--metrics`: the file is what Prometheus' own parser reads, and nothing that happens to it changes the run."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_command import ROOT, Command, program_environment

import joyedit as library
from joyedit.runtime.metric_families import METRICS

parser = pytest.importorskip("prometheus_client.parser")

FAKE = ("-m", "fake", "--basesize", "256", "-p", "x")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(path: str | Path) -> Samples:
    """The samples by name and own labels. Each family has the kind and the help of the table."""
    found: Samples = {}
    for family in parser.text_string_to_metric_families(Path(path).read_text(encoding="utf-8")):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        kind, labels, told = METRICS[name]
        assert (family.type, family.documentation) == (kind, told)
        assert family.samples
        for sample in family.samples:
            assert sample.name == name
            assert set(sample.labels) == {"output", "shard", *labels}
            own = tuple((label, sample.labels[label]) for label in labels if label not in ("version", "device"))
            found[name, own] = sample.value
    return found


def items(samples: Samples) -> dict[str, float]:
    return {state: samples["joyedit_items_total", (("state", state),)] for state in ("done", "failed", "skipped")}


def state(samples: Samples) -> str:
    (found,) = [own[0][1] for (name, own), value in samples.items() if name == "joyedit_run_state" and value]
    return found


def test_a_run(joyedit: Command, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    assert joyedit("run", pictures, *FAKE, "--limit", "2").code == 0
    ended = joyedit("run", pictures, *FAKE, "--metrics", "run.prom")
    assert ended.code == 3
    samples = read("run.prom")
    assert items(samples) == {"done": 1, "failed": 1, "skipped": 2}
    assert samples["joyedit_item_failures_total", (("code", "truncated_picture"),)] == 1
    assert samples["joyedit_items_left", ()] == 0
    assert state(samples) == "complete"
    assert samples["joyedit_batches_total", ()] == 1
    assert samples["joyedit_batch_size", ()] == 1
    assert samples["joyedit_workers", ()] == 1
    assert samples["joyedit_items_per_second", ()] > 0
    assert 0 <= samples["joyedit_device_busy_ratio", ()] <= 1
    assert samples["joyedit_host_memory_peak_bytes", ()] > 1 << 20
    assert samples["joyedit_stage_seconds_total", (("stage", "read"),)] > 0
    assert abs(samples["joyedit_last_write_timestamp_seconds", ()] - time.time()) < 60
    report = json.loads(Path("edited/report.json").read_text())
    assert samples["joyedit_run_duration_seconds", ()] == pytest.approx(report["seconds"], abs=1)
    assert f'output="{Path("edited").absolute()}"' in Path("run.prom").read_text()
    assert sorted(os.listdir()) == ["edited", "pictures", "run.prom"]


def test_a_run_that_does_nothing(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", pictures, *FAKE).code == 0
    assert joyedit("run", pictures, *FAKE, "--metrics", "run.prom").code == 0
    assert items(read("run.prom")) == {"done": 0, "failed": 0, "skipped": 3}
    assert state(read("run.prom")) == "complete"


@pytest.mark.parametrize(("word", "code"), [("SIGNAL", 130), ("TWICE", 130)])
def test_an_interrupted_run(program: Command, pictures: Path, word: str, code: int) -> None:
    lines = [{"image": "pictures/a.png", "instruction": text, "id": text} for text in ("one", word, "two", "three")]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert program("run", "m.jsonl", *FAKE[:4], "--batch-size", "1", "--metrics", "run.prom").code == code
    samples = read("run.prom")
    assert state(samples) == "interrupted"
    assert samples["joyedit_items_left", ()] + sum(items(samples).values()) == 4


def test_while_it_goes_on_and_after_a_kill(pictures: Path) -> None:
    argv = [sys.executable, "-m", "joyedit", "run", "pictures", *FAKE[:4], "-p", "SLEEP", "--batch-size", "1"]
    process = subprocess.Popen([*argv, "--metrics", "run.prom", "-q"], env=program_environment())
    try:
        until = time.monotonic() + 30
        while not Path("run.prom").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert state(read("run.prom")) == "running"
    finally:
        process.kill()
        process.wait()
    assert state(read("run.prom")) == "running"


def test_several_workers_and_shards(program: Command, pictures: Path) -> None:
    two = ("--gpus", "2", "--device", "cpu", "--parallel", "data", "--batch-size", "1")
    assert program("run", pictures, *FAKE, *two, "--metrics", "run.prom").code == 0
    samples = read("run.prom")
    assert items(samples)["done"] == 3
    assert samples["joyedit_workers", ()] == 2
    assert sum(value for (name, _), value in samples.items() if name == "joyedit_worker_items_total") == 3
    assert program("run", pictures, *FAKE, "-o", "s", "--shard", "1/2", "--metrics", "shard.prom").code == 0
    assert f'output="{Path("s").absolute()}",shard="1/2"' in Path("shard.prom").read_text()
    both = Path("run.prom").read_text() + Path("shard.prom").read_text()
    assert len({line.rpartition(" ")[0] for line in both.splitlines() if line[0] != "#"}) == len(
        [line for line in both.splitlines() if line[0] != "#"]
    )


def test_a_place_that_cannot_be_written(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures, *FAKE, "--metrics", "none/run.prom")
    assert ended.code == 0
    told = [line for line in ended.messages if "none/run.prom" in line]
    reason = "No such file or directory (the run goes on without it, and tries again)"
    assert told == [f"note: cannot write none/run.prom: {reason}"]


def test_a_folder_whose_name_is_no_text(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", pictures, *FAKE, "-o", "odd\udcff", "--metrics", "run.prom").code == 0
    assert items(read("run.prom"))["done"] == 3
    assert r"odd\\udcff" in Path("run.prom").read_text()


def test_a_file_that_somebody_put_there_during_the_run_stays(pictures: Path) -> None:
    def rows() -> Any:
        Path("run.prom").write_text("mine")  # behind the check of the options, before the first figures
        yield {"image": "pictures/a.png", "instruction": "x", "id": "a"}

    outcome = library.run(rows(), model="fake", basesize=256, progress=False, metrics="run.prom")
    assert outcome.exit_code == 0
    assert Path("run.prom").read_text() == "mine"
    told = (
        "cannot write run.prom: this file is not from joyedit, and stays (the run goes on without it, and tries again)"
    )
    assert told in outcome.notes


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = builtins.open

    def full(name: Any, *more: Any, **given: Any) -> Any:
        return before("/dev/full" if "run.prom." in str(name) else name, *more, **given)

    monkeypatch.setattr(builtins, "open", full)
    ended = joyedit("run", pictures, *FAKE, "--metrics", "run.prom")
    assert ended.code == 0
    assert len([line for line in ended.messages if "No space left on device" in line]) == 1
    assert not Path("run.prom").exists()


def test_refusals(joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.prom").write_text("# HELP node_files mine\n")
    Path("folder.prom").mkdir()
    for name, told in (
        ("mine.prom", "this file is not from joyedit, and stays"),
        ("run.txt", "Prometheus reads files that end with .prom"),
        ("pictures/a.png", "Prometheus reads files that end with .prom"),
        ("folder.prom", "this is a folder"),
    ):
        ended = joyedit("run", pictures, *FAKE, "--metrics", name)
        assert ended.code == 2
        assert told in ended.err
        assert not Path("edited").exists()
    assert Path("mine.prom").read_text() == "# HELP node_files mine\n"
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    ended = joyedit("run", pictures, *FAKE, "--metrics", "run.prom")
    assert (ended.code, ended.messages) == (
        2,
        ['joyedit: error: metrics need an extra: pip install "joyedit[metrics]"'],
    )


def test_from_python(pictures: Path) -> None:
    outcome = library.run(pictures, model="fake", prompt="x", basesize=256, metrics="run.prom")
    assert outcome.exit_code == 0
    assert items(read("run.prom"))["done"] == 3


def test_the_table_of_the_documents_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(joyedit_\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", page, re.MULTILINE)
    found = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), told) for name, kind, labels, told in rows}
    assert found == dict(METRICS)
