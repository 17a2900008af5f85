"""Which folder holds a tokenizer, and which file the settings of an image processor. No torch in here.

Releases of transformers write them differently. Until 4.57 the image processor has a file of its own, and the tokenizer
also a vocabulary (`vocab.json`, `merges.txt`). From 5.0 on a saved processor is one file, with the image processor
inside, and a tokenizer is `tokenizer.json` alone. Files of several releases may lie beside each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from joyedit.errors import CheckpointError
from joyedit.weights.regular_files import is_there, printable_path, read_object

PREPROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"
NESTED = "image_processor"
TOKENIZER_FILE, TOKENIZER_SETTINGS = "tokenizer.json", "tokenizer_config.json"
SLOW_TOKENIZER = ("vocab.json", "merges.txt")
TOKENIZER_NAMES = (TOKENIZER_FILE, *SLOW_TOKENIZER, TOKENIZER_SETTINGS, "added_tokens.json", "special_tokens_map.json")
"""The files that may be part of a tokenizer."""


def absent_tokenizer_files(folder: Path) -> list[Path]:
    """What a folder lacks to hold a whole tokenizer; nothing if it does."""
    absent = [] if is_there(folder / TOKENIZER_SETTINGS) else [folder / TOKENIZER_SETTINGS]
    if not is_there(folder / TOKENIZER_FILE) and not all([is_there(folder / name) for name in SLOW_TOKENIZER]):
        absent.append(folder / TOKENIZER_FILE)
    return absent


def tokenizer_folder(folders: Iterable[Path]) -> Path | None:
    """The first folder that holds a whole tokenizer; None if none does."""
    return next((folder for folder in folders if not absent_tokenizer_files(folder)), None)


def image_processor_file(folder: Path) -> Path | None:
    """The file with the settings of the image processor; None if the folder has none.

    As transformers 5 does it, those inside `processor_config.json` come first. Raises CheckpointError for a file that
    cannot be read.
    """
    whole = folder / PROCESSOR_FILE
    if is_there(whole) and (nested := read_object(whole).get(NESTED)) is not None:
        if not isinstance(nested, dict):
            raise CheckpointError(f"{printable_path(whole)}: {NESTED} must be an object")
        return whole
    own = folder / PREPROCESSOR_FILE
    if not is_there(own):
        return None
    read_object(own)
    return own


def image_processor_folder(folders: Iterable[Path]) -> Path | None:
    """The first folder with the settings of an image processor; None if none has them."""
    return next((folder for folder in folders if image_processor_file(folder) is not None), None)
