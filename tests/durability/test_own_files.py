"""joyedit's own files: the journal is the one that was opened, nothing is a link, and colleagues can go on."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durability.harness import (
    FAKE,
    ROOT,
    Done,
    Forks,
    environment,
    findings,
    make_manifest,
    pictures,
    program,
    records,
    start,
)
from joyedit.errors import OutputError
from joyedit.job.results import output_folder
from joyedit.job.results.journal import Journal
from joyedit.job.results.records import read_journal
from joyedit.job.spec import ItemResult

RUN = ("run", "m.jsonl", *FAKE, "-o", "out")


def result(name: str, **changes: Any) -> ItemResult:
    fields: dict[str, Any] = {
        "id": name, "status": "ok", "instruction": "x", "inputs": (), "output": f"{name}.png", "bucket": None,
    }  # fmt: skip
    return ItemResult(**(fields | changes))


def start_slowly(place: Path, items: int) -> subprocess.Popen[str]:
    """A run of items that take half a second each; its first picture is finished."""
    make_manifest(place, items)
    text = (place / "m.jsonl").read_text()
    (place / "m.jsonl").write_text(text.replace('"edit ', '"SLEEP '))
    process = start(*RUN, "--batch-size", "1", cwd=place)
    until = time.monotonic() + 60
    while not (place / "out" / "item0.png").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    return process


# The journal while a run is going on.


def remove(path: Path) -> None:
    path.unlink()


def save_in_an_editor(path: Path) -> None:
    """Many editors write a new file and rename it."""
    other = path.with_name("editor.tmp")
    other.write_bytes(path.read_bytes())
    other.rename(path)


def cut(path: Path) -> None:
    os.truncate(path, 0)


def cut_in_a_record(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


@pytest.mark.parametrize("change", [remove, save_in_an_editor, cut, cut_in_a_record])
@pytest.mark.parametrize("earlier", [0, 3])
def test_a_journal_that_is_not_the_one_that_was_opened(
    tmp_path: Path, change: Callable[[Path], None], earlier: int
) -> None:
    for number in range(earlier):
        journal = Journal(tmp_path)
        journal.append(result(f"before{number}"))
        journal.close()
    journal = Journal(tmp_path, clock=lambda: 0.0)
    for number in range(5):
        journal.append(result(f"item{number}"))
    change(journal.path)
    written, error = 5, ""
    while not error and written < 40:
        try:
            journal.append(result(f"item{written}"))
        except OutputError as fault:
            error = str(fault)
        written += 1
    is_cut = change in (cut, cut_in_a_record)
    what = "the records of this run, and what is left of earlier ones, are" if is_cut else "all records are"
    assert re.search(rf"{what} in .*results\.rescued\.jsonl", error)
    with pytest.raises(OutputError, match=r"results\.rescued\.jsonl"):
        journal.append(result("later"))
    with pytest.raises(OutputError, match=r"results\.rescued\.jsonl"):
        journal.close()
    rescued = {record["id"] for record in read_journal(tmp_path / "results.rescued.jsonl")}
    assert {f"item{number}" for number in range(written)} <= rescued
    if change in (remove, save_in_an_editor):
        assert {f"before{number}" for number in range(earlier)} <= rescued
    # As the message says: put it in the place of the journal, and go on.
    (tmp_path / "results.rescued.jsonl").rename(journal.path)
    journal = Journal(tmp_path)
    assert journal.final("item3") is not None
    journal.close()


def test_the_last_group_is_compared_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(result("a"))
    journal.path.unlink()
    with pytest.raises(OutputError, match="this file was removed during the run"):
        journal.close()
    assert [record["id"] for record in read_journal(tmp_path / "results.rescued.jsonl")] == ["a"]


def test_another_program_that_writes_to_the_journal_stops_the_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(result("a"))
    with open(journal.path, "a") as file:
        file.write("a note\n")
    with pytest.raises(OutputError, match="another program wrote to this file"):
        journal.close()
    journal = Journal(tmp_path)
    assert journal.final("a") is not None
    journal.close()


def test_a_folder_that_is_gone_keeps_the_rescue_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    journal = Journal(tmp_path / "out")
    journal.append(result("a"))
    journal.path.unlink()
    (tmp_path / "out").rmdir()
    with pytest.raises(OutputError, match=r"temporary/results\.rescued\.jsonl"):
        journal.close()
    assert len(list(read_journal(tmp_path / "temporary" / "results.rescued.jsonl"))) == 1


def test_a_folder_that_was_moved_and_made_again(tmp_path: Path) -> None:
    """Everything goes on into the folder that was opened, and the run says where it is."""
    process = start_slowly(tmp_path, 12)
    (tmp_path / "out").rename(tmp_path / "moved")
    (tmp_path / "out").mkdir()
    message, _ = process.communicate(timeout=100)
    assert process.returncode == 1, message
    assert f"everything that the run finished is in {tmp_path / 'moved'}" in message
    assert os.listdir(tmp_path / "out") == []
    done = records(tmp_path / "moved")
    assert {record["output"] for record in done.values()} <= set(pictures(tmp_path / "moved"))
    assert json.loads((tmp_path / "moved" / "report.json").read_text())["state"] == "stopped"
    (tmp_path / "out").rmdir()
    (tmp_path / "moved").rename(tmp_path / "out")
    assert program(*RUN, cwd=tmp_path).code == 0
    assert findings(tmp_path / "out") == []


# Links, pipes, devices.


@pytest.mark.parametrize("name", ["results.jsonl", "joyedit.log", ".joyedit.lock", "results.cut"])
@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "folder"])
def test_an_own_file_is_a_plain_file(forks: Forks, tmp_path: Path, name: str, kind: str) -> None:
    make_manifest(tmp_path, 2, broken=True)
    (tmp_path / "out").mkdir()
    precious = tmp_path / "precious"
    precious.write_text("mine\n")
    planted = tmp_path / "out" / name
    if kind == "link":
        planted.symlink_to(precious)
    elif kind == "hard link":
        os.link(precious, planted)
    elif kind == "fifo":
        os.mkfifo(planted)
    else:
        planted.mkdir()
    if name == "results.cut":  # used when a journal ends with what is not joyedit's
        assert forks(*RUN, cwd=tmp_path).code == 3
        with open(tmp_path / "out" / "results.jsonl", "a") as file:
            file.write("foreign\n")
    ended = forks(*RUN, cwd=tmp_path)
    assert ended.code == 1, ended.message
    assert name in ended.message
    assert precious.read_text() == "mine\n"
    assert forks("verify", "out", cwd=tmp_path).code in (2, 3)


def test_a_folder_that_becomes_a_link_in_the_middle(tmp_path: Path) -> None:
    """A sub-folder of the output is exchanged for a link: nothing is written behind it."""
    (tmp_path / "elsewhere").mkdir()
    folder = output_folder.OutputFolder(tmp_path / "out")
    folder.prepare()
    folder.write_text("deep/first.txt", "x")
    (tmp_path / "out" / "deep").rename(tmp_path / "out" / "aside")
    (tmp_path / "out" / "deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="by the link 'deep'"):
        folder.write_text("deep/second.txt", "x")
    (tmp_path / "out").rename(tmp_path / "real")
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    folder.write_text("third.txt", "x")
    folder.close()
    assert os.listdir(tmp_path / "elsewhere") == []
    assert (tmp_path / "real" / "third.txt").read_text() == "x"


def test_names_move_no_cursor_and_forge_no_line(forks: Forks, tmp_path: Path) -> None:
    name = "a\n2026-01-01 touch me\x1b[31m\u202egnp\x9b.png"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / name).write_bytes(b"no picture")
    (tmp_path / "photos" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    ended = forks("run", "photos", "-p", "x", *FAKE[:-1], "-v", "-o", "out", cwd=tmp_path)
    assert ended.code == 3
    verified = forks("verify", "out", cwd=tmp_path)
    told = [ended.message, verified.message]
    told += [(tmp_path / "out" / own).read_text() for own in ("joyedit.log", "results.jsonl", "report.json")]
    for text in told:
        assert not {"\x1b", "\u202e", "\x9b"} & set(text)
        assert not any(line.startswith("2026-01-01") for line in text.splitlines())
    record = next(one for one in records(tmp_path / "out").values() if one["inputs"] and "touch" in one["inputs"][0])
    assert record["inputs"] == [str(tmp_path / "photos" / name)]  # the data itself is whole


# Other records.


def test_records_of_other_versions_and_programs_are_kept_and_worked_around(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 4, broken=True)
    assert forks(*RUN, cwd=tmp_path).code == 3
    path = tmp_path / "out" / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    strange = [
        '{"id": "old", "status": "failed"}\n',
        '{"id": "newer", "status": "paused", "output": 5, "later": {}}\n',
        '{"id": "bare", "status": "ok"}\n',
        '{"id": "wrong", "status": "failed", "settings": [], "inputs": "a", "error": 3, "planned_output": {}}\n',
        '{"id": "half", "status": "failed", "settings": {"steps": 1}, "instruction": "x", "planned_output": "a.png"}\n',
        "\x00\x00 damaged\n",
        '{"score": 1}\n',
    ]
    path.write_text(lines[0] + "".join(strange) + "".join(lines[1:]))
    before = path.read_text()
    ended = forks("run", "m.jsonl", *FAKE[:-1], "-o", "out", cwd=tmp_path)
    assert ended.code == 3, ended.message
    assert "note: results.jsonl: 2 lines are no records (line 7, 8): joyedit keeps it as it is" in ended.message
    assert path.read_text().startswith(before)
    for command in (("status", "out"), ("verify", "out"), ("verify", "out", "--json")):
        told = forks(*command, cwd=tmp_path)
        assert told.code == 3
        assert "unexpected" not in told.message
        assert "Traceback" not in told.message
    assert sum(line.startswith("damaged_record") for line in findings(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    "report",
    ["", "[]", "3", "{}", '{"state": 7, "asked": 3}', '{"asked": {"path": "/dev/zero", "format": "png"}}',
     '{"asked": {"path": "m.jsonl", "format": "png", "limit": -1}}', '{"items": "a", "left": []}', "[" * 100_000],
)  # fmt: skip
def test_foreign_reports(forks: Forks, tmp_path: Path, report: str) -> None:
    make_manifest(tmp_path, 2)
    assert forks(*RUN, cwd=tmp_path).code == 0
    (tmp_path / "out" / "report.json").write_text(report)
    for command in (("status", "out"), ("verify", "out"), RUN):
        ended = forks(*command, cwd=tmp_path)
        assert ended.code in (0, 3), ended.message
        assert "unexpected" not in ended.message


@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_verify_waits_for_no_pipe(forks: Forks, tmp_path: Path, kind: str) -> None:
    make_manifest(tmp_path, 3)
    assert forks(*RUN, cwd=tmp_path).code == 0
    target = tmp_path / "out" / "item0.png"
    target.unlink()
    (tmp_path / "out" / "bad\udcff\nname\x1b").touch()
    if kind == "fifo":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    else:
        target.symlink_to(tmp_path / "in0.png")
    ended = forks("verify", "out", cwd=tmp_path)
    assert ended.code == 3
    assert "item0" in ended.message
    assert "stray_file: bad\\udcff\\nname\\x1b: no record names this file" in ended.message
    (tmp_path / "out" / "report.json").unlink()
    os.mkfifo(tmp_path / "out" / "report.json")
    assert forks("verify", "out", cwd=tmp_path).code == 3
    assert forks("status", "out", cwd=tmp_path).code in (0, 3)


def test_a_record_is_never_longer_than_its_reader_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyedit.job.results.records.MAX_RECORD", 40_000)
    monkeypatch.setattr("joyedit.job.results.journal.MAX_RECORD", 40_000)
    journal = Journal(tmp_path)
    long = "x" * 100_000
    fault = {"code": "bad_line", "message": long}
    journal.append(result("a", status="failed", output=None, instruction=long, inputs=(long,), error=fault))
    journal.append(result("b"))
    journal.close()
    assert [record["id"] for record in read_journal(journal.path)] == ["a", "b"]
    journal = Journal(tmp_path)
    assert (journal.damaged, journal.repaired) == (None, None)
    journal.close()


# The file system and colleagues.


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EPERM, errno.ENOSYS, errno.EISDIR])
def test_a_folder_that_cannot_be_flushed_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    flush = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        flush(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    folder = output_folder.OutputFolder(tmp_path / "out")
    folder.prepare()
    folder.write_text("a/b.txt", "x")
    assert folder.note is not None
    assert "cannot flush folders" in folder.note
    Journal(tmp_path / "out").close()
    folder.close()


def test_a_disk_that_fails_a_flush_of_the_folder_is_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = output_folder.OutputFolder(tmp_path / "out")
    folder.prepare()

    def fail(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        folder.write_text("a.txt", "x")
    folder.close()


FIRST, SECOND, GROUP = 54_321, 54_322, 54_300


AS_USER = """
import os, sys
from durability.forkserver import warm_up  # what other users may not be able to read is in memory then
warm_up()
from joyedit.cli.main import main
user, group = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([group])
os.setgid(user)
os.setuid(user)
os.umask(0o002)
main(sys.argv[3:])
"""


def as_user(user: int, *argv: str | Path, cwd: Path) -> Done:
    """The command of another user of the group `GROUP`."""
    command = [sys.executable, "-c", AS_USER, str(user), str(GROUP), *map(str, argv)]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'tests'}", HOME=str(cwd)),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return Done(code=done.returncode, message=done.stdout + done.stderr)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder of a group, without the bit that hands its group down."""
    if os.geteuid() != 0:
        pytest.skip("only root may be two users")
    place = tmp_path / "shared"
    place.mkdir()
    make_manifest(place, 6)
    for path in (place, *place.iterdir()):
        os.chown(path, 0, GROUP)
    place.chmod(0o775)
    parent = place.parent
    while parent != parent.parent:
        parent.chmod(parent.stat().st_mode | 0o055)
        parent = parent.parent
    return place


