"""Checkpoints from the hub: progress, going on after a break, and what is told where it does not work.

The hub is a small server on this machine. The address of the hub is fixed when huggingface_hub is imported, so each
download has a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage

from joyedit.cli.download_meter import DownloadMeter
from joyedit.weights.hub import Download, size_text
from support.hub import FakeHub

ROOT = Path(__file__).resolve().parents[3]
LARGE = "transformer/model.safetensors"

CALL = """
import json, os, sys, time
if "COVERAGE_PROCESS_START" in os.environ:
    import coverage
    coverage.process_startup()
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 1 << 16  # less than what is sent before a connection breaks
from joyedit.errors import JoyeditError
from joyedit.weights import hub
hub.POLL = 0.01
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))  # huggingface_hub waits before it tries again
if len(sys.argv) > 2:
    hub.shutil.disk_usage = lambda place: type("", (), {"free": int(sys.argv[2])})
def tell(download, here):
    print(json.dumps([download.bytes, download.files, download.here, here]))
try:
    print(json.dumps({"folder": str(hub.resolve(sys.argv[1], tell))}))
    assert hub.resolve(sys.argv[1], tell)
except JoyeditError as error:
    print(json.dumps({"error": str(error)}))
"""


@dataclass(frozen=True)
class Told:
    """What a process told: the bytes of the whole, and how many were here, from the first call to the last."""

    end: dict[str, str]
    calls: list[list[int]]

    @property
    def here(self) -> list[int]:
        return [call[3] for call in self.calls]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    folder = tmp_path / "repo"
    (folder / "transformer").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "infer_config.py").write_text("raise SystemExit")
    (folder / LARGE).write_bytes(os.urandom(1 << 20))
    (folder / "transformer" / "other.safetensors").write_bytes(os.urandom(1 << 18))
    with FakeHub("own/er", folder).serving() as server:
        yield server


def resolve(hub: FakeHub, tmp_path: Path, *arguments: Any, repo: str = "own/er") -> Told:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    measured = Coverage.current()
    if measured is not None:  # what the process runs counts too
        data = f"{measured.config.data_file}.hub.{uuid.uuid4().hex}"
        environment |= {"COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml"), "COVERAGE_FILE": data}
    done = subprocess.run(
        [sys.executable, "-c", CALL, repo, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "it/s" not in done.stderr, "no bar of the hub's own"
    *calls, end = [json.loads(line) for line in done.stdout.splitlines()]
    return Told(end, calls)


def test_a_download_tells_how_far_it_is(hub: FakeHub, tmp_path: Path) -> None:
    hub.delay = 0.02
    told = resolve(hub, tmp_path)
    total = 2 + (1 << 20) + (1 << 18)
    assert {tuple(call[:3]) for call in told.calls} == {(total, 3, 0)}
    assert told.here[0] == 0
    assert told.here[-1] == total
    assert any(0 < here < total for here in told.here), "something in between"
    folder = Path(told.end["folder"])
    assert (folder / LARGE).read_bytes() == hub.files[LARGE]
    assert not (folder / "infer_config.py").exists(), "no code"
    again = resolve(hub, tmp_path)
    assert (again.end, again.calls) == (told.end, []), "nothing is left to download, so nothing is told"


def test_a_connection_that_breaks_goes_on_where_it_was(hub: FakeHub, tmp_path: Path) -> None:
    hub.breaks[LARGE] = 1
    told = resolve(hub, tmp_path)
    assert (Path(told.end["folder"]) / LARGE).read_bytes() == hub.files[LARGE]
    assert hub.bytes_sent[LARGE] == 1 << 20, "no byte is sent twice"
    assert (LARGE, 1 << 19) in hub.ranges


def test_a_download_that_broke_off_goes_on_with_the_missing_files(hub: FakeHub, tmp_path: Path) -> None:
    hub.breaks[LARGE] = 100
    told = resolve(hub, tmp_path)
    assert told.end["error"].startswith("--model own/er: the download broke off (")
    assert told.end["error"].endswith("); the same command goes on with the files that are missing")
    hub.breaks.clear()
    before = dict(hub.bytes_sent)
    told = resolve(hub, tmp_path)
    assert told.here[0] == 2 + (1 << 18), "what is here counts from the start"
    assert told.here[-1] == 2 + (1 << 18) + (1 << 20)
    sent = {name: hub.bytes_sent[name] - before.get(name, 0) for name in hub.bytes_sent}
    assert {name for name, count in sent.items() if count} == {LARGE}
    assert (Path(told.end["folder"]) / LARGE).read_bytes() == hub.files[LARGE]


def test_a_disk_that_is_too_small(hub: FakeHub, tmp_path: Path) -> None:
    told = resolve(hub, tmp_path, 1000)
    place = tmp_path / "hf" / "hub"
    assert told.end["error"] == (
        f"--model own/er: 1 MB are to be downloaded, and the disk of {place} has 1 kB left;"
        " make room, or set HF_HOME to a folder on another disk"
    )
    assert not hub.bytes_sent


def test_a_name_that_the_hub_does_not_know(hub: FakeHub, tmp_path: Path) -> None:
    told = resolve(hub, tmp_path, repo="own/other")
    assert "--model own/other: no such folder here, and the hub did not give it (" in told.end["error"]


def test_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 5.0, 10.0, 10.0, 10.0, 20.0, 20.0, 20.0])
    download = Download(repo="own/er", folder=Path("hf"), files=31, bytes=50_300_000_000, here=300_000_000)
    meter = DownloadMeter(download, now=lambda: next(times))
    meter.at(400_000_000)
    meter.at(10_300_000_000)
    meter.at(50_300_000_000)
    meter.close()
    assert capsys.readouterr().err.splitlines() == [
        "downloading own/er: 50.3 GB in 31 files, to hf (300 MB of it are here already)",
        "a download that breaks off goes on with the files that are missing: give the same command",
        "downloaded 10.3 GB of 50.3 GB, 1.0 GB a second, 40.0 s left",
        "downloaded 50.3 GB of 50.3 GB, 2.5 GB a second",
    ]


def test_sizes() -> None:
    assert [size_text(count) for count in (5, 4_100, 812_000_000, 50_300_000_000)] == [
        "5 bytes", "4 kB", "812 MB", "50.3 GB",
    ]  # fmt: skip
