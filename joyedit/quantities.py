"""Times and sizes as a person writes them: `8h`, `22GB`."""

from __future__ import annotations

import re

from joyedit.errors import UsageError
from joyedit.printable import brief

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?", re.ASCII)


def seconds_of(flag: str, text: str | None) -> float | None:
    """The seconds of `8h`, `1h30m`, `90s` or a plain number of seconds; None for None."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text if text[-1:] in _UNITS else text + "s")
    seconds = 0.0
    if found is not None and len(text) < 20:
        seconds = sum(float(part) * unit for part, unit in zip(found.groups("0"), _UNITS.values(), strict=True))
    if seconds <= 0:
        raise UsageError(f"{flag} must be a time such as 8h, 1h30m or 90s, not {text!r}")
    return seconds


_BYTES = {"GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20, "G": 10**9, "M": 10**6, "": 10**9}
_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([GM]I?B?|)", re.ASCII | re.IGNORECASE)


def memory_bytes(text: str) -> int | None:
    """The bytes of `22GB`, `7.5 GiB`, `900MB` or a plain number of gigabytes; None for `auto`. Raises UsageError."""
    if text == "auto":
        return None
    found = _MEMORY.fullmatch(text) if len(text) < 20 else None
    unit = None if found is None else _BYTES.get(found[2].upper())
    if found is None or unit is None or not float(found[1]):
        raise UsageError(f"--memory must be auto or a size such as 22GB or 7.5GB, not {brief(text)!r}")
    return int(float(found[1]) * unit)