def test_two_colleagues_share_a_folder(shared: Path) -> None:
    first = as_user(FIRST, *RUN, "--limit", "3", cwd=shared)
    assert first.code == 0, first.message
    for path in (shared / "out", *(shared / "out").rglob("*")):
        status = path.stat()
        assert status.st_gid == GROUP, path
        assert status.st_mode & 0o060 == 0o060, path
        assert not status.st_mode & 0o002, path
    second = as_user(SECOND, *RUN, cwd=shared)
    assert second.code == 0, second.message
    assert {(shared / "out" / name).stat().st_uid for name in ("item0.png", "item2.png")} == {FIRST}
    assert findings(shared / "out") == []


@pytest.mark.parametrize("mode", [0o664, 0o644, 0o600])
def test_a_lock_that_a_colleague_left_behind_is_taken(shared: Path, mode: int) -> None:
    assert as_user(FIRST, *RUN, "--limit", "3", cwd=shared).code == 0
    lock = shared / "out" / ".joyedit.lock"
    lock.write_text('{"pid": 1}')
    os.chown(lock, FIRST, GROUP)
    lock.chmod(mode)
    ended = as_user(SECOND, *RUN, cwd=shared)
    if mode == 0o600:  # not even readable: the message says what to do
        assert ended.code == 1
        assert "cannot lock the output folder: out/.joyedit.lock: Permission denied (it belongs to " in ended.message
        assert "ask for chmod g+rw, or choose another output folder with -o" in ended.message
    else:
        assert ended.code == 0, ended.message


