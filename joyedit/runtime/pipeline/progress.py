"""How a run reports its progress: the protocol, which the command line implements, and a silent implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from joyedit.job.results.resume import Decision
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import ItemResult
from joyedit.runtime.protocol import BackendInfo
from joyedit.weights.hub import Download

if TYPE_CHECKING:
    from joyedit.job.source.sources import SourceSummary


class Progress(Protocol):
    """Called in this order. `result` is called from several threads, but never twice at the same time."""

    def begin(self, stopped: Callable[[], bool]) -> None:
        """The run begins. `stopped` says at any time whether it is to stop; any thread may ask."""

    def checking(self) -> None:
        """An earlier run left records. Before the model loads, joyedit checks which items are done (see `skipped`)."""

    def downloading(self, download: Download, here: int) -> None:
        """The checkpoint is on its way: `here` bytes of it are on this machine. Called about each half second."""

    def loading(self, config: RunConfig) -> None:
        """The source was checked, and there are items to edit. The model loads now."""

    def started(self, info: BackendInfo, summary: SourceSummary) -> None:
        """The model is loaded; the first item follows."""

    def step(self, done: int, total: int) -> None:
        """A denoising step of the running batch is done."""

    def result(self, result: ItemResult, line: str) -> None:
        """An item is finished, and `line` stands in results.jsonl."""

    def skipped(self, decision: Decision, finished: Callable[[], dict[str, Any] | None]) -> None:
        """This run does not edit an item; `decision` says why. Very many of these may come in a row.

        `finished` reads the last record of a finished picture of the item from the disk; None if it has none. Of an
        item that is given up it reads the record of the failure.
        """

    def note(self, text: str) -> None:
        """A remark for the user. The run goes on."""

    def stopping(self, reason: str) -> None:
        """The run stops early (`interrupted` or `out_of_time`). Running batches are still finished and written."""


class NoProgress:
    """A `Progress` that shows nothing."""

    def begin(self, stopped: Callable[[], bool]) -> None:
        """Nothing."""

    def checking(self) -> None:
        """Nothing."""

    def downloading(self, download: Download, here: int) -> None:
        """Nothing."""

    def loading(self, config: RunConfig) -> None:
        """Nothing."""

    def started(self, info: BackendInfo, summary: SourceSummary) -> None:
        """Nothing."""

    def step(self, done: int, total: int) -> None:
        """Nothing."""

    def result(self, result: ItemResult, line: str) -> None:
        """Nothing."""

    def skipped(self, decision: Decision, finished: Callable[[], dict[str, Any] | None]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def stopping(self, reason: str) -> None:
        """Nothing."""
