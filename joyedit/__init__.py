"""joyedit: edit pictures in bulk with JoyAI-Image-Edit.

    >>> import joyedit
    >>> editor = joyedit.load("nano")
    >>> editor.edit("house.png", "make the house blue").save("blue.png")

`joyedit.run(source, ...)` is the command `joyedit run`. Importing this package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from joyedit.api import Editor, load, run

__all__ = ["Editor", "load", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from joyedit import api

        return getattr(api, name)
    raise AttributeError(f"module 'joyedit' has no attribute {name!r}")
