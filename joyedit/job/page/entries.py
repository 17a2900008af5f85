"""A record of results.jsonl -> what the page says of it: a short row for the grid, and the details for one look.

Records may be of another version or damaged in part. What is not as expected is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from joyedit.job.contained import is_url
from joyedit.job.data_picture import is_in_a_line
from joyedit.job.page import loose
from joyedit.job.page.pictures import Look
from joyedit.job.page.private import Private
from joyedit.job.results.records import error_code, mask_path, mask_share, name_of
from joyedit.job.results.retry import manifest_line
from joyedit.printable import brief, printable

SHORT_TEXT = 240
"""Characters of an instruction that the grid shows and searches."""
_SHORT_ERROR = 160
_LONG_TEXT = 20_000
_MOST_ID = 2000
_NAME = 120
_MOST_PAIRS = 200
_FITS = {"stretch": "fill", "pad": "contain"}
_AXES = ("seed", "steps", "guidance_scale", "basesize")
_WORK = ("steps", "basesize", "width", "height", "size")
"""What decides how much work an item is: a reader may leave it to flags when he edits the item again."""
_SETTINGS = (
    *_AXES,
    "speed",
    "width",
    "height",
    "size",
    "fit",
    "box",
    "negative_prompt",
    "schedule",
    "model",
    "dtype",
    "precision",
    "attention",
    "joyedit",
)


def row_of(record: Mapping[str, Any], look: Look, group: int, private: Private) -> dict[str, Any]:
    """The row of an item: only the keys that it has a value for. `group`: items of one sweep have the same.

    id, show (the id as it can be shown, where that differs), bad (1: failed), out (link), raw (1: browsers do not show
    that file), view (name of a copy to look at in its place), after, before (names of small pictures),
    size [width, height], fit (how CSS lays the input into that), sec (seconds), code, why, seed,
    steps, guide, base, neg, lora, drift [dx, dy, zoom], recipe, in (name of the picture), axes (of a sweep), off (what
    is not as recorded), note (1: there are notes), group.
    """
    settings = loose.table(record.get("settings"))
    seconds = sum(loose.number(value) or 0.0 for value in loose.table(record.get("seconds")).values())
    code = error_code(dict(record))
    loras = lora_text(settings.get("lora"))
    name = record["id"][:_MOST_ID]
    row = {
        "id": name,
        "show": brief(name, 300) if brief(name, 300) != name else None,
        "bad": int(code is not None),
        "out": look.link,
        "after": look.after,
        "view": look.view,
        "raw": int(look.is_unshown),
        "before": look.before,
        "size": _size(record.get("size")) or _size(record.get("bucket")),
        "fit": _FITS.get(loose.text(loose.table(record.get("fit")).get("mode"))),
        "sec": round(seconds, 3) or None,
        "code": None if code is None else brief(code, 60),
        "why": brief(_message(record, private), _SHORT_ERROR),
        "seed": _seed(settings.get("seed")),
        "steps": loose.whole(settings.get("steps")),
        "guide": loose.number(settings.get("guidance_scale")),
        "base": loose.whole(settings.get("basesize")),
        "neg": loose.text(settings.get("negative_prompt"))[:60],
        "lora": brief(loras, 100),
        "drift": drift_of(record),
        "recipe": brief(recipe_of(record), 60),
        "in": brief(look.inputs[-1].name, _NAME) if look.inputs else None,
        "axes": _pairs(record.get("sweep")),
        "off": look.off,
        "note": int(bool(record.get("notes"))),
        "group": group,
    }
    return {key: value for key, value in row.items() if value not in (None, "", 0, []) or key == "seed"}


def text_of(record: Mapping[str, Any]) -> str:
    """The instruction as the grid shows it."""
    text = loose.text(record.get("instruction"))
    return text if len(text) <= SHORT_TEXT else text[: SHORT_TEXT - 1] + "…"


def group_key(record: Mapping[str, Any]) -> bytes:
    """The same for items that differ in nothing but settings: 12 bytes."""
    inputs = record.get("inputs")
    parts = [loose.text(record.get("instruction")), *(map(str, inputs) if isinstance(inputs, list) else ())]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()[:12]


def details_of(record: Mapping[str, Any], look: Look, out: str, private: Private) -> dict[str, Any]:
    """All that the page shows of an item, and what its line of a manifest is made of (see `export_of`)."""
    settings = loose.table(record.get("settings"))
    export, why = export_of(record, out)
    text = loose.text(record.get("instruction"))
    source = loose.table(record.get("source"))
    seconds = loose.table(record.get("seconds"))
    details: dict[str, Any] = {
        **export,
        "why": why,
        "text": None if export else text[:_LONG_TEXT],
        "inputs": [{"name": one.name, "link": one.link, "view": one.view, "off": one.off} for one in look.inputs],
        "settings": [[key, _setting(key, settings[key])] for key in _SETTINGS if settings.get(key) not in (None, "")]
        + _mask_rows(record)
        + _parts_rows(record),
        "lora": lora_text(settings.get("lora")),
        "seconds": [[brief(name, 40), loose.number(value) or 0.0] for name, value in seconds.items()],
        "notes": [brief(private.text(loose.text(note)), 1000) for note in loose.entries(record.get("notes"))[:50]],
        "error": _message(record, private)[:4000],
        "from": _origin(source),
        "at": loose.text(record.get("at"))[:40],
        "fit": _pairs(record.get("fit")),
        "columns": _pairs(record.get("columns")),
        "bytes": loose.whole(record.get("output_bytes")),
    }
    return {key: value for key, value in details.items() if value not in (None, "", [], {})}


def export_of(record: Mapping[str, Any], out: str) -> tuple[dict[str, Any], str]:
    """The item for a manifest: its line as JSON without `_WORK` and paths, these apart; or {} and why not.

    Paths are relative to `out`. A script of the page puts both in. The rest stays text, because a seed has more digits
    than its numbers hold.
    """
    inputs, mask = loose.entries(record.get("inputs")), mask_path(record)
    if any(map(is_in_a_line, (*inputs, mask))):
        return {}, "its picture stands in its line of the source"
    planned = name_of(record) or record.get("planned_output")
    line = manifest_line({**record, "planned_output": planned})
    if line is None:
        return {}, "its record does not hold a whole item"
    del line["output"]
    loras = line.pop("lora", [])
    line.pop("image", None)
    line.pop("images", None)
    line.pop("mask", None)
    paths = [_from(out, path) for path in inputs]
    lora = [[os.path.relpath(one["file"], out), loose.number(one["scale"]) or 0.0] for one in loras]
    work = {key: line.pop(key) for key in _WORK if key in line}
    own = {} if mask is None else {"mask": _from(out, mask)}
    return {"line": json.dumps(line, ensure_ascii=False), "work": work, "images": paths, "loras": lora, **own}, ""


def _from(out: str, path: str) -> str:
    """The path or address from the folder `out`; a URL stays as it is."""
    return path if is_url(path) else os.path.relpath(path, out)


def drift_of(record: Mapping[str, Any]) -> list[float] | None:
    """How far the picture has moved, as its record says: dx, dy and zoom; None if it does not say that."""
    drift = loose.table(record.get("drift"))
    found = [loose.number(drift.get(key)) for key in ("dx", "dy", "zoom")]
    return [round(value, 5) for value in found if value is not None] if None not in found else None


def recipe_of(record: Mapping[str, Any]) -> str:
    """The name of the item's recipe; "" if it has none."""
    recipe = record.get("recipe")
    return loose.text(recipe.get("name") if isinstance(recipe, dict) else recipe)


