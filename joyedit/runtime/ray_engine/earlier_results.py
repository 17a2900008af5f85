"""Pictures that a later turn begins with, where finished pictures are on an object store: a reader fetches them.

The driver names such a picture as a file in its state folder, which other machines do not have.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from joyedit.job.results.objects.store import ObjectStore
from joyedit.job.run_config import RunConfig


class EarlierResults:
    """A context; leaving it removes what was fetched. In a run into a folder it does nothing."""

    def __init__(self, config: RunConfig) -> None:
        self._address = config.objects
        self._inside = os.path.join(os.path.abspath(config.output), "")
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        self._here: dict[str, Path] = {}

    def __enter__(self) -> EarlierResults:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def reading(self, read: Callable[..., Any]) -> Callable[..., Any]:
        """`read`, whose first argument is a picture, from the file that was fetched."""
        if self._address is None:
            return read
        return lambda picture, *more, **named: read(self._local(picture), *more, **named)

    def _local(self, picture: Any) -> Any:
        if not isinstance(picture, Path) or not str(picture).startswith(self._inside):
            return picture
        output = str(picture)[len(self._inside) :]
        with self._lock:
            known = self._here.get(output)
            if known is None:
                assert self._address is not None
                self._folder = self._folder or tempfile.TemporaryDirectory(prefix="joyedit-")
                # With the name of the result, which the next one tells of.
                known = Path(self._folder.name) / str(len(self._here)) / picture.name
                ObjectStore(self._address).download(output, known)
                self._here[output] = known
            return known
