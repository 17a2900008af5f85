"""Rank 0 where its own process is interrupted, and where the others never come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from joyedit.runtime.parallel.layout import Layout
from joyedit.runtime.parallel.lead import LeadBackend, _meet
from joyedit.runtime.parallel.outcome import OK
from joyedit.runtime.parallel.place import Place
from joyedit.runtime.protocol import BackendInfo, GroupLost


class Words:
    """In the place of links: all answer that all is well, until a call is to be interrupted."""

    def __init__(self) -> None:
        self.interrupted = ""
        self.closed = False

    def tell(self, message: Any) -> None:
        self._maybe("tell")

    def hear(self) -> list[Any]:
        self._maybe("hear")
        return [OK]

    def close(self) -> None:
        self.closed = True

    def _maybe(self, name: str) -> None:
        if self.interrupted == name:
            raise KeyboardInterrupt


class Alone:
    """In the place of a backend and of its ranks."""

    encode_ahead = 1
    device = torch.device("cpu")
    info = BackendInfo(model="", layout="", device="cpu", dtype="fp32", attention="sdpa", schedule="original")

    def __init__(self, ready: Callable[[], None] = lambda: None) -> None:
        self.ready = ready
        self.closed: list[bool] = []

    def close(self, lost: bool = False) -> None:
        self.closed.append(lost)


def leading(backend: Alone, words: Words) -> LeadBackend:
    place = Place(rank=0, layout=Layout(guidance=2), folder=Path())
    return LeadBackend(backend, backend, words, place)  # type: ignore[arg-type]


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["tell", "hear", "own"])
def test_interrupted(where: str) -> None:
    """Answers may be missing or too many then, so the group does no more."""
    words, backend = Words(), Alone(ready=interrupt if where == "own" else lambda: None)
    words.interrupted = where
    model = leading(backend, words)
    with pytest.raises(KeyboardInterrupt):
        model.ready()
    assert words.closed
    words.interrupted = ""
    with pytest.raises(GroupLost, match="out of step"):
        model.ready()
    model.close()
    assert backend.closed == [True, False]


def test_ranks_that_do_not_meet(tmp_path: Path) -> None:
    place = Place(rank=0, layout=Layout(guidance=2), folder=tmp_path, timeout=1.0)
    with pytest.raises(GroupLost, match="do not find each other"):
        _meet(place, Alone())  # type: ignore[arg-type]
    assert not torch.distributed.is_initialized()
