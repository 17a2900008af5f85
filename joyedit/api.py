"""joyedit from Python: `load(...).edit(...)` for one picture at a time, `run(...)` for the command.

Both go the way of the command line: one checked request, one item builder, one pass through the device.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from joyedit.errors import ItemError, UsageError
from joyedit.job.boxes import fractions_of
from joyedit.job.fit import parse_size
from joyedit.job.masks import mask_fault
from joyedit.job.pictures.decode import Picture as ReadPicture
from joyedit.job.pictures.decode import load_picture, picture_in_memory
from joyedit.job.pictures.fitted import fitted, taken_out
from joyedit.job.pictures.masked import Masked, mask_of, with_mask
from joyedit.job.pictures.red_box import with_red_box
from joyedit.job.plan import size_item
from joyedit.job.source.data_uris import DataUriError, is_data, picture_of
from joyedit.job.source.line_pictures import mask_problem
from joyedit.job.spec import EditItem, FailedItem, Lora, Settings
from joyedit.options import RunOptions, names_of
from joyedit.request import build_item, build_request, loaded_loras, loading_config, run_request
from joyedit.runtime.model import backend_loader, model_settings
from joyedit.runtime.pipeline.running_batch import encode_batch, start_batch
from joyedit.runtime.protocol import Backend, OutOfMemory, ReadyBatch
from joyedit.runtime.run import RunOutcome
from joyedit.weights.wanted import Wanted

if TYPE_CHECKING:
    from typing import TypeAlias

    Picture: TypeAlias = Image.Image | str | os.PathLike[str]

SETTINGS = ("steps", "guidance_scale", "seed", "negative_prompt", "basesize", "width", "height", "size", "fit", "box")
PATHS = ("dit", "encoder", "vae", "tokenizer")
SPEED = ("speed", "reuse", "reuse_order", "guidance_reuse", "regions")
LOADING = (
    *PATHS,
    "lora",
    "device",
    "dtype",
    "precision",
    "attention",
    "compile",
    "fused",
    "memory",
    "offload",
    "schedule",
    *SPEED,
)
_ONLY_COMMAND = {"source", "output", "model", "values", "dry_run", "json", "no_page", "quiet", "verbose"}
_SPEED_AS_TEXT = ("reuse", "guidance_reuse", "regions")
_AS_TEXT = ("batch_size", "memory", "max_duration", "read_timeout", *_SPEED_AS_TEXT)


class Editor:
    """A loaded model. It edits one picture a call; `run` is the way for many."""

    def __init__(self, backend: Backend, defaults: Settings, loras: tuple[Lora, ...] = ()) -> None:
        """`defaults` are the model's own settings, in force where a call gives none; `loras` are part of the model."""
        self.backend = backend
        self.defaults = defaults
        self.loras = loras

    def edit(self, image: Picture | Sequence[Picture] | None, instruction: str, **settings: Any) -> Image.Image:
        """Edit one picture; the result is RGB, of the size of the last reference unless `size` says another.

        `image`: a PIL picture, a path or a `data:` URI, a list of them for several references, or None for text to
        image. `settings`: any of steps, guidance_scale, seed, negative_prompt, basesize, size, fit, width and height
        (the last two together), as a line of a manifest has them, box, which is drawn in red on the picture, and mask:
        a picture as `image`, white where the (last) picture may change and black where it stays as it is. Raises
        UsageError for a setting or an instruction that cannot work. Raises ItemError, with the codes of the command,
        for a picture that cannot be read ("unreadable_picture" and others), for a mask of other proportions
        ("bad_mask"), for "out_of_memory" and for "not_finite".
        """
        mask = settings.pop("mask", None)
        _refuse_unknown(settings, SETTINGS)
        given = _as_list(image)
        item = build_item(len(given), instruction, settings, self.defaults, self.loras)
        read = [_read(picture) for picture in given]
        masked = None if mask is None else _masked(read, mask, item)
        pictures = [one.image for one in read]
        sizes = {path: (p.height, p.width) for path, p in zip(item.images, pictures, strict=True)}
        sized = size_item(item, sizes.__getitem__)
        if isinstance(sized, FailedItem):  # the sizes are known, so it is the box
            raise ItemError(sized.code, sized.message)
        if item.box is not None:
            pictures = [with_red_box(p, fractions_of(item.box, (p.height, p.width))) for p in pictures]
        shown = tuple(fitted(picture, fit) for picture, fit in zip(pictures, sized.fits, strict=True))
        batch = ReadyBatch.of([sized], [shown])
        try:
            running = start_batch(self.backend, encode_batch(self.backend, batch), lambda done, total: None)
        except OutOfMemory as error:
            raise ItemError("out_of_memory", f"the edit does not fit on the device: {error}") from None
        result = taken_out(running.picture(0), sized.shown, sized.result)
        if masked is None:
            return result
        is_bucket = parse_size(item.result_size).kind == "bucket"
        return with_mask(result, masked, sized.fits[-1], sized.shown, is_bucket=is_bucket)

    def close(self) -> None:
        """Give the device's memory back."""
        self.backend.close()


