"""What a LoRA says of itself before its tensors are read: which file it is, its hash, recommended settings. No torch.

A LoRA is a safetensors file or a pickle of tensors (.pt, .pth, .bin), or a folder with one of them as PEFT and
diffusers write it. Settings that its maker recommends stand in the file's metadata under the key `joyedit`, or in a
`joyedit.json` beside it, in the form of a checkpoint's `joyedit.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from joyedit.contents import HEAD, stand_in_of
from joyedit.errors import CheckpointError
from joyedit.job.hashing import sha256_of
from joyedit.job.source.loras import LoraFacts
from joyedit.job.spec import LORA_STEMS
from joyedit.weights.defaults import DEFAULTS_FILE, Recommended, recommended, recommended_of
from joyedit.weights.regular_files import INDEX_BYTES, entries, is_there, open_regular, printable_path, unreadable

CONFIG_FILE = "adapter_config.json"
SAFETENSORS = ".safetensors"
PICKLES = (".pt", ".pth", ".bin")
SETTINGS_KEY = "joyedit"


def lora_facts(path: Path) -> LoraFacts:
    """The facts of a LoRA at this path, a file or a folder. Reads the whole file once, for its hash.

    Raises CheckpointError for no LoRA, for a file that cannot be read, and for settings that cannot work.
    """
    weights = weights_file(path)
    made = Recommended()
    if weights.suffix == SAFETENSORS:
        told = metadata_of(weights).get(SETTINGS_KEY)
        if told is not None:
            made = recommended_of(_json_object(told, weights), f"{printable_path(weights)}: {SETTINGS_KEY}")
    if made == Recommended():
        made = recommended(weights.parent / DEFAULTS_FILE)
    return LoraFacts(weights=weights, sha256=content_hash(weights), settings=made.settings, sigmas=made.sigmas)


def weights_file(path: Path) -> Path:
    """The file with the tensors: the path itself, or the one in this folder. Raises CheckpointError."""
    if not os.path.isdir(path):
        if path.suffix not in (SAFETENSORS, *PICKLES):
            raise CheckpointError(f"{printable_path(path)}: a LoRA ends with {SAFETENSORS}, {', '.join(PICKLES)}")
        if not is_there(path):
            raise CheckpointError(f"{printable_path(path)}: there is no such LoRA")
        return path
    for name in LORA_STEMS:
        for ending in (SAFETENSORS, ".bin"):
            if is_there(path / (name + ending)):
                return path / (name + ending)
    found = [one for one in entries(path) if one.suffix == SAFETENSORS and not one.name.startswith(".")]
    if len(found) != 1:
        known = ", ".join(name + SAFETENSORS for name in LORA_STEMS)
        raise CheckpointError(
            f"{printable_path(path)}: the folder of a LoRA holds {known} or one {SAFETENSORS} file, and this one holds"
            f" {len(found)} such files"
        )
    if not is_there(found[0]):
        raise CheckpointError(f"{printable_path(found[0])}: there is no such LoRA")
    return found[0]


def config_file(weights: Path) -> Path | None:
    """PEFT's description of this file; None if there is none, or if it may be that of another file."""
    config = weights.parent / CONFIG_FILE
    if not is_there(config):
        return None
    if weights.stem == LORA_STEMS[0]:
        return config
    others = [one for one in entries(weights.parent) if one.suffix in (SAFETENSORS, *PICKLES)]
    return config if len(others) == 1 else None


def content_hash(weights: Path) -> str:
    """The sha256 of a LoRA: of its file, and of what PEFT says about it in another one. Raises CheckpointError."""
    config = config_file(weights)
    found = [_sha256(one) for one in (weights, config) if one is not None]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def metadata_of(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file. Raises CheckpointError for what is no such file."""
    where = printable_path(path)
    with open_regular(path) as file:
        try:
            head = file.read(HEAD)
            size, length = os.fstat(file.fileno()).st_size, int.from_bytes(head[:8], "little")
            held = stand_in_of(head)
            if held is not None:
                raise CheckpointError(f"{where}: it holds {held}")
            if size < 8 or length > size - 8:
                raise CheckpointError(f"{where}: not a complete safetensors file; download it again")
            if length > INDEX_BYTES:
                raise CheckpointError(f"{where}: its header has {length} bytes, {INDEX_BYTES} are allowed")
            file.seek(8)
            header = file.read(length)
        except OSError as error:
            raise unreadable(path, error) from error
    try:
        found = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: its header is not JSON; download it again") from error
    told = found.get("__metadata__") if isinstance(found, dict) else None
    return {name: text for name, text in told.items() if isinstance(text, str)} if isinstance(told, dict) else {}


def _json_object(text: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{printable_path(path)}: its metadata {SETTINGS_KEY} must be a JSON object")
    return found


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        try:
            return sha256_of(file)
        except OSError as error:
            raise unreadable(path, error) from error
