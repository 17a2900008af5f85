"""Runs the command again and again, each time in a process of its own, without importing it each time.

Reads one JSON object a line, {"argv", "cwd", "fault", "env", "limit", "around"}, forks, and lets the child be the
command: armed with the fault, with a limit on the length of files if one is given. Writes back its exit
status (below 0: the signal that killed it), what it printed, and what else `around` asked for:

    unset     names of the environment to remove
    umask, uid, gid
    limits    of `resource`, by name; that of RLIMIT_AS is added to what the process has already
    streams   of the descriptors 0, 1 and 2: "open" (0: empty), "closed", "full" (/dev/full), "gone" (a pipe without
              its reader), "unread" (a full pipe), "silent" (0: a pipe that says nothing), "file NAME" (0)
    reads     seconds after which somebody reads the unread pipes
    events    what happens when the fault "stop" has stopped the process, before it goes on; see `EVENTS`
    after     [seconds, signal]: a signal to send while it runs
    timeout   seconds after which the process is killed; `hung` in the answer tells of it
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import typer.main
from PIL import Image

import joyedit.cli.execute
import joyedit.runtime.fake  # noqa: F401 - what the children would import each by itself
from joyedit.cli.main import main
from joyedit.job import failpoints
from joyedit.job.results.report import versions

_POLL = 0.001


class Streams:
    """What stands behind the descriptors 0, 1 and 2 of one child."""

    def __init__(self, kinds: dict[str, str], message: int) -> None:
        self._kinds = kinds
        self._message = message
        self._ends: dict[int, int] = {}
        self._others: list[int] = []
        self.unread: list[int] = []
        for number, kind in kinds.items():
            if kind in ("gone", "unread", "silent"):
                reader, writer = os.pipe()
                self._ends[int(number)], other = (reader, writer) if kind == "silent" else (writer, reader)
                if kind == "gone":
                    os.close(other)
                else:
                    self._others.append(other)
                if kind == "unread":
                    _fill(writer)
                    self.unread.append(reader)

    def take(self, number: int) -> None:
        """In the child: make it so."""
        kind = self._kinds.get(str(number), "open")
        if kind == "closed":
            os.close(number)
        elif kind in ("full", "open") or kind.startswith("file "):
            if number and kind == "open":
                os.dup2(self._message, number)
                return
            name = "/dev/full" if kind == "full" else os.devnull if kind == "open" else kind.removeprefix("file ")
            opened = os.open(name, os.O_RDWR if kind == "full" else os.O_RDONLY)
            os.dup2(opened, number)
            os.close(opened)
        else:
            os.dup2(self._ends[number], number)

    def close(self) -> None:
        for handle in (*self._ends.values(), *self._others):
            os.close(handle)

    def drop(self) -> None:
        """In the child: nothing but 0, 1 and 2 stays open."""
        self.close()


def _fill(writer: int) -> None:
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)


def _cut(path: str) -> None:
    os.truncate(path, os.stat(path).st_size // 2)


def _append(path: str, text: str) -> None:
    os.stat(path)
    with open(path, "a") as file:
        file.write(text)


def _new(path: str, text: str) -> None:
    with open(path, "x") as file:
        file.write(text)


def _again(path: str) -> None:
    """A copy of the file takes its place, as after a save in an editor."""
    shutil.copy2(path, f"{path}.copy")
    os.replace(f"{path}.copy", path)


EVENTS: dict[str, Callable[..., Any]] = {
    "sleep": time.sleep,
    "rename": os.rename,
    "remove": os.unlink,
    "mkdir": os.mkdir,
    "link": os.symlink,
    "fifo": os.mkfifo,
    "cut": _cut,
    "append": _append,
    "new": _new,
    "again": _again,
}


def happen(pid: int, events: list[list[Any]]) -> list[int]:
    """Do the events, ["signal", number] too. Gives those that could be done; after one that could not, none follows."""
    done = []
    for place, (kind, *rest) in enumerate(events):
        try:
            if kind == "signal":
                os.kill(pid, rest[0])
            else:
                EVENTS[kind](*rest)
        except OSError:
            break
        done.append(place)
    return done


def child(job: dict, streams: Streams) -> None:
    around = job["around"]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as `joyedit.__main__` has it
    os.chdir(job["cwd"])
    for number in (1, 2, 0):
        streams.take(number)
    streams.drop()
    if around.get("streams"):
        sys.stdin = open(0, closefd=False) if around["streams"].get("0") != "closed" else None  # noqa: SIM115
    os.environ.update(job["env"])
    for name in around.get("unset", ()):
        os.environ.pop(name, None)
    tempfile.tempdir = None
    if "umask" in around:
        os.umask(around["umask"])
    if "uid" in around:
        os.setgroups([])
        os.setgid(around["gid"])
        os.setuid(around["uid"])
    if job["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
    for name, limit in around.get("limits", {}).items():
        most = limit + (_address_space() if name == "RLIMIT_AS" else 0)
        resource.setrlimit(getattr(resource, name), (most, most))
    failpoints.arm(job["fault"])
    code = 70
    try:
        main(job["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 71
    finally:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def attend(pid: int, around: dict[str, Any], streams: Streams) -> dict[str, Any]:
    """Wait for the child, and let happen what is to happen."""
    start, done, sent = time.monotonic(), None, False
    limit, reads = around.get("timeout", 600), around.get("reads")
    after = around.get("after")
    flags = os.WUNTRACED | (os.WNOHANG if around else 0)
    hung = False
    while True:
        found, status = os.waitpid(pid, flags)
        if found and os.WIFSTOPPED(status):
            done = happen(pid, around.get("events", ()))
            os.kill(pid, signal.SIGCONT)
            continue
        if found:
            return {"code": os.waitstatus_to_exitcode(status), "done": done, "hung": hung, "sent": sent}
        now = time.monotonic() - start
        if now > limit and not hung:
            hung = True
            os.kill(pid, signal.SIGKILL)
        if reads is not None and now > reads:
            for reader in streams.unread:
                os.set_blocking(reader, False)
                with contextlib.suppress(BlockingIOError):
                    os.read(reader, 1 << 16)
        if after is not None and now > after[0] and not sent:
            os.kill(pid, after[1])
            sent = True
        time.sleep(_POLL)


def warm_up() -> None:
    """What every child would do for itself, with the same result each time."""
    typer.main.get_command = lru_cache(typer.main.get_command)
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        main(["status", os.devnull])
    # A child that is another user may not be able to import anything: one run imports all there is.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        Image.new("RGB", (20, 20)).save(f"{folder}/a.png")
        Path(f"{folder}/b.png").write_bytes(b"broken")
        for kind in ("png", "jpg", "webp"):
            command = ["run", folder, "-p", "x", "-m", "fake", "-o", f"{folder}/out", "--format", kind, "--update"]
            with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
                main([*command, "--basesize", "256"])
        for name in ("verify", "status"):
            with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
                main([name, f"{folder}/out"])
    versions()
    gc.collect()
    gc.freeze()  # children copy no page only because its objects were counted


def serve() -> None:
    warm_up()
    for line in sys.stdin:
        job = json.loads(line)
        job.setdefault("around", {})
        with tempfile.TemporaryFile() as message:
            streams = Streams(job["around"].get("streams", {}), message.fileno())
            pid = os.fork()
            if pid == 0:
                child(job, streams)
            answer = attend(pid, job["around"], streams)
            streams.close()
            message.seek(0)
            answer["message"] = message.read().decode(errors="replace")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    assert "torch" not in sys.modules
    serve()
