"""Any source by its name: a manifest (JSONL, YAML, a JSON list, a table), a folder of pictures, one picture, or `-`.

`check()` of a source reads all of it and tells every problem at once; `items()` streams it. Both hold only one
item in memory, and the names given out so far.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

from joyedit.errors import UsageError
from joyedit.job.source.beside_pictures import list_of, with_text_beside
from joyedit.job.source.columns import Columns
from joyedit.job.source.manifests import KINDS, ManifestSource, StdinSource
from joyedit.job.source.picture_folder import PICTURE_SUFFIXES
from joyedit.job.source.picture_sources import FolderSource, PictureSource
from joyedit.job.source.problems import nearest, shown
from joyedit.job.source.source import Source, SourceSummary
from joyedit.job.source.source_options import SourceOptions

__all__ = ["Source", "SourceOptions", "SourceSummary", "open_source", "reopen"]


def open_source(source: str, options: SourceOptions, stdin: BinaryIO | None = None) -> Source:
    """The source that `source` names; nothing of it is read yet.

    `-` is `stdin`, or else the standard input of this process. Raises UsageError.
    """
    options.check()
    if source == "-":
        return StdinSource(options, sys.stdin.buffer if stdin is None else stdin)
    if "\0" in source or not source:
        raise UsageError(f"{shown(source)} cannot be the name of a file or folder")
    if not os.path.exists(source):
        raise UsageError(f"{source}: no such file or folder")
    if os.path.isdir(source):
        listed = list_of(source, options)
        if listed is not None:
            return ManifestSource(listed, KINDS[os.path.splitext(listed)[1]], options)
        return FolderSource(source, options)
    suffix = os.path.splitext(source)[1].lower()
    if suffix in PICTURE_SUFFIXES:
        return PictureSource(source, with_text_beside(source, options))
    if suffix in KINDS:
        return ManifestSource(source, KINDS[suffix], options)
    near = nearest(suffix, KINDS) if suffix else f"valid: {', '.join(KINDS)}"
    raise UsageError(f"{source}: no manifest and no picture ends like this ({near}; use '-' for a list of paths)")


def reopen(asked: object, output: Path) -> Source:
    """A source with the same ids, from what `Source.asked` gave; for nothing else than these ids.

    Raises UsageError if there is no such source, or if it cannot be read twice. Its `items` may raise it too.
    """
    given = asked if isinstance(asked, dict) else {}
    path, format, limit, keys = (given.get(key) for key in ("path", "format", "limit", "keys"))
    if not isinstance(path, str) or path == "-" or not isinstance(format, str):
        raise UsageError("the source cannot be read a second time")
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UsageError(f"{path}: neither a file nor a folder")  # opening a pipe would wait for ever
    options = SourceOptions(
        prompt="any",
        format=format,
        output=output,
        limit=limit if isinstance(limit, int) else None,
        keys=tuple(str(key) for key in keys) if isinstance(keys, list) else (),
        columns=Columns.read(given.get("columns")),
        text_to_image=given.get("text_to_image") is True,
        look=False,
    )
    return open_source(path, options)
