"""Where the tokenizer and the image processor of a checkpoint come from. No torch in here.

The diffusers and the authors' layouts bring both. Single files of ComfyUI or GGUF bring neither: the vocabulary is
looked for beside them, in the cache of the hub, and on the hub. The published settings of the image processor are few
numbers, which joyedit knows itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyedit.errors import UsageError
from joyedit.weights.defaults import HUB_EDIT
from joyedit.weights.find import UNDERSTANDING, Found
from joyedit.weights.hub_tokenizer import cached_tokenizer, fetch_tokenizer
from joyedit.weights.prompt_folders import (
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    TOKENIZER_FILE,
    TOKENIZER_NAMES,
    TOKENIZER_SETTINGS,
    absent_tokenizer_files,
    image_processor_folder,
    tokenizer_folder,
)
from joyedit.weights.regular_files import TOKENIZER_BYTES, is_there, printable_path, read_object

TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
"""The keys of a text encoder's configuration, and the tokens that they mean."""
NO_TOKENIZER = (
    "the tokenizer: such files bring none. Name a folder that holds tokenizer.json and tokenizer_config.json with"
    f" --tokenizer, or get one: hf download {HUB_EDIT} --include 'tokenizer/*' 'processor/*'"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptFolders:
    """The folders of tokenizer and image processor; None for what was not found. Without a folder of an image
    processor, the published settings are in force, unless it is among what is `absent`."""

    tokenizer: Path | None
    processor: Path | None
    absent: tuple[str, ...] = ()

    def used(self) -> list[tuple[str, Path]]:
        """The files that are read, and what each is."""
        places = [(self.tokenizer, TOKENIZER_NAMES), (self.processor, (PROCESSOR_FILE, PREPROCESSOR_FILE))]
        return [
            (name, folder / name) for folder, names in places if folder is not None for name in names
            if is_there(folder / name)
        ]  # fmt: skip


def prompt_folders(found: Found, *, may_fetch: bool = True) -> PromptFolders:
    """Raises CheckpointError for files that cannot be read, UsageError for a --tokenizer that is no such folder.

    `may_fetch`: whether the small files of a tokenizer may be downloaded where nothing else brings one.
    """
    if found.wanted.tokenizer is not None:
        folders = list(_named(found.wanted.tokenizer))
        tokenizer = tokenizer_folder(folders)
        if tokenizer is None:
            lacking = ", ".join(path.name for path in absent_tokenizer_files(folders[0]))
            raise UsageError(f"--tokenizer {printable_path(folders[0])}: holds no tokenizer (it lacks {lacking})")
        return PromptFolders(tokenizer=tokenizer, processor=image_processor_folder(folders))
    folder = found.folder
    if folder is not None and found.layout in ("diffusers", "original"):
        own = [folder / "tokenizer", folder / "processor"]
        own = [folder / UNDERSTANDING] if found.layout == "original" else own
        return _complete(folder, own)
    beside = list(dict.fromkeys(_beside(found)))
    tokenizer = tokenizer_folder(beside) or cached_tokenizer() or (fetch_tokenizer() if may_fetch else None)
    if tokenizer is None:
        return PromptFolders(tokenizer=None, processor=None, absent=(NO_TOKENIZER,))
    near = (tokenizer, tokenizer.parent / "processor")
    return PromptFolders(tokenizer=tokenizer, processor=image_processor_folder([*near, *beside]))


def token_ids(tokenizer: Path | None) -> dict[str, int]:
    """The ids of the tokens that stand for pictures, for a configuration that is read off shapes. Only known ones."""
    if tokenizer is None:
        return {}
    known: dict[str, Any] = {}
    for name, key in ((TOKENIZER_SETTINGS, "added_tokens_decoder"), (TOKENIZER_FILE, "added_tokens")):
        path = tokenizer / name
        if is_there(path):
            known |= dict(_added(read_object(path, TOKENIZER_BYTES).get(key)))
    return {key: known[token] for key, token in TOKENS.items() if type(known.get(token)) is int}


def _added(entries: Any) -> Iterator[tuple[str, int]]:
    """Text and id of each added token, as either file writes them."""
    pairs = entries.items() if isinstance(entries, dict) else [(None, one) for one in entries or ()]
    for number, entry in pairs:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            continue
        found = entry.get("id") if number is None else number
        if isinstance(found, int) or (isinstance(found, str) and found.isascii() and found.isdigit()):
            yield entry["content"], int(found)


def _complete(folder: Path, places: list[Path]) -> PromptFolders:
    """Both from the folders of a layout that brings them."""
    tokenizer, processor = tokenizer_folder(places), image_processor_folder(reversed(places))
    absent: list[Path] = []
    if tokenizer is None:
        nearest = min(places, key=lambda place: len(absent_tokenizer_files(place)))
        absent += absent_tokenizer_files(nearest)
    if processor is None:
        absent.append(places[-1] / PREPROCESSOR_FILE)
    names = tuple(path.relative_to(folder).as_posix() for path in absent)
    return PromptFolders(tokenizer=tokenizer, processor=processor, absent=names)


def _named(text: str) -> Iterator[Path]:
    path = Path(os.path.expanduser(text))
    if not os.path.isdir(path):
        raise UsageError(f"--tokenizer {printable_path(path)}: no such folder")
    yield from (path, path / "tokenizer", path / "processor")


def _beside(found: Found) -> Iterator[Path]:
    """Folders near the files that may hold a tokenizer."""
    roots = [] if found.folder is None else [found.folder]
    for role in ("encoder", "dit"):
        part = found.parts.get(role)
        if part is not None and part.folder is not None:
            roots += [part.folder, part.folder.parent]
    for root in roots:
        yield from (root, root / "tokenizer", root / "processor")
