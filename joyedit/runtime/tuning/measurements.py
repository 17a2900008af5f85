"""What was measured once on this machine and holds for later runs, in small JSON files in the user's cache folder."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Where joyedit keeps what can be made again: `JOYEDIT_CACHE`, else a folder in the user's cache folder."""
    own = os.environ.get("JOYEDIT_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    if not base and sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "joyedit"
    return (Path(base) if base else Path.home() / ".cache") / "joyedit"


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
            self.path.parent.mkdir(parents=True, exist_ok=True)
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