def load(model: str | os.PathLike[str] | None = None, **options: Any) -> Editor:
    """Load a checkpoint: a folder in a known layout, a hub id, or `nano`; no model where dit, encoder and vae are
    given.

    `options`: any of dit, encoder, vae and tokenizer (paths), device, dtype, attention, compile, fused, memory,
    offload, schedule, speed, reuse, reuse_order, guidance_reuse and regions, with the values of the flags of those
    names. `lora`: a path, `{"file": path, "scale": number}`, or a list of these. Raises CheckpointError, DeviceError
    or UsageError.
    """
    _refuse_unknown(options, LOADING)
    options |= {name: os.fspath(options[name]) for name in PATHS if options.get(name) is not None}
    options |= {name: str(options[name]) for name in _SPEED_AS_TEXT if options.get(name) is not None}
    options["lora"] = _loras(options.get("lora"))
    config = loading_config(None if model is None else os.fspath(model), options)
    wanted = Wanted.of(config)
    recommended = loaded_loras(options["lora"]).settings
    return Editor(backend_loader(wanted)(config), recommended.over(model_settings(wanted)), config.merged_loras)


def run(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    model: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] = "edited",
    recipe_values: dict[str, str] | None = None,
    page: bool = True,
    **options: Any,
) -> RunOutcome:
    """What `joyedit run SOURCE ...` does, without its messages. `source` is one, or several pictures and folders.

    `options` are the long flags of the command with underscores (prompt, steps, guidance_scale, seed,
    negative_prompt, basesize, batch_size, limit, recipe, format, quality, ...), `lora` as in `load`, `gpus` also a
    number or a list. `page`: whether the run ends with a page that shows it. The outcome holds the exit code, the
    report and the path of the page. Raises what the command refuses before it writes anything.
    """
    _refuse_unknown(options, [name for name in names_of(RunOptions) if name not in _ONLY_COMMAND])
    options |= {name: os.fspath(options[name]) for name in PATHS if options.get(name) is not None}
    options |= {name: os.fspath(options[name]) for name in ("mask",) if options.get(name) is not None}
    options |= {name: Path(options[name]) for name in ("metrics",) if options.get(name) is not None}
    options["lora"] = _loras(options.get("lora"))
    options |= {name: str(options[name]) for name in _AS_TEXT if options.get(name) is not None}
    options |= _matrix(options)
    gpus = options.get("gpus")
    if gpus is not None and not isinstance(gpus, str):
        options["gpus"] = ",".join(map(str, gpus)) if isinstance(gpus, Iterable) else str(gpus)
    if options.get("input") is not None:
        named = options["input"]
        several = [named] if isinstance(named, (str, os.PathLike)) else named
        options["input"] = tuple(os.fspath(one) for one in several)
    values = tuple(f"{name}={value}" for name, value in (recipe_values or {}).items())
    given = [source] if isinstance(source, (str, os.PathLike)) else source
    sources = tuple(os.fspath(one) for one in given)
    name = None if model is None else os.fspath(model)
    options["no_page"] = not page
    request = build_request(RunOptions(source=sources, output=Path(output), model=name, values=values, **options))
    return run_request(request)


def _refuse_unknown(given: Iterable[str], known: Sequence[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UsageError(f"unknown setting {unknown[0]!r}; known are {', '.join(known)}")


def _loras(given: Any) -> tuple[str, ...]:
    """LoRAs as the flag takes them: with objects, the scale stands behind the path."""
    several = [given] if isinstance(given, (str, os.PathLike, dict)) else [] if given is None else list(given)
    made = []
    for one in several:
        if isinstance(one, dict):
            if not set(one) <= {"file", "scale"} or "file" not in one:
                raise UsageError(f"a LoRA is a path or has file and scale, not {sorted(map(str, one))}")
            made.append(f"{os.fspath(one['file'])}:{float(one.get('scale', 1.0))!r}")
        else:
            made.append(os.fspath(one))
    return tuple(made)


def _matrix(given: Mapping[str, Any]) -> dict[str, Any]:
    """`seeds` and `sweep` as the flags take them: a number or a list, and a dict of lists."""
    made: dict[str, Any] = {}
    seeds, sweep = given.get("seeds"), given.get("sweep")
    if isinstance(sweep, list):
        made["sweep"] = tuple(map(str, sweep))
    if isinstance(sweep, Mapping):
        made["sweep"] = tuple(f"{key}={json.dumps(list(values))}" for key, values in sweep.items())
    if isinstance(seeds, (list, tuple, range)):
        made["seeds"] = None  # a list of one seed would be a number of seeds there
        made["sweep"] = (*made.get("sweep", sweep or ()), f"seed={json.dumps(list(seeds))}")
    elif seeds is not None:
        made["seeds"] = str(seeds)
    return made


def _as_list(image: Picture | Sequence[Picture] | None) -> list[Picture]:
    if image is None:
        return []
    if isinstance(image, (Image.Image, str, os.PathLike)):
        return [image]
    return list(image)


def _read(picture: Picture, *, follows_profile: bool = True) -> ReadPicture:
    if isinstance(picture, Image.Image):
        return picture_in_memory(picture, follows_profile=follows_profile)
    if isinstance(picture, str) and is_data(picture):
        try:
            return load_picture(picture_of(picture), follows_profile=follows_profile)
        except DataUriError as error:
            raise ItemError("unreadable_picture", str(error.problem)) from None
    return load_picture(Path(picture), follows_profile=follows_profile)


def _masked(pictures: Sequence[ReadPicture], given: Any, item: EditItem) -> Masked:
    """The last picture and its mask. Raises UsageError and ItemError."""
    if not isinstance(given, (Image.Image, str, os.PathLike)):
        raise UsageError(f"a mask is a picture, a path or a data: URI, not {type(given).__name__}")
    wrong = mask_problem(len(pictures), item.size)
    if wrong is not None:
        raise UsageError(wrong.text)
    mask, last = mask_of(_read(given, follows_profile=False)), pictures[-1].image
    fault = mask_fault((mask.height, mask.width), (last.height, last.width))
    if fault is not None:
        raise ItemError("bad_mask", fault)
    return Masked(pictures[-1], mask)
