"""Runs the command again and again, each time in a process of its own, without importing it each time.

Reads one JSON object a line, {"argv", "cwd", "fault", "env", "limit"}, forks, and lets the child be the
command: armed with the fault, with a limit on the length of files if one is given. Writes back its exit
status (below 0: the signal that killed it) and what it printed.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import resource
import sys
import tempfile
from functools import lru_cache

import typer.main

import joyedit.cli.execute
import joyedit.runtime.fake  # noqa: F401 - what the children would import each by itself
from joyedit.cli.main import main
from joyedit.job import failpoints
from joyedit.job.results.report import versions


def child(job: dict, message: int) -> None:
    os.dup2(message, 1)
    os.dup2(message, 2)
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    if job["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
    failpoints.arm(job["fault"])
    code = 70
    try:
        main(job["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 71
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def warm_up() -> None:
    """What every child would do for itself, with the same result each time."""
    typer.main.get_command = lru_cache(typer.main.get_command)
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        main(["status", os.devnull])
    versions()
    gc.collect()
    gc.freeze()  # children copy no page only because its objects were counted


def serve() -> None:
    warm_up()
    for line in sys.stdin:
        job = json.loads(line)
        with tempfile.TemporaryFile() as message:
            pid = os.fork()
            if pid == 0:
                child(job, message.fileno())
            _, status = os.waitpid(pid, 0)
            message.seek(0)
            text = message.read().decode(errors="replace")
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "message": text}), flush=True)


if __name__ == "__main__":
    assert "torch" not in sys.modules
    serve()
