"""A checkpoint's own defaults, and where a model name leads. No torch in here: planning reads it too.

A checkpoint folder may hold `joyedit.json`, an object with any of `basesize`, `steps`,
`guidance_scale` and `negative_prompt`: what its maker recommends.
"""

from __future__ import annotations

import json
from pathlib import Path

from joyedit.errors import CheckpointError, UsageError
from joyedit.job.spec import BASE_SIZES, Settings

DEFAULTS_FILE = "joyedit.json"
NANO = "nano"
EDIT_PLUS = Settings(steps=30, negative_prompt=" ")
"""What the Edit-Plus pipeline takes where nobody says anything."""

_KINDS: dict[str, tuple[type, ...]] = {
    "basesize": (int,),
    "steps": (int,),
    "guidance_scale": (int, float),
    "negative_prompt": (str,),
}


def nano_folder() -> Path:
    """The checkpoint that comes with joyedit."""
    return Path(__file__).resolve().parent.parent / "nano"


def local_folder(model: str) -> Path | None:
    """The folder that a model name stands for, or None for a hub id. Raises UsageError on neither."""
    if model == NANO:
        return nano_folder()
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UsageError(f"--model {model}: is a file; give the checkpoint's folder")
    parts = model.split("/")
    if len(parts) == 2 and all(parts) and not model.startswith((".", "~")) and "\\" not in model:
        return None
    raise UsageError(f"--model {model}: no such folder, and not a hub id (owner/name)")


def checkpoint_defaults(model: str) -> Settings:
    """Settings that the checkpoint carries; all open for a hub id or a folder that says nothing.

    Raises CheckpointError when joyedit.json is there and faulty, UsageError for no folder and no id.
    """
    folder = local_folder(model)
    if folder is None:
        return EDIT_PLUS if "edit-plus" in model.lower() else Settings()
    kind = EDIT_PLUS if _is_edit_plus(folder) else Settings()
    return _own_settings(folder / DEFAULTS_FILE).over(kind)


def _is_edit_plus(folder: Path) -> bool:
    """Edit-Plus has the networks of Edit and other defaults; its model_index.json names its pipeline."""
    try:
        raw = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # told with its reason when the checkpoint is opened
        return False
    return isinstance(raw, dict) and "EditPlus" in str(raw.get("_class_name"))


def _own_settings(path: Path) -> Settings:
    if not path.is_file():
        return Settings()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: must be an object with any of {', '.join(_KINDS)}")
    for key, value in raw.items():
        if key not in _KINDS or isinstance(value, bool) or not isinstance(value, _KINDS[key]):
            raise CheckpointError(f"{path}: {key!r} = {value!r} is not one of {', '.join(_KINDS)} with its type")
    if raw.get("basesize", 1024) not in BASE_SIZES or raw.get("steps", 1) < 1:
        raise CheckpointError(f"{path}: basesize must be one of {BASE_SIZES} and steps at least 1")
    return Settings(**raw)
