"""Finished pictures that a run would replace although their own line and pictures are as they were.

The reason is then outside of the item: a flag, a recipe, another model, another source. A person may have forgotten
the pictures of an earlier run, so such a run is refused unless it was asked for with `--update` or `--overwrite`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from joyedit.errors import UsageError, place
from joyedit.job.hashing import HashCache
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.journal import Journal
from joyedit.job.results.recorded_outputs import RecordedOutputs
from joyedit.job.results.records import output_of
from joyedit.job.spec import EditItem, FailedItem
from joyedit.printable import brief, printable

_SHOWN = 60


class Replacing:
    """Tells which finished pictures would be replaced.

    `shared` is the run's own hash of what its items share, `model` the name of its model.
    """

    def __init__(
        self,
        journal: Journal,
        recorded: RecordedOutputs,
        folder: Path,
        *,
        fingerprints: Fingerprinter,
        hashes: HashCache,
        shared: str,
        model: str,
    ) -> None:
        self._journal = journal
        self._recorded = recorded
        self._folder = folder
        self._fingerprints = fingerprints
        self._hashes = hashes
        self.shared = shared
        self._model = model

    def refuse(self, items: Iterable[EditItem | FailedItem]) -> None:
        """Raises `UsageError` if an item of `items` would replace a finished picture; the message counts them.

        Reads the items only if there are records of runs with other flags, recipe, model or source.
        """
        if self._journal.shared <= {self.shared}:
            return
        count, reasons, first = 0, Counter[str](), ""
        for item in items:
            if not isinstance(item, EditItem):
                continue
            record = self._journal.finished(item.id)
            owner = self._other_owner(item, record)
            if owner is not None:
                found = {"picture of another item": f"{printable(item.output)} is that of {printable(owner)}"}
            elif record is not None and self._replaces_own(item, record):
                found = self._reasons(item, record)
            else:
                continue
            count += 1
            reasons.update(found.keys())
            first = first or f"{printable(item.id)}: {found[next(iter(found))]}"
        if count:
            raise UsageError(self._message(count, reasons, first))

    def would_replace(self, item: EditItem, record: dict[str, Any] | None) -> bool:
        """Whether an edit of this item would replace a finished picture for a reason outside of the item.

        `record` is the last one of a finished picture of the item; None if it has none.
        """
        if self._other_owner(item, record) is not None:
            return True
        return record is not None and self._replaces_own(item, record)

    def _other_owner(self, item: EditItem, record: dict[str, Any] | None) -> str | None:
        """The id of another source or other flags whose finished picture has the name of this item's output."""
        if record is not None and output_of(record) == item.output:
            return None
        if not os.path.lexists(self._folder / item.output):
            return None
        owner = self._recorded.owner(item.output)
        return None if owner is None or owner.id == item.id or owner.shared == self.shared else owner.id

    def _replaces_own(self, item: EditItem, record: dict[str, Any]) -> bool:
        output = output_of(record)
        if output is None or record.get("shared") == self.shared or not os.path.lexists(self._folder / output):
            return False
        if _ending(output) != _ending(item.output):
            return True
        inputs = self._inputs(item, record)
        return inputs is not None and record.get("fingerprint") != self._fingerprints.of(item, inputs)

    def _inputs(self, item: EditItem, record: dict[str, Any]) -> list[str] | None:
        """The recorded hashes of the inputs if these are the same files, else their hashes now; None if unreadable."""
        paths = [os.path.abspath(path) for path in item.images]
        seen = record.get("inputs_seen")
        if record.get("inputs") == paths and isinstance(seen, list) and len(seen) == len(paths):
            return [str(one[0]) if isinstance(one, list) and one else "" for one in seen]
        try:
            return [self._hashes.sha256(path).sha256 for path in paths]
        except OSError:
            return None

    def _reasons(self, item: EditItem, record: dict[str, Any]) -> dict[str, str]:
        """What differs: name, and how it was and is."""
        then = record.get("settings")
        then = then if isinstance(then, dict) else {}
        height, width = (None, None) if item.size is None else item.size
        sampling = item.sampling
        now = {
            "steps": sampling.steps,
            "guidance_scale": sampling.guidance_scale,
            "seed": sampling.seed,
            "negative_prompt": sampling.negative_prompt,
            "basesize": item.basesize,
            "schedule": self._fingerprints.schedule,
            "dtype": self._fingerprints.dtype,
            "model": self._model,
        }
        found = {}
        if record.get("instruction") != item.instruction:
            found["instruction"] = _change("instruction", record.get("instruction"), item.instruction)
        for key, value in now.items():
            if then.get(key) != value:
                name = "base size" if key == "basesize" else key.replace("_", " ")
                found[name] = _change(name, then.get(key), value)
        if (then.get("width"), then.get("height")) != (width, height):
            was = f"{then.get('width')} x {then.get('height')}" if then.get("width") else "that of the picture"
            found["size"] = f"size {was} -> " + (f"{width} x {height}" if width else "that of the picture")
        if _ending(record["output"]) != _ending(item.output):
            found["format"] = _change("format", _ending(record["output"]), _ending(item.output))
        if record.get("inputs") != [os.path.abspath(path) for path in item.images]:
            found["pictures"] = f"from another source, {_source(record)}"
        return found or {"model, quality or version": "made by another model, quality or version of joyedit"}

    def _message(self, count: int, reasons: Counter[str], first: str) -> str:
        what = "1 finished picture" if count == 1 else f"{count} finished pictures"
        counted = ", ".join(f"{name} ({number})" for name, number in reasons.most_common())
        return (
            f"this run would replace {what} in {self._folder}, because these differ: {counted}; for example {first} "
            f"(add --update to replace the pictures that differ, or --overwrite to edit all items again, "
            f"or keep them and choose another folder: -o {_free_name(self._folder)})"
        )


def _change(name: str, then: object, now: object) -> str:
    return f"{name} {_short(then)} -> {_short(now)}"


def _short(value: object) -> str:
    return brief(repr(value) if isinstance(value, str) else str(value), _SHOWN)


def _source(record: dict[str, Any]) -> str:
    source = record.get("source")
    if not isinstance(source, dict):
        return "which is unknown"
    line = source.get("line")
    return printable(place(str(source.get("file")), line if isinstance(line, int) else None))


def _ending(output: str) -> str:
    return PurePosixPath(output).suffix.lower()


def _free_name(folder: Path) -> str:
    """A folder beside this one that does not exist yet."""
    number = 2
    while os.path.lexists(f"{folder}-{number}"):
        number += 1
    return f"{folder}-{number}"
