"""The run-wide settings for people: each with where it comes from."""

from __future__ import annotations

from joyedit.job.source.source_options import BUILT_IN
from joyedit.job.spec import Settings
from joyedit.request import Request

_SHOWN = ("steps", "guidance_scale", "seed", "negative_prompt", "basesize", "width", "height")


def in_force(request: Request, settings: Settings) -> list[tuple[str, str]]:
    """Label and value of each run-wide setting, with its origin if that is not a flag.

    `settings` are the run-wide defaults that the source works with. An item's own line comes before.
    """
    settings = settings.over(BUILT_IN)
    rows = []
    for name in _SHOWN:
        value = getattr(settings, name)
        if value is None:
            continue
        text = repr(value) if isinstance(value, str) else str(value)
        origin = _origin(request, name, value)
        rows.append((name.replace("_", " "), text if origin is None else f"{text} ({origin})"))
    return rows


def _origin(request: Request, name: str, value: object) -> str | None:
    if getattr(request.flags, name) is not None:
        return None
    if request.recipe is not None and getattr(request.recipe.settings, name) is not None:
        return f"recipe {request.recipe.name}"
    checkpoint = getattr(request.checkpoint, name)
    lower = getattr(BUILT_IN, name) if checkpoint is None else checkpoint
    if value != lower:
        return "manifest defaults"
    return "built-in" if checkpoint is None else "checkpoint"
