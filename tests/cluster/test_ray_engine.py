"""`--engine ray` on a Ray cluster of two nodes: the pictures and records of a plain run, whichever node dies."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from joyedit.job.results.records import final_records
from nano.edits import sample_edit, split_rng
from support.ray_cluster import ROOT, RayCluster, ray_cluster

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs joyedit[ray]"),
    pytest.mark.timeout(900),
]

PATIENCE = 600.0
"""Seconds for what must come; a test never passes because of them."""


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    # Not in pytest's own folder: the path of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="ray") as folder, ray_cluster(Path(folder)) as found:
        yield found


def start(folder: Path, cluster: RayCluster | None, *options: str) -> subprocess.Popen[str]:
    """`joyedit run`, on the cluster if there is one."""
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JOYEDIT_FAKE": "1",
        "JOYEDIT_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    env.pop("RAY_ADDRESS", None)
    argv = [sys.executable, "-m", "joyedit", "run", "m.jsonl", "--device", "cpu", "--basesize", "256", *options]
    if cluster is not None:
        env["RAY_ADDRESS"] = cluster.address
        argv += ["--engine", "ray", "--gpus", "2"]
    return subprocess.Popen(
        argv, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


def until(what: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def finished(out: Path) -> int:
    journal = out / "results.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def ids_of(out: Path) -> Counter[str]:
    """How many records each id has."""
    return Counter(json.loads(line)["id"] for line in (out / "results.jsonl").read_text().splitlines())


def test_nano_makes_the_pictures_of_a_plain_run(tmp_path: Path, cluster: RayCluster) -> None:
    lines: list[dict[str, object]] = []
    for number in range(3):
        pair = sample_edit(split_rng("heldout", 20 + number, 1), "recolour", "heldout")
        pair.source_image.save(tmp_path / f"{number}.png")
        lines.append({"image": f"{number}.png", "id": f"in/{number}", "instruction": pair.instruction})
    lines.append(lines[0] | {"id": "other-seed", "seed": 1})
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:300])
    lines.append({"image": "cut.png", "id": "cut", "instruction": "Make the square blue."})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["-m", "nano", "--dtype", "fp32", "--steps", "2", "--batch-size", "8", "--no-page", "-q", "--json"]

    plain = start(tmp_path, None, *options, "-o", "plain")
    plain.communicate(timeout=PATIENCE)
    spread = start(tmp_path, cluster, *options, "-o", "spread")
    printed, errors = spread.communicate(timeout=PATIENCE)

    assert (plain.returncode, spread.returncode) == (3, 3), errors
    assert "UserWarning" not in errors  # a job with fewer batches than readers is nothing to warn of
    assert len([json.loads(line) for line in printed.splitlines()]) == len(lines)  # records, and nothing else
    records = [
        {one["id"]: one for one in final_records(tmp_path / name / "results.jsonl")} for name in ("plain", "spread")
    ]
    assert records[0].keys() == records[1].keys() == {str(line["id"]) for line in lines}
    for name, one in records[0].items():
        other = records[1][name]
        for key in ("status", "output", "fingerprint", "output_sha256", "bucket", "notes", "error", "inputs", "drift"):
            assert one.get(key) == other.get(key), (name, key)
        assert set(one["settings"]) == set(other["settings"])
        if one["status"] == "ok":
            both = [(tmp_path / where / one["output"]).read_bytes() for where in ("plain", "spread")]
            assert both[0] == both[1], name
    report = json.loads((tmp_path / "spread" / "report.json").read_text())
    assert sum(worker["items"] for worker in report["workers"]) >= 4


def test_one_actor_has_a_place_on_one_of_two_machines(tmp_path: Path, cluster: RayCluster) -> None:
    (tmp_path / "m.jsonl").write_text('{"id": "a", "instruction": "edit"}\n')
    for gpus in ("1", "2"):  # with 2, one actor has nothing to do, which is nothing to warn of
        run = start(tmp_path, cluster, "-m", "fake", "--steps", "1", "--no-page", "-q", "--gpus", gpus, "-o", gpus)
        _, errors = run.communicate(timeout=PATIENCE)
        assert (run.returncode, errors) == (0, "")
        assert finished(tmp_path / gpus) == 1


def test_a_node_dies_and_an_item_kills_its_actors(tmp_path: Path, cluster: RayCluster) -> None:
    count, killer = 48, 21
    with (tmp_path / "m.jsonl").open("w") as file:
        for number in range(count):
            text = f"edit {number} SLEEP" + (" SIGKILL" if number == killer else "")
            file.write(json.dumps({"id": f"{number:03}", "instruction": text}) + "\n")
    options = ["-m", "fake", "--steps", "1", "--batch-size", "2", "--no-page", "-o", "out"]
    out = tmp_path / "out"

    stopped = start(tmp_path, cluster, *options)
    until(lambda: finished(out) >= 2, stopped)
    stopped.send_signal(signal.SIGINT)
    printed, errors = stopped.communicate(timeout=PATIENCE)
    assert stopped.returncode == 130, errors
    assert "interrupted" in errors
    before = finished(out)
    assert before < count - 2
    assert set(ids_of(out).values()) == {1}

    again = start(tmp_path, cluster, *options)
    until(lambda: finished(out) >= before + 4, again)
    os.kill(cluster.raylets[0], signal.SIGKILL)
    printed, errors = again.communicate(timeout=PATIENCE)

    assert again.returncode == 3, errors
    assert ids_of(out) == Counter({f"{number:03}": 1 for number in range(count)})
    failed = [one for one in final_records(out / "results.jsonl") if one["status"] != "ok"]
    assert [(one["id"], one["error"]["code"]) for one in failed] == [(f"{killer:03}", "killed_workers")]
    assert len(list(out.glob("*.png"))) == count - 1
    assert not list(out.glob(".*tmp"))
    assert "tried again, each alone" in errors
    assert not any(line.startswith(("(", "\033", "[")) for line in printed.splitlines()), printed

    third = start(tmp_path, None, *options)  # what is done is done for any engine
    _, errors = third.communicate(timeout=PATIENCE)
    assert third.returncode == 3, errors
    assert sum(ids_of(out).values()) == count


def test_a_second_interrupt_ends_at_once_and_turns_go_on(tmp_path: Path, cluster: RayCluster) -> None:
    pair = sample_edit(split_rng("heldout", 20, 1), "recolour", "heldout")
    pair.source_image.save(tmp_path / "in.png")
    chains, turns = 6, 3
    with (tmp_path / "m.jsonl").open("w") as file:
        for chain in range(chains):
            for turn in reversed(range(turns)):  # later turns stand first
                image = "in.png" if not turn else f"@{chain}-{turn - 1}"
                line = {"image": image, "id": f"{chain}-{turn}", "instruction": f"edit {chain} {turn} SLEEP"}
                file.write(json.dumps(line) + "\n")
        line = {"image": "gone.png", "id": "gone", "instruction": "edit"}
        file.write("".join(json.dumps(one) + "\n" for one in (line, line | {"image": "@gone", "id": "gone-2"})))
    options = ["-m", "fake", "--steps", "1", "--batch-size", "1", "--no-page", "--skip-missing"]
    plain = start(tmp_path, None, *options, "-o", "plain", "-q")
    plain.communicate(timeout=PATIENCE)
    out = tmp_path / "out"

    stopped = start(tmp_path, cluster, *options, "-o", "out")
    until(lambda: finished(out) >= 2, stopped)
    stopped.send_signal(signal.SIGINT)
    assert stopped.stderr is not None
    assert any("interrupted" in line for line in stopped.stderr)  # two signals at once would be one
    stopped.send_signal(signal.SIGINT)
    _, errors = stopped.communicate(timeout=PATIENCE)
    assert stopped.returncode == 130, errors
    assert "stopped at once; run the same command again to continue" in errors
    assert json.loads((out / "report.json").read_text())["state"] == "interrupted"
    before = ids_of(out)
    assert sum(before.values()) < chains * turns

    again = start(tmp_path, cluster, *options, "-o", "out")
    _, errors = again.communicate(timeout=PATIENCE)
    assert again.returncode == 3, errors
    found, expected = (
        {one["id"]: one for one in final_records(tmp_path / name / "results.jsonl")} for name in ("out", "plain")
    )
    assert found.keys() == expected.keys()
    for name, one in found.items():
        assert one["status"] == expected[name]["status"], name
        assert (one["error"] or {}).get("code") == (expected[name]["error"] or {}).get("code"), name
        if one["status"] == "ok":
            assert one["output_sha256"] == expected[name]["output_sha256"], name
            assert ids_of(out)[name] == 1, name
    assert (found["gone"]["error"]["code"], found["gone-2"]["error"]["code"]) == (
        "missing_picture",
        "earlier_turn_failed",
    )
    assert not list(out.glob(".*tmp"))
