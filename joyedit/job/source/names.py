"""Names of items and of their files: which are allowed, how one is made, and which are taken.

An id becomes the name of a file below the output folder, "/" making sub-folders, so it must be a
safe name on every system that the pictures may be copied to.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Iterator, Mapping

EXTENSIONS: Mapping[str, tuple[str, ...]] = {"png": (".png",), "jpg": (".jpg", ".jpeg"), "webp": (".webp",)}
"""The file endings that fit each picture format; the first is the one given by default."""

_MAX_PART = 200
_MAX_NAME = 1000
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{device}{n}" for device in ("com", "lpt") for n in "123456789¹²³"]
)
_PLAIN = re.compile("[0-9A-Za-z_-]+(?:/[0-9A-Za-z_-]+)*")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BITS = 0xFFFFFFFFFFFFFFFF


def name_fault(name: str) -> str | None:
    """Why `name` cannot be an id or an output (without its file ending), or None if it can."""
    if len(name) <= _MAX_PART and _PLAIN.fullmatch(name) and _RESERVED.isdisjoint(name.lower().split("/")):
        return None  # what most names are; the rest below would say the same, and takes ten times as long
    if not name or name.isspace():
        return "is empty"
    if _CONTROL.search(name):
        return "holds a control character"
    if _SURROGATE.search(name):
        return "is not valid Unicode"
    if "\\" in name:
        return "holds a backslash"
    if ":" in name:
        return "holds a colon"
    if name.startswith("/"):
        return "is absolute"
    parts = name.split("/")
    for part in parts:
        if not part:
            return "has an empty part"
        if part in (".", ".."):
            return f"has the part '{part}'"
        if part[-1] in ". ":
            return "has a part that ends with a dot or a space"
        if len(part.encode()) > _MAX_PART:
            return f"has a part of more than {_MAX_PART} bytes"
        if part.split(".", 1)[0].rstrip().lower() in _RESERVED:
            return f"has the part '{part}', which Windows reserves"
    if len(name.encode()) > _MAX_NAME:
        return f"has more than {_MAX_NAME} bytes"
    return None


def safe_name(name: str) -> str:
    """An allowed name made from the path of a picture; the same one for the same path, always."""
    if name_fault(name) is None:
        return name
    parts = [_safe_part(part) for part in name.split("/") if part not in ("", ".", "..")]
    made = "/".join(parts)
    if not made or made.isspace():
        made = "picture"
    if len(made.encode()) > _MAX_NAME:
        made = _shortened(made.replace("/", "_"))
    return made


def _safe_part(part: str) -> str:
    part = _SURROGATE.sub("_", _CONTROL.sub("_", part)).replace("\\", "_").replace(":", "_")
    if part.isspace():  # Unicode has more spaces than the one below
        return "_"
    if part[-1] in ". ":
        part = part.rstrip(". ") + "_"
    if part.split(".", 1)[0].rstrip().lower() in _RESERVED:
        part = "_" + part
    return _shortened(part) if len(part.encode()) > _MAX_PART else part


def _shortened(part: str) -> str:
    mark = hashlib.sha256(part.encode()).hexdigest()[:8]
    return part.encode()[: _MAX_PART - 20].decode(errors="ignore").rstrip(". ") + "-" + mark


def fold(name: str) -> str:
    """Equal for names that may be one file somewhere: those that differ in case or in Unicode form only."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class HashTable:
    """Text -> a number above 0 (say, a line), held as 64-bit hashes: about 24 bytes for each text.

    Numbers are held in 32 bits, and a larger one as the largest of those, or with `wide` in 64.

    A dict of a million names takes ten times that. Two texts of one hash would count as one; among a
    million of them the chance of that is 3 in 100 million.
    """

    def __init__(self, *, wide: bool = False) -> None:
        self._wide = wide
        self._mask = (1 << 10) - 1
        self._hashes, self._numbers = self._empty()
        self._used = 0

    def _empty(self) -> tuple[array[int], array[int]]:
        zero, code = array("Q", [0]), "Q" if self._wide else "I"
        return zero * (self._mask + 1), array(code, [0]) * (self._mask + 1)

    def __len__(self) -> int:
        return self._used

    def get(self, text: str) -> int:
        """The number of `text`; 0 if there is none."""
        key, hashes, mask = hash(text) & _BITS or 1, self._hashes, self._mask
        slot = key & mask
        while held := hashes[slot]:
            if held == key:
                return self._numbers[slot]
            slot = (slot + 1) & mask
        return 0

    def numbers(self) -> Iterator[int]:
        """All numbers, in no order."""
        return (number for number in self._numbers if number)

    def put(self, text: str, number: int) -> None:
        key = hash(text) & _BITS or 1
        slot = self._slot(key)
        if self._hashes[slot]:
            self._numbers[slot] = self._fitting(number)
        else:
            self._add(slot, key, number)

    def setdefault(self, text: str, number: int) -> int:
        """The number that `text` had before; where it had none, that is 0, and it has `number` now."""
        key = hash(text) & _BITS or 1
        slot = self._slot(key)
        if self._hashes[slot]:
            return self._numbers[slot]
        self._add(slot, key, number)
        return 0

    def _add(self, slot: int, key: int, number: int) -> None:
        self._hashes[slot] = key
        self._numbers[slot] = self._fitting(number)
        self._used += 1
        if 3 * self._used > 2 * self._mask:
            self._grow()

    def _fitting(self, number: int) -> int:
        return number if self._wide or number < 0xFFFFFFFF else 0xFFFFFFFF

    def _slot(self, key: int) -> int:
        """Where `key` stands, or the free slot where it would."""
        hashes, mask = self._hashes, self._mask
        slot = key & mask
        while (held := hashes[slot]) and held != key:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        hashes, numbers = self._hashes, self._numbers
        self._mask = 2 * self._mask + 1
        self._hashes, self._numbers = self._empty()
        for key, number in zip(hashes, numbers, strict=True):
            if key:
                slot = self._slot(key)
                self._hashes[slot] = key
                self._numbers[slot] = number
