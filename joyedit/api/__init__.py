"""joyedit from Python: `load(...).edit(...)` for one picture at a time, `run(...)` and `stream(...)` for many.

All go the way of the command line: one checked request, one item builder, one pass through the device.
"""

from joyedit.api.editor import Editor, load
from joyedit.api.outcome import Outcome, RunInterrupted, last_outcome
from joyedit.api.result import Result
from joyedit.api.run import run, stream
from joyedit.api.stream import Stream
from joyedit.runtime.run import RunOutcome

__all__ = [
    "Editor",
    "Outcome",
    "Result",
    "RunInterrupted",
    "RunOutcome",
    "Stream",
    "last_outcome",
    "load",
    "run",
    "stream",
]
