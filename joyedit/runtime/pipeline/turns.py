"""Items that begin with results of others wait here until these are there. Then they go to the check like any other.

`Turns` stands between the source and the check. It hears of each item that has come to its end (`ended`), and of the
items that go to the device together (`taken`): what waits for the items of one batch goes on together, so that it may
be one batch again.

Where nothing can go on, it gives a `Pause`: whoever holds items back, to fill a batch, lets them go. It reads on in the
source while it holds fewer than `room` items. Beyond that it reads on only if one of them waits for a line to come.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from joyedit.job.data_picture import MOST_HELD, Reference, held_by
from joyedit.job.pause import Pause
from joyedit.job.plan import failed
from joyedit.job.spec import Batch, EditItem, FailedItem
from joyedit.job.turns import EARLIER_FAILED, earlier_of, with_results
from joyedit.printable import brief, printable

ROOM = 4096
"""So many items may wait before the source does."""

Entry = EditItem | FailedItem


class Outcome(NamedTuple):
    """What came of an item: where its picture is, or is not, and why it has none."""

    file: Reference | None
    fault: str | None = None


class _Waiting(NamedTuple):
    item: EditItem
    open: set[str]
    """The ids of the items that it waits for."""


class Turns:
    """Iterate over it for items whose inputs are there. One thread does that; any thread may call the other methods.

    `referred` are the ids of items whose results others begin with; None: any item may be named by one to come, but
    only after it came. `outcome` says what came of an item that has ended.
    """

    def __init__(
        self,
        items: Iterable[Entry],
        referred: Collection[str] | None,
        outcome: Callable[[str], Outcome],
        *,
        room: int = ROOM,
    ) -> None:
        self._items = iter(items)
        self._outcome = outcome
        self._room = room
        self._referred = referred
        self._to_come = set(referred or ())
        self._has_all = False
        self._changed = threading.Condition()
        self._in_work: set[str] = set()  # they came out, and have not ended
        self._last: set[str] = set()  # they come out again when everything else has ended
        self._waiting: dict[str, _Waiting] = {}
        self._later: dict[str, list[str]] = {}  # by id: the items that wait for it
        self._groups: dict[str, set[str]] = {}  # by id: those that went to the device with it, and have not ended
        self._held_back: dict[int, list[EditItem]] = {}  # by group: what goes on when all of it has ended
        self._ready: deque[EditItem] = deque()
        self._held: set[str] = set()  # what waits, is held back, or is ready
        self._bytes = 0

    @property
    def is_waiting(self) -> bool:
        """Whether an item waits."""
        with self._changed:
            return bool(self._waiting or self._ready)

    def __iter__(self) -> Iterator[Entry | Pause]:
        return self

    def __next__(self) -> Entry | Pause:
        """The next item, or a pause. After the end there may be more, once an item has ended that was put last."""
        while True:
            with self._changed:
                if self._ready:
                    found = self._ready.popleft()
                    self._comes_out(found.id)
                    break
                if self._has_all or not self._may_read():
                    if self._in_work and self._waiting:
                        return Pause(self._wait)
                    if not self._waiting or self._last:
                        raise StopIteration
                    return self._given_up()
            entry = next(self._items, None)
            if entry is None:
                self._has_all = True
            elif isinstance(entry, EditItem) and entry.earlier:
                self._hold(entry)
            else:
                with self._changed:
                    self._comes_out(entry.id)
                return entry
        return self._resolved(found)

    def ended(self, name: str) -> None:
        """The item has its final state: what waited for it may go on."""
        with self._changed:
            self._in_work.discard(name)
            self._last.discard(name)
            group = self._groups.pop(name, None)
            if group is not None:
                group.discard(name)
                if not group:
                    self._ready.extend(self._held_back.pop(id(group), ()))
            for later in self._later.pop(name, ()):
                waiting = self._waiting[later]
                waiting.open.discard(name)
                if not waiting.open:
                    del self._waiting[later]
                    self._go_on(waiting.item, group)
            self._changed.notify_all()

    def taken(self, batch: Batch) -> None:
        """These items go to the device together."""
        with self._changed:
            names = {sized.item.id for sized in batch.items} & self._in_work
            group = set(names)
            for name in names:
                before = self._groups.get(name)
                if before is not None:  # it goes in parts
                    before.discard(name)
                    if not before:
                        self._held_back.setdefault(id(group), []).extend(self._held_back.pop(id(before), ()))
                self._groups[name] = group

    def put_last(self, name: str) -> None:
        """The item that came out comes to the device when everything else has ended: nobody waits for it until then."""
        with self._changed:
            if name in self._in_work:
                self._in_work.discard(name)
                self._last.add(name)

    def _may_read(self) -> bool:
        """Whether to read on in the source; to be asked with the lock."""
        if len(self._waiting) < self._room and self._bytes < MOST_HELD:
            return True
        return not self._in_work and not self._last

    def _wait(self, seconds: float) -> bool:
        with self._changed:
            if self._ready or not self._in_work:
                return True
            self._changed.wait(seconds)
            return bool(self._ready) or not self._in_work

    def _comes_out(self, name: str) -> None:
        self._to_come.discard(name)
        self._held.discard(name)
        if self._referred is None or name in self._referred:
            self._in_work.add(name)

    def _hold(self, item: EditItem) -> None:
        """Let an item of the source wait, or go on if what it waits for has ended."""
        with self._changed:
            self._to_come.discard(item.id)
            self._held.add(item.id)
            known = (self._in_work, self._held, self._last, self._to_come)
            open_ids = {name for name in earlier_of(item) if any(name in ids for ids in known)}
            if not open_ids:
                self._ready.append(item)
                return
            self._waiting[item.id] = _Waiting(item, open_ids)
            self._bytes += held_by(item.inputs)
            for name in open_ids:
                self._later.setdefault(name, []).append(item.id)

    def _go_on(self, item: EditItem, group: set[str] | None) -> None:
        """The item waits for nothing any more, but for the others of `group`."""
        self._bytes -= held_by(item.inputs)
        if group:
            self._held_back.setdefault(id(group), []).append(item)
        else:
            self._ready.append(item)

    def _given_up(self) -> FailedItem:
        """An item that waits for what never comes: the source changed while it was read."""
        name = next(iter(self._waiting))
        item, missing = self._waiting.pop(name)
        for one in missing:
            self._later[one].remove(name)
        self._bytes -= held_by(item.inputs)
        self._comes_out(name)
        return failed(item, EARLIER_FAILED, f"the source has no item {brief(printable(min(missing)))} any more")

    def _resolved(self, item: EditItem) -> Entry:
        """The item with the files of the results that it begins with; failed if one of them is not there."""
        outcomes = {name: self._outcome(name) for name in earlier_of(item)}
        found = with_results(item, {name: one.file for name, one in outcomes.items() if one.file is not None})
        fault = next((one.fault for one in outcomes.values() if one.fault is not None), None)
        return found if fault is None else failed(found, EARLIER_FAILED, fault)
