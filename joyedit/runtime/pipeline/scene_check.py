"""nano knows only drawn scenes. Whoever gives it a photograph is told so, once a run."""

from __future__ import annotations

from collections.abc import Callable

from joyedit.job.pictures.drawn import is_drawn
from joyedit.printable import brief
from joyedit.runtime.protocol import ReadyBatch
from joyedit.weights.defaults import HUB_EDIT, NANO


class SceneCheck:
    """Looks at the pictures of a run with nano until one is no drawn scene; `note` tells it. Does nothing else."""

    def __init__(self, model: str | None, note: Callable[[str], None]) -> None:
        self._is_looking = model == NANO
        self._note = note

    def look(self, batch: ReadyBatch) -> None:
        """The next batch, before it is edited."""
        for ready in batch.items if self._is_looking else ():
            if not all(map(is_drawn, ready.pictures)):
                self._is_looking = False
                self._note(
                    f"{brief(ready.item.id)} looks like a photograph, and nano knows only simple drawn scenes:"
                    f" take --model {HUB_EDIT} for photographs"
                )
                return