@pytest.mark.parametrize("name", [".joyedit.unfinished", "results.jsonl", "joyedit.log"])
def test_an_own_file_that_only_a_colleague_may_open_is_told(shared: Path, name: str) -> None:
    assert as_user(FIRST, *RUN, "--limit", "3", cwd=shared).code == 0
    path = shared / "out" / name
    path.touch()
    os.chown(path, FIRST, GROUP)
    path.chmod(0o600)
    before = pictures(shared / "out")
    ended = as_user(SECOND, *RUN, cwd=shared)
    assert ended.code == 1
    assert f"out/{name}: Permission denied (it belongs to " in ended.message
    assert "ask for chmod g+rw" in ended.message
    assert pictures(shared / "out") == before
    path.chmod(0o660)
    assert as_user(SECOND, *RUN, cwd=shared).code == 0


def test_an_unfinished_file_that_only_a_colleague_may_remove_stays(shared: Path) -> None:
    assert as_user(FIRST, *RUN, cwd=shared).code == 0
    closed = shared / "out" / "closed"
    closed.mkdir(mode=0o755)
    (closed / ".0123456789abcdef.joyedit-tmp").touch()
    ended = as_user(SECOND, *RUN, cwd=shared)
    assert ended.code == 0, ended.message
    assert len(list(closed.iterdir())) == 1


