"""What the check of a folder has counted, so that a later pass can account for each picture that is gone by then."""

from __future__ import annotations

import zlib

Kind = str
"""Of an entry of a folder: `picture`, `picture link`, `other`, `folder`, `folder link`, or `gone`."""

Listing = list[tuple[str, Kind]]
"""Name and kind of the entries of one folder."""

_TAGS: dict[Kind, str] = {"picture": "", "picture link": "", "gone": "", "folder": "/", "folder link": "//"}
_KINDS: dict[str, Kind] = {"": "picture", "/": "folder", "//": "folder link"}


class CountedPictures:
    """The names of pictures and folders, compressed, by the path of the folder that holds them.

    A picture takes about 5 to 10 bytes here, a folder about 300. Only the main thread may use it.
    """

    def __init__(self) -> None:
        self._names: dict[str, bytes] = {}

    def note(self, folder: str, listing: Listing) -> None:
        """Keep what a folder holds, and nothing that was kept of it before."""
        names = [name + _TAGS[kind] for name, kind in listing if kind in _TAGS]
        self._names[folder] = zlib.compress("\0".join(names).encode("utf-8", "surrogateescape"), 1)

    def listing(self, folder: str) -> Listing | None:
        """What was kept of a folder; None if it was not counted."""
        packed = self._names.get(folder)
        if packed is None:
            return None
        text = zlib.decompress(packed).decode("utf-8", "surrogateescape")
        names = text.split("\0") if text else []
        return [(name.rstrip("/"), _KINDS["/" * name.count("/")]) for name in names]
