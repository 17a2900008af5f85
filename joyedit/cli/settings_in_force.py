"""What the items of a run will use, for people: each setting with where it comes from, and what lines say instead."""

from __future__ import annotations

from joyedit.job.boxes import box_text
from joyedit.job.results.report import shard_text
from joyedit.job.source.dataset_source import DatasetSource
from joyedit.job.source.line_settings import EDITS, OwnValues
from joyedit.job.source.loras import LoraSet
from joyedit.job.source.matrix import SWEPT
from joyedit.job.source.source import SourceSummary
from joyedit.job.source.source_options import BUILT_IN
from joyedit.job.spec import Settings
from joyedit.job.speed.bundles import speed_flags, speed_text
from joyedit.printable import brief
from joyedit.request import Request
from joyedit.runtime.speed_losses import loss_of_run

_SHOWN = ("steps", "guidance_scale", "seed", "negative_prompt", "basesize", "size", "fit", "width", "height")
_WORDS = ("size", "fit")
_TEXT = 100
"""The most characters of a text that are shown."""
_TOLD = 300


def in_force(request: Request, summary: SourceSummary) -> list[tuple[str, str]]:
    """Label and text of the instruction and of each setting. An origin is named if it is not a flag.

    Where lines of the manifest say something else, the text says how many, and between which values.
    """
    rows = []
    if request.config.precision != "exact":
        told = f"{request.config.precision} in the DiT's products: pictures differ a little from exact ones"
        rows.append(("precision", told))
    if isinstance(request.source, DatasetSource):
        rows.append(("dataset", brief(request.source.told, _TOLD)))
    shard = request.source.shard_counts()
    if shard is not None:
        rows.append(("shard", shard_text(shard)))
    if summary.instruction is not None or _own(summary, "instruction") is not None:
        shown = None if summary.instruction is None else _shown(summary.instruction)
        is_swept = any(axis.key not in SWEPT for axis in summary.matrix.axes)
        rows.append(("instruction", _text(summary, "instruction", shown, "the first of them" if is_swept else None)))
    box = request.source.options.default_box
    if box is not None:
        rows.append(("red box", box_text(box)))
    mask = request.source.options.mask
    if mask is not None:
        rows.append(("mask", brief(mask, _TEXT)))
    if summary.loras.loras or _own(summary, "lora") is not None:
        rows.append(("lora", _text(summary, "lora", summary.loras.text, None)))
    settings = summary.settings.over(BUILT_IN)
    for name in _SHOWN:
        value = getattr(settings, name)
        axis = summary.matrix.axis(name)
        if axis is not None and axis.values:
            continue  # told below
        own = _own(summary, name)
        if value is None and own is None:
            continue
        shown = "that of the picture" if value is None else str(value) if name in _WORDS else _shown(value)
        origin = None if value is None else _origin(request, name, value, summary.loras)
        if name == "negative_prompt" and value and not _is_guided(settings, summary):
            origin = "not used, because guidance is off"
        rows.append((name.replace("_", " "), _text(summary, name, shown, origin)))
    if not all(value in (None, "exact") for value in speed_flags(request.config).values()):
        rows.append(("speed", speed_text(request.config)))
    loss = loss_of_run(request.config, settings.steps)
    rows += [] if loss is None else [("loss", loss.text)]
    if summary.matrix or _own(summary, EDITS) is not None:
        shown = f"{summary.matrix.size} ({summary.matrix.text})" if summary.matrix else "1"
        rows.append(("edits of each item", _text(summary, EDITS, shown, None)))
    if summary.lines is not None and not summary.lines.lines:  # standard input, which nobody has read yet
        rows.append(("lines", "what a line says itself comes before these settings"))
    return rows


def _text(summary: SourceSummary, name: str, shown: str | None, origin: str | None) -> str:
    own, count = _own(summary, name), 0 if summary.lines is None else summary.lines.lines
    if own is None:
        return f"{shown} ({origin})" if origin else str(shown)
    values = _values(own)
    if own.lines == count:
        who = "said by the only line" if count == 1 else f"said by each of the {count} lines"
        return f"{values} ({who})" if values else who
    said = f"{own.lines} of {count} lines {'says' if own.lines == 1 else 'say'} otherwise"
    said += f": {values}" if values else ""
    return f"{shown} ({origin}; {said})" if origin else f"{shown} ({said})"


def _own(summary: SourceSummary, name: str) -> OwnValues | None:
    return None if summary.lines is None else summary.lines.values().get(name)


def _values(own: OwnValues) -> str:
    """The values of the lines; an empty text if they are several texts."""
    if own.least is None or own.most is None:
        return ""
    return _shown(own.least) if own.least == own.most else f"{_shown(own.least)} to {_shown(own.most)}"


def _shown(value: object) -> str:
    return brief(repr(value), _TEXT) if isinstance(value, str) else str(value)


def _is_guided(settings: Settings, summary: SourceSummary) -> bool:
    """Whether guidance is on for some item."""
    return (settings.guidance_scale or 0) > 1 or _own(summary, "guidance_scale") is not None


def _origin(request: Request, name: str, value: object, loras: LoraSet) -> str | None:
    if getattr(request.flags, name) is not None:
        return None
    if request.recipe is not None and getattr(request.recipe.settings, name) is not None:
        return f"recipe {request.recipe.name}"
    checkpoint = getattr(request.checkpoint, name)
    lora = loras.origin(name)
    lower = getattr(BUILT_IN, name) if checkpoint is None else checkpoint
    if lora is not None:
        lower = getattr(loras.settings, name)
    if value != lower:
        return request.source.defaults_name
    if lora is not None:
        return f"LoRA {brief(lora, _TEXT)}"
    return "built-in" if checkpoint is None else "checkpoint"
