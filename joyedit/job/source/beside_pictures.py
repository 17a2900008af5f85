"""Instructions that lie beside the pictures of a folder, as training sets have them.

A folder may hold a list of its pictures (`metadata.jsonl` or `metadata.csv`, by which Hugging Face loads image
folders), or a text file beside each picture (`photo.txt` beside `photo.jpg`). joyedit reads them where nobody gives an
instruction for the whole folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from joyedit.errors import Problem, os_reason
from joyedit.job.source.problems import shown, utf8_safe
from joyedit.job.source.source_options import SourceOptions, compose_instruction
from joyedit.job.source.text import BOM, MAX_ITEM, NOT_UTF8, as_utf8

LISTS = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SUFFIX = ".txt"
NO_TEXTS = Problem("no instruction", "give it with -p, or in a text file beside each picture: x.txt beside x.jpg")
_HOLDS = "it holds the instruction of the picture beside it"
_SHOWN_PATH = 300


def needs_texts(options: SourceOptions) -> bool:
    """Whether each picture needs a text of its own: nothing gives an instruction, and such a text would be enough."""
    recipe = options.recipe
    if recipe is not None and recipe.instruction is not None and not recipe.takes_own_text:
        return False
    return _lacks(options, None) and not _lacks(options, "text")


def _lacks(options: SourceOptions, own: str | None) -> bool:
    """Whether an item with this text of its own lacks something that its instruction needs."""
    return bool(
        compose_instruction(options.recipe, options.first_values, own=own, prompt=options.prompt, default=None)[1]
    )


def unused_list(folders: Iterable[str]) -> str | None:
    """The first list that lies in one of these folders."""
    return next(
        (path for folder in folders for name in LISTS if os.path.isfile(path := os.path.join(folder, name))), None
    )


def lacks_instruction(options: SourceOptions) -> bool:
    """Whether items need a text of their own: a list in their folder may give it."""
    return _lacks(options, None)


def text_of_one(picture: str, options: SourceOptions) -> str | None:
    """The text beside the only picture, if that is its instruction."""
    text = text_beside(picture) if needs_texts(options) else None
    return text if isinstance(text, str) else None


def text_beside(picture: str) -> str | Problem:
    """The instruction in the text file beside `picture`, or why there is none."""
    path = os.path.splitext(picture)[0] + SUFFIX
    name = shown(utf8_safe(path), _SHOWN_PATH)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # waits for no pipe
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Problem(f"{name} is no file", _HOLDS)
            with as_utf8(file) as stream:
                data = stream.read(MAX_ITEM + 1)
    except OSError as error:
        reason = "there is no" if isinstance(error, FileNotFoundError) else f"{os_reason(error)}:"
        return Problem(f"no instruction: {reason} {name} beside this picture", "write it there, or give it with -p")
    if len(data) > MAX_ITEM:
        return Problem(f"{name} has more than {MAX_ITEM >> 20} MiB", _HOLDS)
    try:
        text = data.removeprefix(BOM).decode().strip()
    except UnicodeDecodeError:
        return Problem(f"{name} is {NOT_UTF8.message}", NOT_UTF8.remedy)
    if not text or "\0" in text:
        fault = "has a NUL character" if text else "is empty"
        return Problem(f"no instruction: {name} {fault}", "write it there, or give it with -p")
    return text
