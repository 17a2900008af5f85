"""Records that an item has under another default id: it had that id when other pictures or lines were beside it.

They are the item's own. A record under its present id takes their place, and says so in `replaces`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from joyedit.job.data_picture import address_of
from joyedit.job.own_files import FAILED
from joyedit.job.results.journal import Journal
from joyedit.job.results.records import has_same_settings
from joyedit.job.spec import EditItem

_ROW = re.compile(r"(\['[^']*'\])?(\.iloc)?\[\d+\]\Z")
"""The place of a row in a source that a program gave: the source is the same one, wherever the row stands."""


class EarlierIds:
    """Finds the records of items under any of their ids. Any thread may ask."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # Ids that this run makes itself are those of the same source: no item finds itself there.
        self._is_first_run = not len(journal)

    def final(self, item: EditItem) -> dict[str, Any] | None:
        """The last record of the item; None if it has none."""
        own = self._journal.final(item.id)
        return next(self._others(item), None) if own is None else own

    def finished(self, item: EditItem) -> dict[str, Any] | None:
        """The last record of the item that names a finished picture; None if it has none."""
        own = self._journal.finished(item.id)
        if own is not None:
            return own
        found = (self._journal.finished(record["id"]) for record in self._others(item))
        return next((record for record in found if record is not None), None)

    def replaced(self, item: EditItem) -> tuple[str, ...]:
        """The other ids whose records no longer count once the item has a new one."""
        return tuple(record["id"] for record in self._others(item))

    def _others(self, item: EditItem) -> Iterator[dict[str, Any]]:
        if self._is_first_run or item.owns == "none":
            return
        for name in item.other_ids:
            record = self._journal.final(name)
            if record is not None and _is_of(item, record):
                yield record


def _is_of(item: EditItem, record: dict[str, Any]) -> bool:
    """Whether a record under another default id of `item` is of this item, and not of another line or picture."""
    if record.get("inputs") != [address_of(one) for one in item.images]:
        return False
    source = record.get("source")
    if not isinstance(source, dict) or not _is_one_source(str(source.get("file")), item.origin.file):
        return False
    if item.owns == "same pictures":
        return True
    return has_same_settings(item, record) and record.get("instruction") == item.instruction


def _is_one_source(then: str, now: str) -> bool:
    """Whether two names may be those of one source; one of them may begin further up. A retry is of the same source."""
    if os.path.basename(then) == FAILED:
        return True
    then, now = _ROW.sub("", then), _ROW.sub("", now)
    short, long = sorted((os.path.normpath(then), os.path.normpath(now)), key=len)
    return long == short or long.endswith(f"/{short}")
