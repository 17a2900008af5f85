"""A checkpoint's own defaults, and where a model name leads. No torch in here: planning reads it too.

A checkpoint folder may hold `joyedit.json`, an object with any of `basesize`, `steps`,
`guidance_scale` and `negative_prompt`: what its maker recommends. For a distilled checkpoint, `sigmas` are its noise
levels. A LoRA may bring the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from joyedit.errors import CheckpointError, UsageError
from joyedit.job.spec import BASE_SIZES, MAX_GUIDANCE, MAX_STEPS, Settings
from joyedit.models.config_values import ConfigError, Values, shown
from joyedit.printable import brief
from joyedit.weights.regular_files import is_there, printable_path, read_object

DEFAULTS_FILE = "joyedit.json"
NANO = "nano"
HUB_EDIT = "jdopensource/JoyAI-Image-Edit-Diffusers"
HUB_EDIT_PLUS = "jdopensource/JoyAI-Image-Edit-Plus-Diffusers"
HUB_ORIGINAL = "jdopensource/JoyAI-Image-Edit"
HUB_SIZE = "50 GB"
"""What the published weights take on the disk: 25.2 billion numbers of two bytes."""
EDIT_PIPELINE = "JoyImageEditPipeline"
"""How the `model_index.json` of Edit names its pipeline."""
MOST_REFERENCES = 5
"""The most references of Edit-Plus. Edit was trained on one."""
EDIT_PLUS = Settings(steps=30, negative_prompt=" ")
"""What the Edit-Plus pipeline takes where nobody says anything."""

MOST_TEXT = 20_000
"""The most characters of a negative prompt. The model keeps about 4000 tokens of a text."""
_SETTINGS = ("basesize", "steps", "guidance_scale", "negative_prompt")
_KEYS = (*_SETTINGS, "sigmas")


class Recommended(NamedTuple):
    """What the maker of a checkpoint or of a LoRA recommends.

    `sigmas` are noise levels from 1 down, without the 0 at the end; empty for those of the schedule.
    """

    settings: Settings = Settings()
    sigmas: tuple[float, ...] = ()


def nano_folder() -> Path:
    """The checkpoint that comes with joyedit."""
    return Path(__file__).resolve().parent.parent / "nano"


def local_folder(model: str) -> Path | None:
    """The folder that a model name stands for, or None for a hub id. Raises UsageError on neither."""
    if model == NANO:
        return nano_folder()
    path = Path(os.path.expanduser(model))  # it leaves the name of an unknown user as it is, and raises nothing
    if os.path.isdir(path):
        return path
    if os.path.isfile(path):
        raise UsageError(
            f"--model {brief(model, 1000)}: is a file; give the checkpoint's folder, or name the file with --dit,"
            " --encoder or --vae"
        )
    if os.path.lexists(path):
        raise UsageError(f"--model {brief(model, 1000)}: is no folder; give the checkpoint's folder")
    parts = model.split("/")
    if len(parts) == 2 and all(parts) and not model.startswith((".", "~")) and "\\" not in model:
        return None
    raise UsageError(f"--model {brief(model, 1000)}: no such folder, and not a hub id (owner/name)")


def checkpoint_defaults(model: str) -> Settings:
    """Settings that the checkpoint carries; all open for a hub id or a folder that says nothing.

    Raises CheckpointError when joyedit.json is there and faulty, UsageError for no folder and no id.
    """
    folder = local_folder(model)
    if folder is None:
        return EDIT_PLUS if "edit-plus" in model.lower() else Settings()
    kind = EDIT_PLUS if _is_edit_plus(folder) else Settings()
    return recommended(folder / DEFAULTS_FILE).settings.over(kind)


def _is_edit_plus(folder: Path) -> bool:
    """Edit-Plus has the networks of Edit and other defaults; its model_index.json names its pipeline."""
    try:
        index = folder / "model_index.json"
        return is_there(index) and "EditPlus" in Values(read_object(index)).text("_class_name", "")
    except (CheckpointError, ConfigError):  # told with its reason when the checkpoint is opened
        return False


def is_plus_file(name: str) -> bool:
    """Whether a file of the DiT calls itself Edit-Plus. Its tensors are those of Edit, so nothing else tells it."""
    return "edit_plus" in Path(name).name.lower().replace("-", "_")


def recommended(path: Path) -> Recommended:
    """What a `joyedit.json` says; nothing if there is none. Raises CheckpointError."""
    return recommended_of(read_object(path), printable_path(path)) if is_there(path) else Recommended()


def recommended_of(raw: Mapping[str, Any], where: str) -> Recommended:
    """The same of an object; `where` is told in errors. Noise levels without `steps` give the number of steps."""
    for key in raw:
        if key not in _KEYS:
            raise CheckpointError(f"{where}: unknown key {shown(key)} (valid: {', '.join(_KEYS)})")
    values = Values(raw)
    try:
        _check(values)
        sigmas = _sigmas(values)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error
    given = {key: raw[key] for key in _SETTINGS if key in values}
    return Recommended(Settings(**({"steps": len(sigmas)} if sigmas else {}) | given), sigmas)


def _sigmas(values: Values) -> tuple[float, ...]:
    if "sigmas" not in values:
        return ()
    levels = values.numbers("sigmas", 0, 1)
    levels = levels[:-1] if levels and levels[-1] == 0 else levels
    if not levels or any(one <= other for one, other in zip(levels, (*levels[1:], 0.0), strict=True)):
        raise ConfigError("sigmas must be noise levels that fall from 1 towards 0")
    if "steps" in values and values.whole("steps", 1, MAX_STEPS) != len(levels):
        raise ConfigError(f"sigmas are the noise levels of {len(levels)} steps, and steps says another number")
    return levels


def _check(values: Values) -> None:
    if "steps" in values:
        values.whole("steps", 1, MAX_STEPS)
    if "guidance_scale" in values:
        values.number("guidance_scale", 0, MAX_GUIDANCE)
    if "negative_prompt" in values:
        values.text("negative_prompt", most=MOST_TEXT)
    if "basesize" in values and (basesize := values.whole("basesize", 1, BASE_SIZES[-1])) not in BASE_SIZES:
        raise ConfigError(f"basesize must be one of {', '.join(map(str, BASE_SIZES))}, not {basesize}")
