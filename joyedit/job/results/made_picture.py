"""How a picture of joyedit was made: from what it holds itself, and from its record in the folder that it lies in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joyedit.errors import JoyeditError, UsageError, os_reason
from joyedit.job.boxes import box_numbers, read_box
from joyedit.job.data_picture import is_in_a_line
from joyedit.job.hashing import HashCache
from joyedit.job.own_files import RESULTS
from joyedit.job.pictures.embedded import is_cut, read_embedded
from joyedit.job.results.records import mask_path, mask_seen, output_of, read_journal
from joyedit.job.speed.bundles import SPEED_FLAGS
from joyedit.printable import printable

SETTINGS = ("steps", "guidance_scale", "seed", "negative_prompt", "basesize", "width", "height", "size", "fit")
RUN_SETTINGS = (
    *("model", "schedule", "dtype", "precision", "quality", "metadata", "keep_unedited", "register", "panorama"),
    *SPEED_FLAGS,
    "software",
)
"""What a picture says of its whole run."""
_WHOLE = frozenset(("steps", "seed", "basesize", "width", "height", "quality"))
_MOST_FOLDERS = 32
"""So many folders above a picture are looked at for a record."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeFrom:
    """One input: its name, where it lay if that is known, and the hash of its content if that is known."""

    name: str
    path: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MadePicture:
    """A picture, and how it was made.

    `settings` has the values of `SETTINGS` that are known, `run` those of the whole run: model, schedule, dtype,
    quality, metadata, keep_unedited and register ("yes"), panorama ("parts"), what steps left out, software. `loras`
    are paths (None where only the name is known) with name, sha256 and scale. `inputs` is None where nobody knows them,
    `mask` where there was none. `embedded` and `record` are what was read; `folder` is the output folder of the record.
    """

    path: Path
    instruction: str
    settings: Mapping[str, Any]
    run: Mapping[str, str]
    loras: tuple[Mapping[str, Any], ...] = ()
    box: list[int | float] | None = None
    inputs: tuple[MadeFrom, ...] | None = None
    mask: MadeFrom | None = None
    embedded: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] | None = None
    folder: Path | None = None


def how_made(path: Path) -> MadePicture:
    """How this picture was made. Raises UsageError for a file that says nothing about that, and has no record."""
    made = find_made(path)
    if made is None:
        raise UsageError(
            f"{printable(str(path))}: this picture does not say how it was made, and no {RESULTS} in the folders above "
            "names it (joyedit tells it only of its own pictures, and not where a program has removed their metadata)"
        )
    return made


def find_made(path: Path) -> MadePicture | None:
    """The same; None for such a file. Raises UsageError for a file that cannot be read."""
    try:
        embedded = read_embedded(os.fspath(path))
    except (OSError, ValueError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"{printable(str(path))}: cannot read this picture: {reason}") from error
    record, folder = _record_of(path)
    if not embedded and record is None:
        return None
    told = record.get("settings") if record is not None else {}
    told = told if isinstance(told, dict) else {}
    known = {**_typed(embedded), **{key: value for key, value in told.items() if value is not None}}
    # A picture that says nothing of these is of a time when all had the size of the bucket.
    known = {"size": "bucket", "fit": "crop", **known}
    if known["size"] != "bucket":  # it says the sides, if they were asked for
        known = {key: value for key, value in known.items() if key not in ("width", "height")}
    instruction = record.get("instruction") if record is not None else None
    box = read_box(known.get("box"))
    return MadePicture(
        path=path,
        instruction=instruction if isinstance(instruction, str) else embedded.get("instruction", ""),
        settings={key: known[key] for key in SETTINGS if key in known},
        run=_run_of(embedded, told),
        loras=_loras(embedded, told, record),
        box=None if box is None else box_numbers(box),
        inputs=_inputs(embedded, record),
        mask=_mask(embedded, record),
        embedded=embedded,
        record=record,
        folder=folder,
    )


