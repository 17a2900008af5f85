"""A tokenizer from the Hugging Face hub, for files of weights that bring none: a few megabytes. No torch here."""

from __future__ import annotations

from pathlib import Path

from joyedit.errors import CheckpointError
from joyedit.weights.defaults import HUB_EDIT, HUB_EDIT_PLUS, HUB_ORIGINAL
from joyedit.weights.hub import quiet_hub
from joyedit.weights.prompt_folders import SLOW_TOKENIZER, TOKENIZER_FILE, TOKENIZER_NAMES, absent_tokenizer_files

QWEN = "Qwen/Qwen3-VL-8B-Instruct"
"""The model that the text encoder was trained from. Its tokenizer is the same."""
HOMES = ((HUB_EDIT, "tokenizer"), (HUB_EDIT_PLUS, "tokenizer"), (HUB_ORIGINAL, "JoyAI-Image-Und"), (QWEN, ""))
"""Repositories that hold the tokenizer, and the folder in each."""
_PROCESSOR = ("processor/*.json", "preprocessor_config.json", "processor_config.json")
_asked: dict[str, Path | None] = {}
"""What the hub gave this process, by the folder of its cache: it is asked once."""


def cached_tokenizer() -> Path | None:
    """The folder of a tokenizer that an earlier download left in the cache; None if there is none."""
    from huggingface_hub import try_to_load_from_cache

    for repo, place in HOMES:
        for name in (TOKENIZER_FILE, SLOW_TOKENIZER[0]):
            path = try_to_load_from_cache(repo, f"{place}/{name}".lstrip("/"))
            if isinstance(path, str) and _is_whole(Path(path).parent):
                return Path(path).parent
    return None


def fetch_tokenizer() -> Path | None:
    """Download a tokenizer, without any weights; None where the network or the hub does not give one."""
    from huggingface_hub import constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        return None
    cache = str(constants.HF_HUB_CACHE)
    if cache not in _asked:
        _asked[cache] = None
        for repo, place in (HOMES[0], HOMES[-1]):
            wanted = [f"{place}/{name}".lstrip("/") for name in TOKENIZER_NAMES]
            try:
                with quiet_hub():
                    folder = Path(snapshot_download(repo, allow_patterns=[*wanted, *_PROCESSOR])) / place
            except (
                Exception
            ):  # the libraries below the hub's have errors of many kinds; what to do is told by the caller
                continue
            if _is_whole(folder):
                _asked[cache] = folder
                break
    return _asked[cache]


def _is_whole(folder: Path) -> bool:
    try:
        return not absent_tokenizer_files(folder)
    except CheckpointError:  # a torn cache
        return False
