"""What was measured once on this machine and holds for later runs, in small JSON files in the user's cache folder.

The cache is optional and private: code that was compiled there runs again. A folder that cannot be written, or that
somebody else could write, is not used; a temporary one takes its place for this run.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import stat
import sys
import tempfile
from functools import lru_cache
from pathlib import Path


def cache_folder() -> Path:
    """The folder for what can be made again: private to this user, and writable.

    `JOYEDIT_CACHE` names it; without that it is a folder in the user's cache folder. Where that one cannot serve,
    it is a temporary folder, and `cache_note` says why.
    """
    wanted = _wanted_folder()
    return _temporary_folder() if _fault(wanted) else Path(wanted)


def make_cache_folder() -> Path:
    """The same, made now: whoever else makes it might let other users write into it."""
    folder = cache_folder()
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def cache_note() -> str:
    """Why the cache folder is a temporary one; empty where it is not."""
    fault = _fault(_wanted_folder())
    return fault and f"no cache folder: {fault}; what is measured and compiled is lost after this run"


def _wanted_folder() -> str:
    """Empty where no folder is named and the user has no home."""
    own = os.environ.get("JOYEDIT_CACHE")
    if own:
        return own
    base = os.environ.get("XDG_CACHE_HOME")
    if not base:
        home = os.path.expanduser("~")
        if home == "~":
            return ""
        base = os.path.join(home, *(("Library", "Caches") if sys.platform == "darwin" else (".cache",)))
    return os.path.join(base, "joyedit")


def _fault(folder: str) -> str:
    """Why this folder cannot be the cache; empty if it can, or can be made."""
    if not folder:
        return "this user has no home folder (name a folder with JOYEDIT_CACHE)"
    try:
        status = os.stat(folder)
    except FileNotFoundError:
        parent = os.path.dirname(os.path.abspath(folder))
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        can_make = os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)
        return "" if can_make else f"{folder} cannot be made (name another with JOYEDIT_CACHE)"
    except (OSError, ValueError) as error:
        return f"{folder}: {getattr(error, 'strerror', None) or error} (name another with JOYEDIT_CACHE)"
    if not stat.S_ISDIR(status.st_mode) or not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written (name another with JOYEDIT_CACHE)"
    if os.name == "posix" and status.st_uid != os.geteuid():
        return f"{folder} belongs to another user (name another with JOYEDIT_CACHE)"
    if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"other users may write into {folder} (run chmod go-w on it)"
    return ""


@lru_cache
def _temporary_folder() -> Path:
    """A folder of this process alone, removed at its end."""
    folder = tempfile.mkdtemp(prefix="joyedit-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class Measurements:
    """Measurements by key, in one file of the cache folder. What cannot be read or written is measured again."""

    def __init__(self, name: str) -> None:
        self.path = cache_folder() / name

    def get(self, key: str) -> object:
        """What was kept for this key, unchecked; None if there is nothing."""
        return self._read().get(key)

    def put(self, key: str, value: object) -> None:
        """Keep a value that JSON can hold. The file is replaced as a whole."""
        text = json.dumps(self._read() | {key: value}, indent=1, sort_keys=True) + "\n"
        with contextlib.suppress(OSError):
            make_cache_folder()
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self.path.parent, suffix=".tmp", delete=False
            ) as file:
                file.write(text)
            os.replace(file.name, self.path)

    def _read(self) -> dict[str, object]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
