"""One picture: its path and a line at the end, and `-o one.png`, which makes this file and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_command import Command, program_environment
from PIL import Image

from joyedit.job.own_files import LOCK
from joyedit.job.results.lock import OutputLock
from joyedit.runtime import one_picture
from support.pictures import read_metadata

FAKE = ("-m", "fake", "--basesize", "256", "-p", "blue")


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """The only file of a folder."""
    folder = tmp_path / "album"
    folder.mkdir()
    Image.new("RGB", (64, 48), (10, 120, 200)).save(folder / "photo.jpg")
    return folder / "photo.jpg"


def test_the_end_of_a_run_of_one(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures / "b.jpg", *FAKE, "-o", "out")
    assert (ended.code, ended.out) == (0, "out/b.png\n")
    assert ended.messages[-1].startswith("edited in ")
    assert ended.messages[-1].endswith(" to load the model)")
    again = joyedit("run", pictures / "b.jpg", *FAKE, "-o", "out")
    assert (again.code, again.out, again.messages) == (0, "out/b.png\n", ["1 item is already done"])
    table = joyedit("run", pictures / "b.jpg", *FAKE, "-o", "out", "-v", "--overwrite").out
    assert table.startswith("items ")
    assert joyedit("run", pictures / "b.jpg", *FAKE, "-o", "out", "-q", "--overwrite").out == ""


def test_a_failure_has_no_path(joyedit: Command, photo: Path) -> None:
    photo.write_bytes(b"nothing")
    ended = joyedit("run", photo, *FAKE, "-o", "out")
    assert (ended.code, ended.out) == (3, "")


@pytest.mark.parametrize(("name", "kind"), [("new.png", "PNG"), ("new.jpeg", "JPEG"), ("NEW.WEBP", "WEBP")])
def test_a_file_and_nothing_else(joyedit: Command, photo: Path, name: str, kind: str) -> None:
    ended = joyedit("run", photo, *FAKE, "-o", photo.parent / name)
    assert ended.code == 0, ended.err
    assert ended.out == f"{photo.parent / name}\n"
    assert files(photo.parent) == sorted([name, "photo.jpg"])
    with Image.open(photo.parent / name) as image:
        assert image.format == kind
    assert read_metadata(photo.parent / name)["instruction"] == "blue"


def test_in_the_current_folder_and_in_a_new_one(joyedit: Command, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photo.parent)
    assert joyedit("run", "photo.jpg", *FAKE, "-o", "new.png").out == "new.png\n"
    assert joyedit("run", "photo.jpg", *FAKE, "-o", "deep/er/new.png").out == "deep/er/new.png\n"
    assert files(photo.parent) == ["deep", "deep/er", "deep/er/new.png", "new.png", "photo.jpg"]


def test_json_names_the_file(joyedit: Command, photo: Path) -> None:
    ended = joyedit("run", photo, *FAKE, "-o", photo.parent / "new.png", "--json")
    record = json.loads(ended.out)
    assert (record["id"], record["output_path"]) == ("new.png", str(photo.parent / "new.png"))


def test_a_file_that_is_there_stays_until_asked(joyedit: Command, photo: Path) -> None:
    run = ("run", photo, *FAKE, "-o", photo.parent / "new.png")
    assert joyedit(*run).code == 0
    before = (photo.parent / "new.png").read_bytes()
    for extra in ([], ["-n"]):
        ended = joyedit(*run, "--seed", "5", *extra)
        assert ended.code == 2
        assert ended.messages == [
            f"joyedit: error: {photo.parent / 'new.png'} is there already "
            "(add --overwrite, or give another name with -o)"
        ]
    assert (photo.parent / "new.png").read_bytes() == before
    assert joyedit(*run, "--seed", "5", "--overwrite").code == 0
    assert read_metadata(photo.parent / "new.png")["seed"] == "5"
    assert joyedit(*run, "--seed", "6", "--update").code == 0
    assert read_metadata(photo.parent / "new.png")["seed"] == "6"
    assert files(photo.parent) == ["new.png", "photo.jpg"]


@pytest.mark.parametrize("flag", ["--overwrite", "--update"])
def test_no_flag_replaces_the_input_or_a_foreign_file(joyedit: Command, photo: Path, flag: str) -> None:
    Image.new("RGB", (8, 8)).save(photo.parent / "mine.png")
    os.link(photo, photo.parent / "same.jpg")
    before = {path: path.read_bytes() for path in photo.parent.iterdir()}
    for name, why in (
        ("photo.jpg", "would replace its own input"),
        ("same.jpg", "would replace its own input"),
        ("mine.png", "not from joyedit"),
    ):
        ended = joyedit("run", photo, *FAKE, "-o", photo.parent / name, flag)
        assert ended.code == 2
        assert why in ended.err
    assert {path: path.read_bytes() for path in photo.parent.iterdir()} == before


def test_a_file_that_comes_during_the_run_stays(joyedit: Command, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = photo.parent / "new.png"
    link = one_picture._link

    def late(made: Path, path: Path) -> None:
        target.write_text("mine")
        link(made, path)

    monkeypatch.setattr(one_picture, "_link", late)
    ended = joyedit("run", photo, *FAKE, "-o", target)
    assert ended.code == 1
    made = photo.parent / ".new.png.joyedit" / "new.png"
    assert f"the edited picture is {made} (move one of them away)" in ended.err
    assert target.read_text() == "mine"
    assert made.is_file()


def test_a_disk_without_hard_links(joyedit: Command, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(made: Path, path: Path, **folders: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert joyedit("run", photo, *FAKE, "-o", photo.parent / "new.png").code == 0
    assert files(photo.parent) == ["new.png", "photo.jpg"]


def test_a_failure_keeps_its_log_until_the_next_run(joyedit: Command, photo: Path) -> None:
    run = ("run", photo, "-m", "fake", "--basesize", "256", "-o", photo.parent / "new.png")
    ended = joyedit(*run, "-p", "FAIL-BATCH")
    assert (ended.code, ended.out) == (3, "")
    work = photo.parent / ".new.png.joyedit"
    assert ended.messages[-2:] == [
        f"1 of 1 items failed: see {work / 'results.jsonl'} and {work / 'joyedit.log'}",
        f"the same command tries it again and removes {work}",
    ]
    assert not (photo.parent / "new.png").exists()
    assert joyedit(*run, "-p", "fine").code == 0
    assert files(photo.parent) == ["new.png", "photo.jpg"]


def test_what_is_refused_leaves_nothing(joyedit: Command, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photo.parent / "m.jsonl").write_text('{"image": "photo.jpg", "instruction": "x"}\n')
    for source, output, why in (
        (photo.parent, "new.png", "-o new.png names one picture, and SOURCE may be many"),
        (photo.parent / "m.jsonl", "new.png", "-o new.png names one picture, and SOURCE may be many"),
        ("-", "new.png", "-o new.png names one picture, and SOURCE may be many"),
        (photo.parent / "gone.jpg", "new.png", "gone.jpg: no such file or folder"),
        (photo, "new.bmp", "-o new.bmp: joyedit writes png, jpg, webp, tiff, avif, heic, and no bmp"),
    ):
        ended = joyedit("run", source, *FAKE, "-o", output)
        assert ended.code == 2
        assert why in ended.err
    ended = joyedit("run", photo, *FAKE, "-o", "new.jpg", "--format", "png")
    assert "-o new.jpg does not fit --format png" in ended.err
    assert files(photo.parent) == ["m.jsonl", "photo.jpg"]
    assert sorted(os.listdir()) == ["album"]


def test_a_folder_with_such_a_name_is_a_folder(joyedit: Command, photo: Path) -> None:
    Path("set.png").mkdir()
    assert joyedit("run", photo, *FAKE, "-o", "set.png").code == 0
    assert "photo.png" in os.listdir("set.png")


def test_after_a_kill_the_same_command_goes_on(tmp_path: Path, photo: Path) -> None:
    """Killed when the picture has its record, and when it stands in its place."""
    program = [sys.executable, "-m", "joyedit", "run", "album/photo.jpg", *FAKE, "-o", "album/new.png", "-q"]

    def run(*before: str) -> int:
        code = (*before, "from joyedit.cli.main import main", f"main({program[3:]!r})")
        argv = [sys.executable, "-c", "\n".join(code)]
        return subprocess.run(argv, cwd=tmp_path, env=program_environment(), check=False, timeout=60).returncode

    kill = "import os, signal\nfrom joyedit.runtime import one_picture\nlink = one_picture._link\n"
    assert run(kill + "one_picture._link = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)") == -signal.SIGKILL
    assert not (photo.parent / "new.png").exists()
    no_model = "from joyedit.runtime import fake\nfake.FakeBackend.encode = None"
    assert run(no_model) == 0, "the picture was made already"
    assert files(photo.parent) == ["new.png", "photo.jpg"]

    (photo.parent / "new.png").unlink()
    placed = "def place(*names):\n    link(*names)\n    os.kill(os.getpid(), signal.SIGKILL)\none_picture._link = place"
    assert run(kill + placed) == -signal.SIGKILL
    assert (photo.parent / "new.png").exists()
    assert run() == 2, "it is there already"
    assert files(photo.parent) == ["new.png", "photo.jpg"]


def test_a_second_run_leaves_the_folder_of_the_first(joyedit: Command, photo: Path) -> None:
    target = photo.parent / "new.png"
    work = photo.parent / ".new.png.joyedit"
    work.mkdir()
    with OutputLock(work) as lock:
        lock.acquire()
        ended = joyedit("run", photo, *FAKE, "-o", target)
        assert ended.code == 1
        assert f"another run writes to {work}" in ended.err
        assert (work / LOCK).exists(), "the first run still has its lock"
    assert joyedit("run", photo, *FAKE, "-o", target).code == 0
    assert files(photo.parent) == ["new.png", "photo.jpg"]


def test_an_interruption_leaves_nothing(tmp_path: Path, photo: Path) -> None:
    start = "import time\nfrom joyedit.runtime import fake\nload = fake.load_backend\n"
    slow = "def slow(config):\n    print('loading', flush=True)\n    time.sleep(60)\nfake.load_backend = slow\n"
    argv = ["run", "album/photo.jpg", *FAKE, "-o", "album/new.png"]
    code = f"{start}{slow}from joyedit.cli.main import main\nmain({argv!r})\n"
    running = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=program_environment(), stdout=subprocess.PIPE
    )
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"loading\n"
        time.sleep(0.1)
        for _ in range(2):
            running.send_signal(signal.SIGINT)
            time.sleep(0.2)
        # The second signal may find a process that has given its handlers back, and is about to end.
        assert running.wait(timeout=30) in (130, -signal.SIGINT)
    assert files(photo.parent) == ["photo.jpg"]


def test_a_link_in_the_place_of_the_folder_is_refused(joyedit: Command, photo: Path) -> None:
    assert joyedit("run", photo, *FAKE, "-o", "victim").code == 0
    before = files(Path("victim"))
    (photo.parent / ".new.png.joyedit").symlink_to(Path("victim").absolute())
    refused = joyedit("run", photo, *FAKE, "-o", photo.parent / "new.png")
    assert refused.code == 2
    assert "joyedit did not make this" in refused.err
    assert files(Path("victim")) == before


@pytest.mark.parametrize("name", ["report.json", "joyedit.log", "new.png", "notes.txt", "results.jsonl", "deep"])
def test_a_folder_of_somebody_else_is_refused_and_stays(joyedit: Command, photo: Path, name: str) -> None:
    folder = photo.parent / ".new.png.joyedit"
    folder.mkdir()
    if name == "deep":
        (folder / name).mkdir()
    else:
        (folder / name).write_text("mine")
    for flags in ((), ("--retry-failed",), ("--overwrite",)):
        refused = joyedit("run", photo, *FAKE, "-o", photo.parent / "new.png", *flags)
        assert refused.code == 2
        assert "joyedit did not make this" in refused.err
        assert (folder / name).exists()


def test_a_name_that_is_too_long(joyedit: Command, photo: Path) -> None:
    refused = joyedit("run", photo, *FAKE, "-o", photo.parent / ("x" * 250 + ".png"))
    assert refused.code == 2
    assert "the name is too long" in refused.err


@pytest.mark.parametrize("source", ["alb*/*.jpg", "@l.txt"])
def test_a_pattern_or_a_list_may_be_many(joyedit: Command, photo: Path, source: str) -> None:
    Path("l.txt").write_text(f"{photo}\n")
    refused = joyedit("run", source, *FAKE, "-o", "one.png")
    assert refused.code == 2
    assert "SOURCE may be many" in refused.err
    assert not Path("one.png").exists()
