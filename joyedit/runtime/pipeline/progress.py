"""Who is told how a run goes: the protocol that the command line fills, and one that is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from joyedit.job.spec import ItemResult, RunConfig
from joyedit.runtime.protocol import BackendInfo

if TYPE_CHECKING:
    from joyedit.job.source.sources import SourceSummary


class Progress(Protocol):
    """Told in this order; `result` comes from several threads, but never twice at once."""

    def checking(self) -> None:
        """An earlier run left records: what is done is told apart, each by `skipped`, before the model loads."""

    def loading(self, config: RunConfig) -> None:
        """The source was checked, and there is something to edit; the model loads now."""

    def started(self, info: BackendInfo, summary: SourceSummary) -> None:
        """The model is loaded; the first item follows."""

    def step(self, done: int, total: int) -> None:
        """A denoising step of the batch in flight is done."""

    def result(self, result: ItemResult, line: str) -> None:
        """An item is finished, and `line` stands in results.jsonl."""

    def skipped(self) -> None:
        """An item is done already, or not asked for. Between two results there may be very many of these."""

    def note(self, text: str) -> None:
        """Something that the user should know, and that stops nothing."""

    def stopping(self, reason: str) -> None:
        """The run stops before its end (`interrupted` or `out_of_time`); what is done is still written."""


class NoProgress:
    """A `Progress` that tells nobody."""

    def checking(self) -> None:
        """Nothing."""

    def loading(self, config: RunConfig) -> None:
        """Nothing."""

    def started(self, info: BackendInfo, summary: SourceSummary) -> None:
        """Nothing."""

    def step(self, done: int, total: int) -> None:
        """Nothing."""

    def result(self, result: ItemResult, line: str) -> None:
        """Nothing."""

    def skipped(self) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def stopping(self, reason: str) -> None:
        """Nothing."""
