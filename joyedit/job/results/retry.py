"""failed.jsonl: a manifest of the items whose last record is a failure, so that a run can edit them again.

Each line holds the complete item: the instruction with any template filled in, the settings, absolute paths
of the pictures. It leaves out lines of the source that are no items, records that do not hold a whole item, and items
whose pictures stand in their lines (`data:` URIs): no record holds these, so only the source can give them again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, BinaryIO

from joyedit.job.data_picture import is_in_a_line
from joyedit.job.own_files import FAILED
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import mask_path, output_of, packed_in
from joyedit.job.turns import MARK

_SETTINGS = ("negative_prompt", "seed", "steps", "guidance_scale", "basesize")


def write_failed(folder: OutputFolder, journal: Journal) -> int:
    """Write failed.jsonl, or remove it if nothing failed that can be in it.

    Returns how many failed items it leaves out because their pictures stand in their lines. Raises `OutputError`.
    """

    def packed(name: str) -> str | None:
        earlier = journal.finished(name)
        is_packed = earlier is not None and packed_in(earlier) is not None
        return os.path.join(os.path.abspath(folder.path), str(output_of(earlier))) if earlier and is_packed else None

    def fill(file: BinaryIO) -> None:
        for record in journal.failures():
            line = manifest_line(record, is_failed=journal.has_failed, packed=packed)
            if line is not None:
                file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "strict") + b"\n")

    if any(manifest_line(record) is not None for record in journal.failures()):
        folder.write(FAILED, fill)
    else:
        folder.remove(FAILED)
    return sum(map(_is_in_the_source, journal.failures()))


def _is_in_the_source(record: dict[str, Any]) -> bool:
    """Whether a picture of this item stands in its line, and nowhere else. A line that is no item does not count."""
    inputs = record.get("inputs")
    is_item = isinstance(record.get("planned_output"), str)
    return is_item and isinstance(inputs, list) and any(map(is_in_a_line, (*inputs, mask_path(record))))


def manifest_line(
    record: dict[str, Any],
    is_failed: Callable[[str], bool] = lambda name: False,
    packed: Callable[[str], str | None] = lambda name: None,
) -> dict[str, Any] | None:
    """The item of a failed record as a line of a manifest; None if the record holds no complete item.

    `is_failed` tells which results are not there: the line names them, as they are to be made first. `packed` gives the
    address of a result that lies in a shard.
    """
    settings, output, inputs = (record.get(key) for key in ("settings", "planned_output", "inputs"))
    instruction = record.get("instruction")
    if not isinstance(settings, dict) or not isinstance(output, str) or not isinstance(instruction, str):
        return None
    if not isinstance(inputs, list) or not all(isinstance(path, str) for path in inputs):
        return None
    inputs = _with_names(inputs, record.get("earlier"), is_failed, packed)
    mask = mask_path(record)
    if any(map(is_in_a_line, (*inputs, mask))) or (mask is None) != (settings.get("mask") is None):
        return None
    if any(settings.get(key) is None for key in _SETTINGS):
        return None
    line: dict[str, Any] = {"id": record["id"], "instruction": instruction, "output": output}
    if inputs:
        line |= {"image": inputs[0]} if len(inputs) == 1 else {"images": inputs}
    line |= {key: settings[key] for key in _SETTINGS}
    line |= {key: settings[key] for key in ("size", "fit") if settings.get(key) is not None}
    has_sides = settings.get("width") is not None and settings.get("height") is not None
    if has_sides and line.get("size", "bucket") == "bucket":  # else the size says the same
        line |= {"width": settings["width"], "height": settings["height"]}
    if settings.get("box") is not None:
        line["box"] = settings["box"]
    if mask is not None:
        line["mask"] = mask
    loras = _loras(record.get("loras"), settings.get("lora"))
    if loras is None:
        return None
    if loras:
        line["lora"] = loras
    try:
        json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return None
    return line


def _with_names(
    inputs: list[str], earlier: object, is_failed: Callable[[str], bool], packed: Callable[[str], str | None]
) -> list[str]:
    """The pictures of an item: in place of a result that is not there, the name of its item."""
    if not isinstance(earlier, list) or len(earlier) != len(inputs):
        return inputs
    pairs = zip(inputs, earlier, strict=True)
    return [
        path if not isinstance(name, str) else f"{MARK}{name}" if is_failed(name) else packed(name) or path
        for path, name in pairs
    ]


def _loras(paths: object, told: object) -> list[dict[str, Any]] | None:
    """The LoRAs of a record as a line has them; None if the record does not hold all of them."""
    if paths is None and told is None:
        return []
    if not isinstance(paths, list) or not isinstance(told, list) or len(paths) != len(told):
        return None
    if not all(isinstance(path, str) for path in paths) or not all(isinstance(one, dict) for one in told):
        return None
    return [{"file": path, "scale": one.get("scale", 1.0)} for path, one in zip(paths, told, strict=True)]
