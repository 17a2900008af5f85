"""The turns of one run: `Turns` with what it hears from the run. In a run without turns nothing of it is there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from joyedit.job.pause import Pause
from joyedit.job.results.resume import Decision
from joyedit.job.spec import Batch, EditItem
from joyedit.runtime.pipeline.turn_results import TurnResults
from joyedit.runtime.pipeline.turns import ROOM, Entry, Turns


class TurnStage:
    """Any thread may call the methods, once `begin` was called."""

    def __init__(self) -> None:
        self._turns: Turns | None = None
        self._results: TurnResults | None = None

    def begin(
        self, items: Iterable[Entry], referred: Collection[str] | None, results: TurnResults, *, one_by_one: bool
    ) -> Iterable[Entry | Pause]:
        """The items, each as soon as its inputs are there. `referred` as in `Turns`.

        With `one_by_one` the sender of the items may wait for a result: nothing is read while an item waits.
        """
        if referred is not None and not referred:
            return items
        self._results = results
        self._turns = Turns(items, referred, results.outcome, room=1 if one_by_one else ROOM)
        return self._turns

    @property
    def is_waiting(self) -> bool:
        """Whether an item waits for the result of another one."""
        return self._turns is not None and self._turns.is_waiting

    def ended(self, name: str) -> None:
        """The item has its final record."""
        if self._turns is not None:
            self._turns.ended(name)

    def skipped(self, item: EditItem, decision: Decision) -> None:
        """The item is not edited in this run."""
        if self._turns is not None and self._results is not None:
            self._results.skipped(item, decision)
            self._turns.ended(item.id)

    def taken(self, batch: Batch) -> None:
        """These items go to the device together."""
        if self._turns is not None:
            self._turns.taken(batch)

    def without_last(
        self, entries: Iterable[Entry | Pause], comes_last: Callable[[EditItem], bool], last: list[EditItem]
    ) -> Iterator[Entry | Pause]:
        """The entries without the items that are to come when everything else has ended: these are put into `last`."""
        for entry in entries:
            if isinstance(entry, EditItem) and comes_last(entry):
                last.append(entry)
                if self._turns is not None:
                    self._turns.put_last(entry.id)
            else:
                yield entry
