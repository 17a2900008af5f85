"""Runs the command again and again, each time in a process of its own, without importing it each time.

Reads one JSON object a line, {"argv", "cwd", "fault", "env", "limit"}, forks, and lets the child be the
command: armed with the fault, with a limit on the length of files if one is given. Writes back its exit
status (below 0: the signal that killed it) and what it printed.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile

import joyedit.cli.execute
import joyedit.runtime.fake  # noqa: F401 - what the children would import each by itself
from joyedit.cli.main import main
from joyedit.job import faults


def child(job: dict, told: int) -> None:
    os.dup2(told, 1)
    os.dup2(told, 2)
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    if job["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
    faults.arm(job["fault"])
    code = 70
    try:
        main(job["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 71
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        with tempfile.TemporaryFile() as told:
            pid = os.fork()
            if pid == 0:
                child(job, told.fileno())
            _, status = os.waitpid(pid, 0)
            told.seek(0)
            text = told.read().decode(errors="replace")
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "told": text}), flush=True)


if __name__ == "__main__":
    assert "torch" not in sys.modules
    serve()