def is_whole(made: MadePicture) -> bool:
    """Whether instruction and negative prompt are known to their ends."""
    return not any(is_cut(text) for text in (made.instruction, str(made.settings.get("negative_prompt", ""))))


def _typed(embedded: Mapping[str, str]) -> dict[str, Any]:
    """The embedded settings as values; what is no value of its kind is passed over."""
    made: dict[str, Any] = {}
    for key, text in embedded.items():
        try:
            made[key] = int(text) if key in _WHOLE else float(text) if key == "guidance_scale" else text
        except ValueError:
            continue
    return made


def _run_of(embedded: Mapping[str, str], told: Mapping[str, Any]) -> dict[str, str]:
    made = {name: embedded[name] for name in RUN_SETTINGS if name in embedded}
    made |= {name: str(told[name]) for name in ("model", "schedule", "dtype", "precision") if told.get(name)}
    if "software" not in made and told.get("joyedit"):
        made["software"] = f"joyedit {told['joyedit']}"
    return made


def _loras(
    embedded: Mapping[str, str], told: Mapping[str, Any], record: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], ...]:
    named = told.get("lora")
    if not isinstance(named, list):
        named = _json_list(embedded.get("lora"))
    paths = None if record is None else record.get("loras")
    paths = paths if isinstance(paths, list) and len(paths) == len(named) else [None] * len(named)
    return tuple(
        {"name": str(one.get("file")), "path": path, "sha256": one.get("sha256"), "scale": one.get("scale", 1.0)}
        for one, path in zip(named, paths, strict=True)
        if isinstance(one, dict)
    )


def _inputs(embedded: Mapping[str, str], record: Mapping[str, Any] | None) -> tuple[MadeFrom, ...] | None:
    paths = None if record is None else record.get("inputs")
    if isinstance(paths, list) and all(isinstance(path, str) for path in paths):
        seen = record.get("inputs_seen") if record is not None else None
        seen = seen if isinstance(seen, list) and len(seen) == len(paths) else [None] * len(paths)
        return tuple(_recorded(path, one) for path, one in zip(paths, seen, strict=True))
    if "inputs" not in embedded:
        return None
    return tuple(_embedded(one) for one in _json_list(embedded["inputs"]) if isinstance(one, dict))


def _mask(embedded: Mapping[str, str], record: Mapping[str, Any] | None) -> MadeFrom | None:
    path = None if record is None else mask_path(record)
    if record is not None and path is not None:
        return _recorded(path, mask_seen(record))
    told = _json_list(f"[{embedded['mask']}]") if "mask" in embedded and record is None else []
    return next((_embedded(one) for one in told if isinstance(one, dict)), None)


def _recorded(path: str, seen: object) -> MadeFrom:
    return MadeFrom(
        name=os.path.basename(path) if not is_in_a_line(path) else path[:60],
        path=None if is_in_a_line(path) else path,
        sha256=seen[0] if isinstance(seen, list) and seen and isinstance(seen[0], str) else None,
    )


def _embedded(one: Mapping[str, Any]) -> MadeFrom:
    sha256 = one.get("sha256")
    return MadeFrom(name=str(one.get("name")), sha256=sha256 if isinstance(sha256, str) else None)


def _json_list(text: str | None) -> list[Any]:
    try:
        read = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return []
    return read if isinstance(read, list) else []


def _record_of(path: Path) -> tuple[dict[str, Any] | None, Path | None]:
    """The record of this picture in one of the folders above it, and that folder.

    The last record that names the file counts, if the file has the recorded content.
    """
    full = Path(os.path.abspath(path))
    for folder in list(full.parents)[:_MOST_FOLDERS]:
        if not (folder / RESULTS).is_file():
            continue
        name = full.relative_to(folder).as_posix()
        found: dict[str, Any] | None = None
        try:
            for record in read_journal(folder / RESULTS):
                if output_of(record) == name:
                    found = record
            if found is not None and found.get("output_sha256") == HashCache().sha256(str(full)).sha256:
                return found, folder
        except (OSError, JoyeditError):  # no permission, or no plain file: the picture itself may say enough
            continue
    return None, None
