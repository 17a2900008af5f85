"""What the tests of this folder share: the command as a process, the state of an output folder, the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from joyedit.job.own_files import OWN_NAMES as OWN_FILES
from joyedit.job.own_files import RESULTS, TEMPORARY_SUFFIX
from joyedit.job.pictures.decode import load_picture
from joyedit.job.results.records import final_records, read_journal
from joyedit.job.results.verify import Counts, verify
from support.figures import FIGURES

ROOT = Path(__file__).resolve().parents[2]
FAKE = ("-m", "fake", "--basesize", "256", "--steps", "1", "--no-page", "-q")
"""Without the page, which has kills of its own (test_page.py)."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a process ended: its exit code (below 0: the signal that killed it) and all that it printed.

    `done` are the events that happened in the middle of it (None: the point was not reached), `sent` says whether a
    signal was sent, `hung` whether it had to be killed because it took too long.
    """

    code: int
    message: str
    done: list[int] | None = None
    sent: bool = False
    hung: bool = False


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that finds this checkout, and warns of nothing twice."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "JOYEDIT_FAKE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **more,
    }


class Forks:
    """A process that forks the command. Not to be shared between threads."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forkserver.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __call__(
        self,
        *argv: str | Path,
        cwd: Path,
        fault: str | None = None,
        limit: int | None = None,
        around: dict[str, Any] | None = None,
        **env: str,
    ) -> Done:
        """`around` is described in forkserver.py."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {
            "argv": [str(part) for part in argv],
            "cwd": str(cwd),
            "fault": fault,
            "env": env,
            "limit": limit,
            "around": around or {},
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Done(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate(timeout=60)


def start(*argv: str | Path, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """The command as a program, running."""
    return subprocess.Popen(
        [sys.executable, "-m", "joyedit", *map(str, argv)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=environment(**env),
    )


def program(*argv: str | Path, cwd: Path, timeout: float = 100, **env: str) -> Done:
    """The command as a program, to its end."""
    process = start(*argv, cwd=cwd, **env)
    message, _ = process.communicate(timeout=timeout)
    return Done(code=process.returncode, message=message)


def make_manifest(folder: Path, count: int, *, broken: bool = False, instruction: str = "edit") -> Path:
    """A manifest of `count` items of three shapes, some in folders of their own, some masked, one without a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        shape = ((24, 24), (36, 20), (20, 36))[number % 3]
        path = folder / f"in{number}.png"
        Image.new("RGB", shape, (number * 7 % 256, 80, 200)).save(path)
        line: dict[str, Any] = {"image": path.name, "instruction": f"{instruction} {number}", "id": f"item{number}"}
        if number % 4 == 1:
            line["id"] = f"deep/{number}/item"
        if number % 5 == 4:
            del line["image"]
        elif number % 4 == 3:
            mask = Image.new("L", shape)
            mask.paste(255, (4, 4, 12, 12))
            mask.save(folder / f"mask{number}.png")
            line["mask"] = f"mask{number}.png"
        lines.append(line)
    if broken:
        (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
        lines.insert(count // 2, {"image": "broken.png", "instruction": "x", "id": "broken"})
    manifest = folder / "m.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


def pictures(out: Path) -> dict[str, bytes]:
    """The files under final names that are not joyedit's own, by their place."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {
        name: data
        for name, data in found.items()
        if name.partition("/")[0] not in OWN_FILES and not name.endswith(TEMPORARY_SUFFIX)
    }


def records(out: Path) -> dict[str, dict[str, Any]]:
    """The last record of each id."""
    return {record["id"]: record for record in final_records(out / RESULTS)}


def findings(out: Path) -> list[str]:
    """What `joyedit verify` finds."""
    return [f"{finding.kind} {finding.id} {finding.file}" for finding in verify(out, Counts())]


def check_after_kill(out: Path, whole: dict[str, bytes]) -> None:
    """At any instant: what has its final name is complete, and what has a record is there."""
    if not out.exists():
        return
    for name, data in pictures(out).items():
        assert data == whole[name], f"{name} is not as it should be"
    if (out / RESULTS).exists():
        for record in read_journal(out / RESULTS):
            if record["status"] == "ok":
                assert record["output"] in whole
                assert (out / record["output"]).exists(), f"a record without its picture: {record['id']}"


def check_whole(out: Path, whole: dict[str, bytes], ids: set[str]) -> None:
    """After the rerun: each item once, each picture as of an undisturbed run, and nothing else."""
    assert pictures(out) == whole
    final = records(out)
    FIGURES["items lost"] += len(ids - set(final))
    assert set(final) == ids
    done = Counter(record["id"] for record in read_journal(out / RESULTS) if record["status"] == "ok")
    FIGURES["items edited twice"] += sum(count - 1 for count in done.values())
    assert set(done.values()) <= {1}, f"edited again although it had a record: {done}"
    left = [path.name for path in out.rglob("*") if path.name.startswith(".")]
    assert left == []
    found = findings(out)
    assert found == [], found


def check_decodes(path: Path) -> None:
    """The file is a whole picture."""
    load_picture(path)
