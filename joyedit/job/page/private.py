"""Takes the places of this machine out of texts for the page: a page may be given away with its pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable


class Private:
    """Replaces the path of the output folder by its name, and the user's home folder by `~`."""

    def __init__(self, out: str) -> None:
        home = os.path.expanduser("~")
        self._names = [(out, os.path.basename(out))]
        if home.startswith("/") and home.strip("/"):
            self._names.append((home, "~"))

    def text(self, text: str, paths: Iterable[object] = ()) -> str:
        """The text without them; of the absolute `paths` in it only the last name stays."""
        if "/" not in text:
            return text
        for path in paths:
            if isinstance(path, str) and path.startswith("/"):
                text = text.replace(path, os.path.basename(path))
        for place, name in self._names:
            if place.strip("/"):
                text = text.replace(f"{place}/", f"{name}/")
        return text
