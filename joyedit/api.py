"""joyedit from Python: `load(...).edit(...)` for one picture at a time, `run(...)` for the command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from joyedit.errors import UsageError
from joyedit.job.pictures.colours import to_rgb
from joyedit.job.pictures.decode import fit, load_picture
from joyedit.job.plan import size_item
from joyedit.job.source.item_builder import BUILT_IN
from joyedit.job.spec import BASE_SIZES, Batch, EditItem, Origin, RunConfig, Sampling, Settings, SizedItem
from joyedit.options import Flags
from joyedit.request import build_request
from joyedit.runtime.model import backend_loader, describe_without_loading, model_settings
from joyedit.runtime.protocol import Backend, BatchInput
from joyedit.runtime.run import RunOutcome
from joyedit.runtime.run import run as run_source

if TYPE_CHECKING:
    from typing import TypeAlias

    Picture: TypeAlias = Image.Image | str | os.PathLike[str]

SETTINGS = ("steps", "guidance_scale", "seed", "negative_prompt", "basesize", "width", "height")
LOADING = ("device", "dtype", "attention", "compile", "fused", "offload", "schedule")


class Editor:
    """A loaded model. It edits one picture a call; `run` is the way for many."""

    def __init__(self, backend: Backend, defaults: Settings) -> None:
        """`defaults` are the settings in force where a call gives none."""
        self.backend = backend
        self.defaults = defaults.over(BUILT_IN)

    def edit(self, image: Picture | Sequence[Picture] | None, instruction: str, **settings: Any) -> Image.Image:
        """Edit one picture; the result is RGB, of the size of its bucket.

        `image`: a PIL picture or a path, a list of them for several references, or None for text to
        image. `settings`: any of steps, guidance_scale, seed, negative_prompt, basesize, width and
        height (the last two together). Raises UsageError for a setting or an instruction that cannot
        work, ItemError for a picture that cannot be read.
        """
        given = _settings(settings)
        if not instruction.strip():
            raise UsageError("the instruction is empty")
        pictures = [_read(picture) for picture in _as_list(image)]
        force = given.over(self.defaults)
        assert force.steps is not None
        assert force.basesize is not None
        assert force.seed is not None
        assert force.guidance_scale is not None
        assert force.negative_prompt is not None
        item = EditItem(
            id="picture",
            images=tuple(Path(f"reference-{i}") for i in range(len(pictures))),
            instruction=instruction,
            sampling=Sampling(
                steps=force.steps,
                guidance_scale=force.guidance_scale,
                seed=force.seed,
                negative_prompt=force.negative_prompt,
            ),
            basesize=force.basesize,
            size=(force.height, force.width) if force.height and force.width else None,
            output="picture.png",
            origin=Origin(file="joyedit.Editor.edit"),
        )
        sizes = {path: (p.height, p.width) for path, p in zip(item.images, pictures, strict=True)}
        sized = size_item(item, sizes.__getitem__)
        assert isinstance(sized, SizedItem)  # the sizes are known
        fitted = tuple(fit(p, bucket) for p, bucket in zip(pictures, sized.references, strict=True))
        encoded = self.backend.encode(BatchInput(batch=Batch(index=0, items=(sized,)), pictures=(fitted,)))
        return self.backend.decode(self.backend.denoise(encoded, lambda done, total: None))[0]

    def close(self) -> None:
        """Give the device's memory back."""
        self.backend.close()


def load(model: str | os.PathLike[str], **options: Any) -> Editor:
    """Load a checkpoint: a folder in a published layout, a hub id, or `nano`.

    `options`: any of device, dtype, attention, compile, fused, offload and schedule, with the values of the flags
    of those names. Raises CheckpointError, DeviceError or UsageError.
    """
    _refuse_unknown(options, LOADING)
    name = os.fspath(model)
    config = RunConfig(output=Path(), model=name, **options)
    return Editor(backend_loader(name)(config), model_settings(name))


def run(
    source: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] = "edited",
    recipe_values: dict[str, str] | None = None,
    **flags: Any,
) -> RunOutcome:
    """What `joyedit run SOURCE` does, without its messages.

    `flags` are the long flags of the command with underscores (prompt, steps, guidance_scale, seed,
    negative_prompt, basesize, batch_size, limit, recipe, format, quality, ...). The outcome holds the
    exit code and the report. Raises what the command refuses before it writes anything.
    """
    allowed = set(Flags.__slots__) - {"source", "output", "model", "values", "dry_run", "json", "quiet", "verbose"}
    _refuse_unknown(flags, sorted(allowed))
    if "batch_size" in flags:
        flags["batch_size"] = str(flags["batch_size"])
    for name in ("max_duration", "read_timeout"):
        if name in flags:
            flags[name] = str(flags[name])
    values = tuple(f"{name}={value}" for name, value in (recipe_values or {}).items())
    asked = Flags(source=os.fspath(source), output=Path(output), model=os.fspath(model), values=values)
    request = build_request(replace(asked, **flags))
    load_backend = backend_loader(request.config.model)
    return run_source(request.source, request.config, load_backend=load_backend, describe=describe_without_loading)


def _settings(given: dict[str, Any]) -> Settings:
    _refuse_unknown(given, SETTINGS)
    settings = Settings(**given)
    if settings.steps is not None and settings.steps < 1:
        raise UsageError(f"steps must be at least 1, not {settings.steps}")
    if settings.basesize not in (None, *BASE_SIZES):
        raise UsageError(f"basesize must be one of {', '.join(map(str, BASE_SIZES))}, not {settings.basesize}")
    if (settings.width is None) != (settings.height is None):
        raise UsageError("width and height go together: give both or none")
    return settings


def _refuse_unknown(given: dict[str, Any], known: Sequence[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UsageError(f"unknown setting {unknown[0]!r}; known are {', '.join(known)}")


def _as_list(image: Picture | Sequence[Picture] | None) -> list[Picture]:
    if image is None:
        return []
    if isinstance(image, (Image.Image, str, os.PathLike)):
        return [image]
    return list(image)


def _read(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return to_rgb(ImageOps.exif_transpose(picture), [])
    return load_picture(Path(picture)).image