def test_a_log_that_cannot_be_written_is_told_before_anything_is_edited(shared: Path) -> None:
    whole = (shared / "in5.png").read_bytes()
    (shared / "in5.png").write_bytes(whole[: len(whole) // 2])  # only its header is in order
    (shared / "out").mkdir(mode=0o775)
    os.chown(shared / "out", FIRST, GROUP)
    (shared / "out").chmod(0o775)
    log = shared / "out" / "joyedit.log"
    log.touch(mode=0o644)
    ended = as_user(SECOND, *RUN, "--batch-size", "1", cwd=shared)
    assert ended.code == 1
    assert "cannot write out/joyedit.log: Permission denied" in ended.message
    assert pictures(shared / "out") == {}
    log.unlink()
    assert as_user(SECOND, *RUN, cwd=shared).code == 3


# How a run ends.


def test_two_signals_leave_a_final_report(tmp_path: Path) -> None:
    process = start_slowly(tmp_path, 6)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["state"], report["exit_code"]) == ("interrupted", 130)
    assert program(*RUN, cwd=tmp_path).code == 0  # nobody is blamed for that
    assert "killed_the_run" not in (tmp_path / "out" / "results.jsonl").read_text()


def test_an_error_that_nobody_expected_leaves_a_final_report(tmp_path: Path) -> None:
    make_manifest(tmp_path, 3)
    code = (
        "import sys\n"
        "from joyedit.runtime.pipeline import edit\n"
        "def broken(self, batch):\n"
        "    raise KeyError('nobody expected this')\n"
        "edit.BatchEditor.edit = broken\n"
        "from joyedit.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, *map(str, RUN)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unexpected error, KeyError: 'nobody expected this'" in done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["state"], report["exit_code"]) == ("stopped", 1)
    assert "KeyError" in report["error"]


def test_what_stopped_the_run_stands_in_the_report(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 3)
    ended = forks(*RUN, cwd=tmp_path, fault="journal.append:2:enospc")
    assert ended.code == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["error"] in ended.message
    assert "No space left on device" in report["error"]


def test_a_retry_on_a_fresh_folder_says_that_nothing_is_done(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 50)
    ended = forks("run", "m.jsonl", *FAKE[:-1], "-o", "out", "--retry-failed", cwd=tmp_path)
    assert ended.code == 3
    assert "50 items did not fail in an earlier run and are left" in ended.message
    assert "already done" not in ended.message
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["items"], report["ok"], report["left"]) == (0, 0, 50)


