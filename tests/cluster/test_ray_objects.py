"""`--engine ray -o s3://...` on a Ray cluster of two nodes and an S3 server: whatever dies, each item is there once."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest

from joyedit.job.results.objects.store import ObjectStore
from nano.edits import sample_edit, split_rng
from support.object_server import BUCKET, ObjectServer, missing, object_server
from support.ray_cluster import ROOT, RayCluster, ray_cluster

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs joyedit[ray]"),
    pytest.mark.skipif(bool(missing()), reason=f"needs {' '.join(missing())}"),
    pytest.mark.timeout(900),
]

PATIENCE = 600.0
"""Seconds for what must come; a test never passes because of them."""
ADDRESS = f"s3://{BUCKET}/runs/one"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    with object_server(tmp_path) as found:
        for name, value in found.variables.items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # it has the address of the server of another test
        yield found


@pytest.fixture
def cluster(server: ObjectServer) -> Iterator[RayCluster]:
    # Not in pytest's own folder: the path of a socket has 107 bytes at most. It gets the keys of the server.
    with tempfile.TemporaryDirectory(prefix="ray") as folder, ray_cluster(Path(folder)) as found:
        yield found


def joyedit(folder: Path, *argv: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
        "JOYEDIT_FAKE": "1",
        "JOYEDIT_CACHE": str(folder / "cache"),
        "JOYEDIT_STATE": str(folder / "state"),
        "OMP_NUM_THREADS": "1",
    }
    env.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "joyedit", *argv],
        cwd=folder,
        env=env | dict(variables or {}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )


def start(folder: Path, cluster: RayCluster, *options: str, **variables: str) -> subprocess.Popen[str]:
    argv = ["run", "m.jsonl", "--device", "cpu", "--basesize", "256", "-o", ADDRESS, "--engine", "ray", "--gpus", "2"]
    return joyedit(folder, *argv, *options, variables={"RAY_ADDRESS": cluster.address, **variables})


def until(what: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it never came"
        time.sleep(0.2)


def said(folder: Path, *argv: str) -> tuple[int, str, str]:
    process = joyedit(folder, *argv)
    printed, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, printed, errors


def pictures(store: ObjectStore) -> list[str]:
    return sorted(name for name in store.sizes() if name.endswith(".png"))


def records(store: ObjectStore) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store.read("results.jsonl") or b"").splitlines()]


def write_manifest(folder: Path, count: int, **more: str) -> None:
    with (folder / "m.jsonl").open("w") as file:
        for number in range(count):
            text = f"edit {number} SLEEP" + more.get(f"n{number}", "")
            file.write(json.dumps({"id": f"{number:03}", "instruction": text}) + "\n")


def assert_whole(store: ObjectStore, count: int) -> None:
    """Each item has one record, and its picture has the recorded bytes; nothing else is there."""
    found = records(store)
    assert Counter(one["id"] for one in found) == Counter({f"{number:03}": 1 for number in range(count)})
    assert pictures(store) == sorted(one["output"] for one in found if one["status"] == "ok")
    for one in found:
        if one["status"] == "ok":
            data = store.read(one["output"]) or b""
            assert hashlib.sha256(data).hexdigest() == one["output_sha256"], one["id"]
    own = {".joyedit/about.json", "results.jsonl", "report.json", "joyedit.log", "failed.jsonl"}
    assert set(store.sizes()) - set(pictures(store)) <= own


def test_a_killed_driver_goes_on_elsewhere_and_a_node_dies(tmp_path: Path, cluster: RayCluster) -> None:
    count = 60
    write_manifest(tmp_path, count)
    store = ObjectStore(ADDRESS)
    options = ["-m", "fake", "--steps", "1", "--batch-size", "2", "--no-page"]

    killed = start(tmp_path, cluster, *options)
    until(lambda: len(pictures(store)) >= 4, killed)
    killed.kill()
    killed.communicate()
    code, printed, _ = said(tmp_path, "status", ADDRESS)
    assert code == 0, "a run is editing, as far as anybody knows"
    assert "running (process" in printed
    left = set(pictures(store))
    assert len(left) < count - 8
    assert records(store) == []  # only segments, if any
    shutil.rmtree(tmp_path / "state")  # as on another machine

    second = start(tmp_path, cluster, *options)
    _, errors = second.communicate(timeout=PATIENCE)
    assert second.returncode == 1, errors
    assert "another run writes to" in errors  # nobody knows yet that it is dead
    lock = json.loads(store.read(".joyedit/lock.json") or b"")
    store.write(".joyedit/lock.json", json.dumps(lock | {"renewed": lock["renewed"] - 1000}).encode())

    again = start(tmp_path, cluster, *options)
    until(lambda: len(pictures(store)) >= len(left) + 2, again)
    os.kill(cluster.raylets[0], signal.SIGKILL)
    _, errors = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, errors
    assert "took over the lock" in errors
    assert_whole(store, count)
    assert json.loads(store.read("report.json") or b"")["output"] == ADDRESS

    code, printed, errors = said(tmp_path, "verify", ADDRESS)
    assert (code, printed) == (0, f"records {count}, ok {count}, failed 0, left 0, files {count}, off 0\n"), errors
    code, printed, _ = said(tmp_path, "status", ADDRESS, "--json")
    assert (code, json.loads(printed)["done"]) == (0, count)


def test_turns_and_what_is_replaced(tmp_path: Path, cluster: RayCluster) -> None:
    store = ObjectStore(ADDRESS)
    pair = sample_edit(split_rng("heldout", 20, 1), "recolour", "heldout")
    pair.source_image.save(tmp_path / "in.png")
    lines = [
        {"image": "in.png", "id": "first", "instruction": "one"},
        {"image": "@first", "id": "deep/second", "instruction": "two"},
        {"images": ["@first", "@deep/second"], "id": "third", "instruction": "three"},
        {"image": "in.png", "id": "taken", "instruction": "four"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["-m", "fake", "--batch-size", "2", "--no-page", "-q"]
    plain = joyedit(tmp_path, "run", "m.jsonl", "--basesize", "256", "-o", "plain", "--steps", "1", *options)
    plain.communicate(timeout=PATIENCE)
    expected = {one["id"]: one for one in map(json.loads, (tmp_path / "plain/results.jsonl").read_text().splitlines())}
    store.write("taken.png", b"of somebody else")

    def run(*more: str) -> tuple[int, str]:
        process = start(tmp_path, cluster, *options, *more)
        _, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, errors

    code, errors = run("--steps", "1")
    assert code == 3, errors
    assert f"see {ADDRESS}/results.jsonl" in errors
    found = {one["id"]: one for one in records(store)}
    assert found["taken"]["error"]["code"] == "output_taken"
    assert store.read("taken.png") == b"of somebody else"
    for name in ("first", "deep/second", "third"):
        assert found[name]["output_sha256"] == expected[name]["output_sha256"], name
        assert found[name]["fingerprint"] == expected[name]["fingerprint"], name
    assert not list((tmp_path / "state").rglob("*.png"))

    shutil.rmtree(tmp_path / "state")
    store.remove("taken.png")
    code, errors = run("--steps", "1")
    assert code == 0, errors
    assert Counter(one["id"] for one in records(store)) == {"first": 1, "deep/second": 1, "third": 1, "taken": 2}

    code, errors = run("--steps", "2")
    assert code == 2
    assert f"would replace 4 finished pictures in {ADDRESS}" in errors
    assert f"-o {ADDRESS}-2" in errors
    code, errors = run("--steps", "2", "--update")
    assert code == 0, errors
    final = {one["id"]: one for one in records(store)}
    assert all(one["settings"]["steps"] == 2 for one in final.values())
    assert sorted(one["output"] for one in final.values()) == pictures(store)
    code, printed, errors = said(tmp_path, "verify", ADDRESS)
    assert code == 0, printed + errors
    store.write("third.png", b"damaged")
    store.write("stray.png", b"of somebody else")
    code, printed, _ = said(tmp_path, "verify", ADDRESS)
    assert code == 3
    assert printed.startswith("wrong_size: third: third.png: ")
    assert "stray_file: stray.png" in printed


def test_the_store_goes_away(tmp_path: Path, server: ObjectServer, cluster: RayCluster) -> None:
    count = 24
    write_manifest(tmp_path, count)
    store = ObjectStore(ADDRESS)
    options = ["-m", "fake", "--steps", "1", "--batch-size", "1", "--no-page"]
    process = start(tmp_path, cluster, *options, JOYEDIT_OBJECTS_PATIENCE="1")
    until(lambda: len(pictures(store)) >= 4, process)
    server.process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, errors
    assert errors.count("joyedit: error: ") == 1
    assert f"{ADDRESS}: cannot " in errors
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    kept = next((tmp_path / "state").rglob("results.jsonl")).read_text().splitlines()
    assert len({json.loads(line)["id"] for line in kept}) == len(kept) >= 1


def test_what_is_refused_before_anything_is_written(tmp_path: Path, server: ObjectServer) -> None:
    write_manifest(tmp_path, 1)
    run = ["run", "m.jsonl", "-m", "fake", "-q"]
    code, _, errors = said(tmp_path, *run, "--engine", "ray", "-o", "s3://no-such-bucket/a")
    assert code == 1, errors
    assert "s3://no-such-bucket/a: cannot write '.joyedit/lock.json': The specified bucket does not exist" in errors
    code, _, errors = said(tmp_path, "status", "s3://no-such-bucket/a")
    assert code == 2, errors
    assert "this is no output of joyedit" in errors
    code, _, errors = said(tmp_path, *run, "--engine", "ray", "-o", ADDRESS, "--dry-run")
    assert code == 0, errors
    assert ObjectStore(ADDRESS).sizes() == {}
