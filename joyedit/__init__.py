"""joyedit: edit pictures in bulk with JoyAI-Image-Edit.

    >>> import joyedit
    >>> editor = joyedit.load("nano")
    >>> editor.edit("house.png", "make the house blue").save("blue.png")

`joyedit.run(source, ...)` is the command `joyedit run`, also for objects of a program, and `joyedit.stream(...)` gives
each result when it is finished. All errors are here too; `JoyeditError` is their base
(`joyedit.errors` draws the tree). Importing this package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from joyedit.errors import (
    CheckpointError,
    DeviceError,
    ItemError,
    JoyeditError,
    ManifestError,
    OutputError,
    Problem,
    UsageError,
)

if TYPE_CHECKING:
    from joyedit.api import Editor, Outcome, Result, RunInterrupted, RunOutcome, Stream, last_outcome, load, run, stream

    __version__: str

__all__ = [
    "CheckpointError",
    "DeviceError",
    "Editor",
    "ItemError",
    "JoyeditError",
    "ManifestError",
    "Outcome",
    "OutputError",
    "Problem",
    "Result",
    "RunInterrupted",
    "RunOutcome",
    "Stream",
    "UsageError",
    "__version__",
    "last_outcome",
    "load",
    "run",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from joyedit.job.results.report import joyedit_version

        return joyedit_version()
    if name in __all__:
        from joyedit import api

        return getattr(api, name)
    raise AttributeError(f"module 'joyedit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
