"""`joyedit run PICTURE` of a picture that joyedit made: what was in force then becomes the options of the run now.

A picture with an instruction (`-p`, a recipe, or a text file beside it) is a picture to edit, whoever made it. Without
one, a picture that says how joyedit made it is made again.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from joyedit.errors import UsageError
from joyedit.job.results.made_picture import MadePicture, find_made
from joyedit.job.source.beside_pictures import text_beside
from joyedit.job.source.names import EXTENSIONS
from joyedit.job.source.picture_folder import PICTURE_SUFFIXES
from joyedit.job.source.replay import Replay, ReplaySource, replay_of
from joyedit.job.source.source_options import SourceOptions
from joyedit.job.source.sources import refuse_line_field
from joyedit.job.spec import Settings
from joyedit.job.speed.bundles import SPEED_FLAGS
from joyedit.options import RunOptions
from joyedit.printable import printable
from joyedit.runtime.model import is_fake
from joyedit.weights.defaults import NANO
from joyedit.weights.wanted import Wanted

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def with_replay(options: RunOptions) -> tuple[RunOptions, Replay | None]:
    """The options with what the picture was made with, and the picture; the same options and None for another source.

    Raises UsageError for a picture that cannot be made again, and for `--input` with another source.
    """
    made = _picture_of(options)
    if made is None:
        if options.input:
            raise UsageError(
                "--input is for a picture of joyedit that is made again, and SOURCE is none (leave it out)"
            )
        return options, None
    changes: dict[str, str] = {}
    for pair in options.values:
        key, sign, value = pair.partition("=")
        if not sign or not key.strip():
            raise UsageError(f"--set takes name=value, not {pair!r}")
        if key.strip() in changes:
            raise UsageError(f"--set {key.strip()} is given twice")
        changes[key.strip()] = value
    flags = Settings(**{name: getattr(options, name) for name in Settings.__slots__ if hasattr(options, name)})
    replay = replay_of(
        made,
        flags=flags,
        changes=changes,
        inputs=options.input,
        own_loras=bool(options.lora),
        own_mask=options.mask is not None,
    )
    model, note = _model(made, options)
    replay = replace(replay, notes=(*replay.notes, note) if note else replay.notes)
    return replace(options, values=(), model=model, **_of_run(made, options)), replay


def open_replay(replay: Replay, options: SourceOptions) -> ReplaySource:
    """The source of this picture. Raises UsageError for options that cannot work with it."""
    options.check()
    name = os.fspath(replay.made.path)
    if options.exclude:
        raise UsageError(f"--exclude is for folders and patterns, and {name} is none (leave it out)")
    options.refuse_line_flags(name)
    refuse_line_field(name, options)
    return ReplaySource(name, options, replay)


def _picture_of(options: RunOptions) -> MadePicture | None:
    """The picture that SOURCE is, if it is to be made again."""
    if options.prompt is not None or options.recipe is not None or len(options.source) != 1:
        return None
    name = options.source[0]
    if not isinstance(name, str):
        return None
    name = name if os.path.lexists(name) else os.path.expanduser(name)
    try:
        is_picture = os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES and os.path.isfile(name)
    except ValueError:  # a NUL in the name
        return None
    if not is_picture or isinstance(text_beside(name), str):
        return None
    return find_made(Path(name))


def _of_run(made: MadePicture, options: RunOptions) -> dict[str, Any]:
    """What was in force for the whole run, where no flag says it."""
    found: dict[str, Any] = {}
    if options.schedule == "auto" and made.run.get("schedule") in ("original", "diffusers"):
        found["schedule"] = made.run["schedule"]
    if options.dtype == "auto" and made.run.get("dtype") in ("bf16", "fp32"):
        found["dtype"] = made.run["dtype"]
    if options.precision == "exact" and made.run.get("precision") in ("fp8", "int8"):
        found["precision"] = made.run["precision"]
    ending = made.path.suffix.lower()
    if options.format is None and options.output.suffix.lower() not in PICTURE_SUFFIXES:
        found["format"] = next((format for format, endings in EXTENSIONS.items() if ending in endings), None)
    quality = made.run.get("quality", "")
    if options.quality is None and quality.isascii() and quality.isdigit() and 1 <= int(quality) <= 100:
        found["quality"] = int(quality)
    if options.metadata == "keep" and made.run.get("metadata") in ("no-gps", "strip"):
        found["metadata"] = made.run["metadata"]
    for name in ("keep_unedited", "register"):
        if made.run.get(name) == "yes":
            found[name] = True
    found |= _of_speed(made, options)
    if made.run.get("panorama") == "parts":
        found["panorama"] = "parts"
    return found


def _of_speed(made: MadePicture, options: RunOptions) -> dict[str, Any]:
    """What steps left out, where no flag says anything of that. Unknown spellings of another release are refused."""
    if options.speed != "exact" or any(getattr(options, name) is not None for name in SPEED_FLAGS[1:]):
        return {}
    found: dict[str, Any] = {name: made.run[name] for name in SPEED_FLAGS if name in made.run}
    order = found.get("reuse_order", "")
    return found | ({"reuse_order": int(order)} if order.isascii() and order.isdigit() else {})


def _model(made: MadePicture, options: RunOptions) -> tuple[str | None, str]:
    """The model to take, and a note if it may be another one. Raises UsageError where nobody knows it."""
    name = made.run.get("model", "")
    wanted = Wanted.of(options)
    if wanted.model is not None or wanted.parts:
        same = wanted.label == name or os.path.basename(os.path.normpath(wanted.label)) == os.path.basename(name)
        note = f"{printable(str(made.path))} was made with the model {printable(name)}, and this is {wanted.label}"
        return options.model, "" if same or not name else note
    if name and (name == NANO or is_fake(name) or os.path.isdir(name) or _HUB_ID.fullmatch(name)):
        return name, ""
    if options.dry_run:
        return None, ""
    what = f"with the checkpoint {printable(name)}" if name else "with an unknown checkpoint"
    raise UsageError(f"{printable(str(made.path))} was made {what}: name its folder with -m")