def test_a_limit_counts_the_items_of_the_source(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 8)
    for limit, done in ((3, 0), (5, 3), (5, 5)):
        ended = forks("run", "m.jsonl", *FAKE[:-1], "-o", "out", "--limit", str(limit), cwd=tmp_path)
        assert ended.code == 0, ended.message
        assert len(records(tmp_path / "out")) == limit
        assert (f"{done} items are already done" in ended.message) == (done > 0)


# Items that kill the process.


KILLER = {"image": "in0.png", "instruction": "SIGKILL", "id": "killer"}


def test_an_item_that_kills_the_run_comes_last_alone_and_is_given_up(tmp_path: Path) -> None:
    """The device dies with one item of six: five are done in the second run, the third gives up the one."""
    make_manifest(tmp_path, 5)
    text = (tmp_path / "m.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "m.jsonl").write_text("".join([*text[:2], json.dumps(KILLER) + "\n", *text[2:]]))
    run = (*RUN, "--batch-size", "2")
    assert program(*run, cwd=tmp_path).code == -signal.SIGKILL
    assert program(*run, cwd=tmp_path).code == -signal.SIGKILL
    last = program(*run, cwd=tmp_path)
    assert last.code == 3, last.message
    others = {name: record["status"] for name, record in records(tmp_path / "out").items() if name != "killer"}
    assert (set(others.values()), len(others)) == ({"ok"}, 5)
    record = records(tmp_path / "out")["killer"]
    assert record["error"]["code"] == "killed_the_run"
    assert "--retry-failed" in record["error"]["message"]
    lines = len(list(read_journal(tmp_path / "out" / "results.jsonl")))
    assert program(*run, cwd=tmp_path).code == 3  # passed over
    assert len(list(read_journal(tmp_path / "out" / "results.jsonl"))) == lines
    (tmp_path / "m.jsonl").write_text("".join(text) + json.dumps(KILLER | {"instruction": "harmless"}) + "\n")
    assert program(*RUN, "--retry-failed", cwd=tmp_path).code == 0
    assert findings(tmp_path / "out") == []


def test_a_header_that_kills_the_run_is_found_too(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 6)
    assert forks(*RUN, cwd=tmp_path, fault="header:3").code == -signal.SIGKILL
    unfinished = [json.loads(line) for line in (tmp_path / "out" / ".joyedit.unfinished").read_text().splitlines()]
    looks = [line[2][0] for line in unfinished if line[0] == "look"]
    assert len(looks) == 3
    assert forks(*RUN, cwd=tmp_path).code == 0
    assert findings(tmp_path / "out") == []


def test_a_retry_keeps_nothing_silent(forks: Forks, tmp_path: Path) -> None:
    """Finished pictures of other flags and pictures that are gone are told: exit code 0 says that all is done."""
    make_manifest(tmp_path, 4)
    assert forks(*RUN, cwd=tmp_path).code == 0
    assert forks(*RUN, "--retry-failed", cwd=tmp_path).code == 0
    ended = forks("run", "m.jsonl", *FAKE[:-1], "-o", "out", "--retry-failed", "--seed", "3", cwd=tmp_path)
    assert ended.code == 3
    assert "4 items have finished pictures that differ from what is asked, and keep them" in ended.message
    (tmp_path / "out" / "item0.png").unlink()
    assert forks(*RUN, "--retry-failed", cwd=tmp_path).code == 3
