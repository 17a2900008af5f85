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
from joyedit.job.data_picture import address_of
from joyedit.job.hashing import HashCache
from joyedit.job.results.earlier_ids import EarlierIds
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.input_hashes import input_hashes
from joyedit.job.results.journal import Journal
from joyedit.job.results.picture_place import pictures_of
from joyedit.job.results.recorded_outputs import RecordedOutputs
from joyedit.job.results.records import mask_seen, name_of, settings_of
from joyedit.job.results.shared import Shared
from joyedit.job.source.source import Source
from joyedit.job.spec import EditItem, FailedItem
from joyedit.job.speed.settings import PARTS
from joyedit.job.turns import earlier_of, with_results
from joyedit.printable import brief, printable

_SHOWN = 60
_ENOUGH = 64
"""Where at most half of so many first pictures are others, the source is the same one."""
_MOST = 4096
"""So many items are looked at for finished pictures, unless most of those that were found are others."""
_FEWEST = 2
"""One picture that is another one was edited by its owner."""


class Replacing:
    """Tells which finished pictures would be replaced.

    `shared` is what the items of the run have in common, `model` the name of its model.
    """

    def __init__(
        self,
        journal: Journal,
        recorded: RecordedOutputs,
        folder: Path,
        *,
        fingerprints: Fingerprinter,
        hashes: HashCache,
        shared: Shared,
        model: str,
    ) -> None:
        self._journal = journal
        self._earlier = EarlierIds(journal)
        self._recorded = recorded
        self._folder = folder
        self._pictures = pictures_of(folder)
        self._fingerprints = fingerprints
        self._hashes = hashes
        self._shared = shared
        self._model = model

    def refuse(self, source: Source) -> None:
        """Raises `UsageError` if the run would replace finished pictures; the message counts them.

        Reads all items only if there are records of runs with other flags, recipe, model or source, or if other
        pictures stand under the names of the first ones.
        """
        if not all(map(self._shared.is_in, self._journal.shared)):
            self._refuse_settings(source.items())
        if len(self._journal):
            self._refuse_pictures(source.items())

    def _refuse_settings(self, items: Iterable[EditItem | FailedItem]) -> None:
        """Flags, recipe, model or source are others."""
        count, reasons, first = 0, Counter[str](), ""
        for one in items:
            if not isinstance(one, EditItem):
                continue
            item = self._with_finished(one)
            record = self._earlier.finished(item)
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
            counted = ", ".join(f"{name} ({number})" for name, number in reasons.most_common())
            raise UsageError(self._message(count, f"because these differ: {counted}", first))

    def _with_finished(self, item: EditItem) -> EditItem:
        """The item with the finished results that it begins with, as far as there are some."""
        found = {name: self._pictures.at(self._journal.finished(name) or {}) for name in earlier_of(item)}
        files = {name: picture for name, picture in found.items() if picture is not None}
        return with_results(item, files) if files else item

    def _refuse_pictures(self, items: Iterable[EditItem | FailedItem]) -> None:
        """Most pictures of the source are others than those that were edited: somebody put another source in its place.

        Another card may be mounted at the same path. Some pictures that were retouched are no other source.
        """
        known = others = 0
        first = ""
        for number, item in enumerate(items):
            record = self._earlier.finished(item) if isinstance(item, EditItem) else None
            if record is not None and isinstance(item, EditItem):
                has_others = self._has_other_pictures(item, record)
                known += has_others is not None
                others += bool(has_others)
                first = first or (printable(item.id) if has_others else "")
            if (known >= _ENOUGH or number >= _MOST) and others * 2 <= known:
                return
        if others >= _FEWEST and others * 2 > known:
            why = f"because other pictures stand under the names of the source now ({others} of {known})"
            raise UsageError(self._message(others, why, f"{first}: the picture that was edited had another content"))

    def _has_other_pictures(self, item: EditItem, record: dict[str, Any]) -> bool | None:
        """Whether the pictures of an item have another content than the recorded one; None if they are not the same
        files, or if nobody can tell.
        """
        output = name_of(record)
        paths = [address_of(one) for one in item.images]
        if not paths or output is None or record.get("inputs") != paths or not self._pictures.holds(record):
            return None
        seen = record.get("inputs_seen")
        if not isinstance(seen, list) or not all(isinstance(one, list) and one for one in seen):
            return None
        try:
            found = input_hashes(item, record, self._hashes, trust=True)[: len(item.images)]
            return found != [one[0] for one in seen]
        except (OSError, ValueError):
            return None

    def would_replace(self, item: EditItem, record: dict[str, Any] | None) -> bool:
        """Whether an edit of this item would replace a finished picture for a reason outside of the item.

        `record` is the last one of a finished picture of the item; None if it has none.
        """
        if self._other_owner(item, record) is not None:
            return True
        return record is not None and self._replaces_own(item, record)

    def _other_owner(self, item: EditItem, record: dict[str, Any] | None) -> str | None:
        """The id of another source or other flags whose finished picture has the name of this item's output."""
        if record is not None and name_of(record) == item.output:
            return None
        if not self._pictures.has(item.output):
            return None
        owner = self._recorded.owner(item.output)
        return None if owner is None or owner.id == item.id or self._shared.is_in(owner.shared) else owner.id

    def _replaces_own(self, item: EditItem, record: dict[str, Any]) -> bool:
        output = name_of(record)
        if output is None or not self._pictures.holds(record):
            return False
        if self._shared.is_in(record.get("shared")) and not _is_of_another_picture(item, record):
            return False
        if _ending(output) != _ending(item.output) or self._has_other_name(item, record):
            return True
        try:
            inputs = input_hashes(item, record, self._hashes, trust=True)
        except (OSError, ValueError):  # unreadable: the item will fail
            return False
        return record.get("fingerprint") != self._fingerprints.of(item, inputs)

    def _has_other_name(self, item: EditItem, record: dict[str, Any]) -> bool:
        """Whether flags (`--name`) give the picture another name than it has."""
        if record["id"] != item.id or name_of(record) == item.output:
            return False
        return self._shared.has_other_settings(record.get("shared"))

    def _reasons(self, item: EditItem, record: dict[str, Any]) -> dict[str, str]:
        """What differs: name, and how it was and is."""
        then = record.get("settings")
        then = then if isinstance(then, dict) else {}
        now = settings_of(item) | {
            "schedule": self._fingerprints.schedule,
            "dtype": self._fingerprints.dtype,
            "precision": self._fingerprints.precision,
            "model": self._model,
        }
        found = {}
        width, height = now.pop("width"), now.pop("height")
        loras = now.pop("lora", [])
        now = {"box": None, "mask": None, **now}
        if (then.get("lora") or []) != loras:
            found["lora"] = f"lora {_loras(then.get('lora'))} -> {_loras(loras)}"
        left_out = self._fingerprints.speed.at(item.sampling.steps)
        if {key: then[key] for key in PARTS if key in then} != left_out.as_record():
            found["speed"] = f"speed {then.get('speed', 'of other parts' if PARTS & then.keys() else 'exact')} -> " + (
                left_out.in_words() or "exact"
            )
        if record.get("instruction") != item.instruction:
            found["instruction"] = _change("instruction", record.get("instruction"), item.instruction)
        then = {"precision": "exact", **then}
        for key, value in now.items():
            if then.get(key) != value:
                name = "base size" if key == "basesize" else key.replace("_", " ")
                found[name] = _change(name, then.get(key), value)
        if (then.get("width"), then.get("height")) != (width, height):
            was = f"{then.get('width')} x {then.get('height')}" if then.get("width") else "that of the picture"
            found["size"] = f"size {was} -> " + (f"{width} x {height}" if width else "that of the picture")
        if _ending(str(name_of(record))) != _ending(item.output):
            found["format"] = _change("format", _ending(str(name_of(record))), _ending(item.output))
        if not found and self._has_other_name(item, record):
            found["name"] = _change("name", name_of(record), item.output)
        if record.get("inputs") != [address_of(one) for one in item.images]:
            found["pictures"] = f"from another source, {_source(record)}"
        elif self._has_other_pictures(item, record):
            found["pictures"] = "the picture that was edited had another content"
        if item.mask is not None and "mask" not in found and self._has_other_mask(item, record):
            found["mask"] = "the mask had another content"
        return found or {"model, quality or version": "made by another model, quality or version of joyedit"}

    def _has_other_mask(self, item: EditItem, record: dict[str, Any]) -> bool:
        """Whether the mask of an item has another content than the recorded one."""
        seen = mask_seen(record)
        try:
            return seen is not None and input_hashes(item, record, self._hashes, trust=True)[-1] != seen[0]
        except (OSError, ValueError):
            return False

    def _message(self, count: int, why: str, first: str) -> str:
        what = "1 finished picture" if count == 1 else f"{count} finished pictures"
        return (
            f"this run would replace {what} in {self._pictures.address}, {why}; for example {first} "
            f"(add --update to replace the pictures that differ, or --overwrite to edit all items again, "
            f"or keep them and choose another folder: -o {self._pictures.free_name()})"
        )


def _is_of_another_picture(item: EditItem, record: dict[str, Any]) -> bool:
    """Whether an id from a picture's path stood for another picture then: `x.jpg` where it is `x.png` now."""
    inputs = record.get("inputs")
    if not item.has_default_id or not item.images or not isinstance(inputs, list) or not inputs:
        return False
    return os.path.basename(str(inputs[0])) != os.path.basename(str(item.images[0]))


def _change(name: str, then: object, now: object) -> str:
    return f"{name} {_short(then)} -> {_short(now)}"


def _loras(value: object) -> str:
    """The LoRAs of a record in words. Two files may have one name, so a part of the hash is told."""
    told = [
        f"{one.get('file')}:{one.get('scale')} ({str(one.get('sha256'))[:8]})"
        for one in (value if isinstance(value, list) else ())
        if isinstance(one, dict)
    ]
    return brief(" + ".join(told), 2 * _SHOWN) or "none"


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
