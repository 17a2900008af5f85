"""The finished pictures of an output on an object store, as a run asks about them.

One listing at the start says which are there. A picture of the recorded size counts as the recorded one: stores check
their own bytes, and reading a hundred thousand pictures again would take hours. `joyedit verify` reads them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from joyedit.job.hashing import sha256_of
from joyedit.job.own_files import OWN_NAMES, is_made_by_joyedit
from joyedit.job.results.finished_picture import State, picture_state
from joyedit.job.results.objects.names import OWN_FOLDER
from joyedit.job.results.objects.store import ObjectStore
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import output_of

_NOWHERE = ".joyedit.nothing"
_KEPT = 1024
"""So many local copies stay: a later turn reads the size of an earlier result before it goes out."""


class ObjectPictures:
    """Any thread may call the methods; they raise OutputError where the store does not answer.

    `folder` is a local one: pictures that somebody has to read come there, and go in `forget`.
    """

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.address = store.shown
        self._store = store
        self._folder = folder
        self._lock = threading.Lock()
        self._sizes: dict[str, int] | None = None
        self._doubted: set[str] = set()
        self._here: dict[str, None] = {}  # in the order in which they came

    def _listed(self) -> dict[str, int]:
        with self._lock:
            if self._sizes is None:
                found = self._store.sizes()
                self._sizes = {name: size for name, size in found.items() if _is_of_picture(name)}
            return self._sizes

    def has(self, output: str) -> bool:
        """Whether an object has this name."""
        return output in self._listed()

    def is_taken(self, output: str) -> bool:
        """Whether an object has this name."""
        return self.has(output)

    def state(self, output: str, record: dict[str, Any], *, trust: bool) -> State:
        """What stands where `record` says that joyedit wrote a picture."""
        size = self._listed().get(output)
        if size is None:
            return "lost"
        if size == record.get("output_bytes") and (trust or output not in self._doubted):
            return "recorded"
        found = picture_state(os.fspath(self.file(output)), record, trust=trust)
        self._drop(output)
        return found

    def is_made_by_joyedit(self, output: str) -> bool:
        """Whether a picture holds what joyedit writes into each of its pictures.

        Who asks has no record of it, or doubts the one that is there: from now on its hash counts, and not its size.
        """
        if not self.has(output):
            return False
        self._doubted.add(output)
        found = is_made_by_joyedit(os.fspath(self.file(output)))
        self._drop(output)
        return found

    def file(self, output: str) -> Path:
        """The local file of a finished picture, which is fetched. A picture that is gone has none there.

        Neither has what cannot be the name of one: a record may have been written by somebody else.
        """
        if not _is_of_picture(output):
            return self._folder / _NOWHERE
        path = self._folder / output
        with self._lock:
            is_here = output in self._here
        if not is_here and self._store.download(output, path):
            with self._lock:
                self._here[output] = None
                first = next(iter(self._here)) if len(self._here) > _KEPT else None
            if first is not None:
                self._drop(first)
        return path

    def at(self, record: Mapping[str, Any]) -> Path | None:
        """The local file of a record's picture, which is fetched; None if it names none."""
        output = output_of(record)
        return None if output is None else self.file(output)

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Whether the picture of a record is there."""
        output = output_of(record)
        return output is not None and self.has(output)

    def free_name(self) -> str:
        """Another output beside this one, for a remedy; nobody looks whether it is free."""
        return f"{self.address}-2"

    def added(self, output: str, size: int) -> None:
        """A picture was put in place."""
        sizes = self._listed()
        with self._lock:
            sizes[output] = size
        self._drop(output)

    def remove(self, folder: OutputFolder, output: str) -> None:
        """Remove a picture of joyedit's own. `folder` is not needed here."""
        self._store.remove(output)
        sizes = self._listed()
        with self._lock:
            sizes.pop(output, None)
        self._drop(output)

    def remove_earlier(self, folder: OutputFolder, record: dict[str, Any], earlier: tuple[str, int, str]) -> None:
        """Remove the picture that the item had under another name, if it is still the recorded one."""
        output, size, sha256 = earlier
        if self._listed().get(output) != size:
            return
        path = self.file(output)
        with suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
            if sha256_of(file) == sha256:
                self.remove(folder, output)
                return
        self._drop(output)

    def names(self) -> list[str]:
        """The names of all objects that may be pictures, in order."""
        return sorted(self._listed())

    def forget(self, *outputs: str) -> None:
        """Remove the local copies of these pictures; of all without any."""
        for output in outputs or list(self._here):
            self._drop(output)

    def _drop(self, output: str) -> None:
        if not _is_of_picture(output):
            return
        with self._lock:
            self._here.pop(output, None)
        path = self._folder / output
        with suppress(OSError):
            path.unlink()
        for parent in path.parents:
            if parent == self._folder:
                return
            with suppress(OSError):
                parent.rmdir()


def _is_of_picture(name: str) -> bool:
    """Whether this can be the name of a picture below the address: no way out, and no file of joyedit's own."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not (
        name in OWN_NAMES or name.startswith((OWN_FOLDER, ".joyedit.")) or "\0" in name
    )
