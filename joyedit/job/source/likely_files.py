"""Which file somebody meant whose picture is not there: another case, Unicode form, ending or slash in its name."""

from __future__ import annotations

import os
import unicodedata
from urllib.parse import unquote

from joyedit.job.source.names import fold
from joyedit.job.source.problems import shown

_KEPT_FOLDERS = 16
_MOST_NAMES = 200_000
_MOST_QUESTIONS = 200
"""Nobody reads more answers, and each may list a folder."""


class LikelyFiles:
    """Answers for one pass over a source. Keeps the names of a few folders."""

    def __init__(self) -> None:
        self._questions = 0
        self._folders: dict[str, dict[str, str]] = {}

    def remedy(self, written: str, base: str) -> str:
        """The remedy for a picture that is missing; an empty text if nothing like it is there."""
        self._questions += 1
        if self._questions > _MOST_QUESTIONS:
            return ""
        for spelled in dict.fromkeys((written, written.replace("\\", "/").strip(), unquote(written).strip())):
            found = self._find(spelled, base)
            if found is not None and found != written:
                same_look = unicodedata.normalize("NFC", found) == unicodedata.normalize("NFC", written)
                form = "; it looks the same, but its letters are stored in another Unicode form" if same_look else ""
                return f"did you mean {shown(found, 300)}?{form}"
        return ""

    def _find(self, path: str, base: str) -> str | None:
        """The same path as the folders spell it, part by part; the ending of a picture may be another one."""
        made = "/" if path.startswith("/") else ""
        parts = [part for part in path.split("/") if part]
        for number, part in enumerate(parts, 1):
            here = os.path.join(base, made)
            if not os.path.lexists(os.path.join(here, part)):
                names = self._names(here)
                likely = names.get(fold(part))
                if likely is None and number == len(parts):
                    likely = names.get(_stem(fold(part)))
                if likely is None:
                    return None
                part = likely
            made = os.path.join(made, part)
        return made if os.path.isfile(os.path.join(base, made)) else None

    def _names(self, folder: str) -> dict[str, str]:
        """The names in a folder, by their folded form, and pictures also by their folded stem."""
        known = self._folders.get(folder)
        if known is not None:
            return known
        names: dict[str, str] = {}
        try:
            with os.scandir(folder or os.curdir) as entries:
                for number, entry in enumerate(entries):
                    if number >= _MOST_NAMES:
                        break
                    folded = fold(entry.name)
                    names[folded] = entry.name
                    if os.path.splitext(folded)[1] in _ENDINGS:
                        names.setdefault(_stem(folded), entry.name)
        except OSError:
            pass
        if len(self._folders) >= _KEPT_FOLDERS:
            self._folders.clear()
        self._folders[folder] = names
        return names


_ENDINGS = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"))


def _stem(folded: str) -> str:
    """A name without its ending, marked so that it is no name of a file."""
    return os.path.splitext(folded)[0] + "/"
