"""Texts that somebody typed behind a flag: they pass the checks of the texts in a manifest.

The shell hands over bytes. Those that are no UTF-8 arrive as halves of surrogate pairs, which no model can read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from joyedit.job.source.problems import shown
from joyedit.job.source.text import MAX_ITEM

_SURROGATE = re.compile("[\ud800-\udfff]")


def without_file_marks(text: str | None) -> str | None:
    """The text without the mark in front of a Windows file, and with plain line ends: `-p "$(cat text.txt)"`."""
    return None if text is None else text.removeprefix("\ufeff").replace("\r\n", "\n").rstrip("\r")


def text_faults(texts: Mapping[str, str | None], *, may_be_empty: frozenset[str]) -> list[str]:
    """What is wrong with texts, by what messages call them: one sentence for each. None is a flag that is not given."""
    faults = []
    for name, text in texts.items():
        if text is None:
            continue
        bad = _SURROGATE.search(text)
        if len(text) > MAX_ITEM:
            faults.append(f"{name} has more than {MAX_ITEM >> 20} MiB")
        elif bad is not None:
            near = shown(text[max(0, bad.start() - 20) :])
            faults.append(f"{name} is not valid UTF-8: {near} (set the terminal or the script to UTF-8)")
        elif "\0" in text:
            faults.append(f"{name} has a NUL character: {shown(text)}")
        elif not text.strip() and name not in may_be_empty:
            faults.append(f"{name} is empty")
    return faults