def lora_text(loras: object) -> str:
    """The LoRAs of an item in words."""
    told = []
    for one in loose.entries(loras):
        scale = loose.number(loose.table(one).get("scale"))
        told.append(loose.text(loose.table(one).get("file")) + ("" if scale in (None, 1.0) else f" x {scale:g}"))
    return ", ".join(told)


def link_to(path: str) -> str:
    """A relative path as a link: every byte that is not plain is escaped, so it can be nothing but a path."""
    return quote(os.fsencode(path), safe="/")


def _message(record: Mapping[str, Any], private: Private) -> str:
    """What is said of a failure, without the places of pictures."""
    message = loose.text(loose.table(record.get("error")).get("message"))
    return private.text(message, [*loose.entries(record.get("inputs")), mask_path(record)]) if message else ""


def _parts_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """Into how many parts a panorama was cut, and how much they overlap."""
    parts = loose.table(record.get("parts"))
    count, size, overlap = loose.whole(parts.get("count")), _size(parts.get("size")), loose.number(parts.get("overlap"))
    if count is None or size is None or overlap is None:
        return []
    return [["parts", f"{count} of {size[0]} x {size[1]}, which overlap by {overlap:.0%}"]]


def _mask_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """What the page says of the mask: its name, and how much it lets change."""
    path, share = mask_path(record), mask_share(record)
    if path is None:
        return []
    name = path[:_NAME] if is_in_a_line(path) else os.path.basename(path)
    return [["mask", brief(name, _NAME) + ("" if share is None else f" ({share:.1%} may change)")]]


def _setting(key: str, value: object) -> str:
    """A setting in words; of the path of a model its name."""
    shown = _shown(value)
    return os.path.basename(shown.rstrip("/")) if key == "model" and shown.startswith("/") else shown


def _origin(source: Mapping[str, Any]) -> str:
    """Where the item comes from, without the folders of the machine."""
    name = os.path.basename(loose.text(source.get("file")))
    line = loose.whole(source.get("line"))
    return printable(name if line is None else f"{name}, line {line}")


def _seed(value: object) -> int | str | None:
    """A seed that a script can hold: as text where it has more digits than a number there."""
    seed = loose.whole(value)
    return seed if seed is None or abs(seed) < 1 << 53 else str(seed)


def _size(bucket: object) -> list[int] | None:
    """[width, height] of [height, width]."""
    sides = [loose.whole(side) for side in loose.entries(bucket)]
    return [sides[1], sides[0]] if len(sides) == 2 and all(sides) else None  # type: ignore[list-item]


def _pairs(table: object) -> list[list[str]]:
    """A table of somebody else as pairs of texts: its keys are no keys of the page."""
    return [[brief(str(key), 100), _shown(value)] for key, value in list(loose.table(table).items())[:_MOST_PAIRS]]


def _shown(value: object) -> str:
    return value[:2000] if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)[:2000]
