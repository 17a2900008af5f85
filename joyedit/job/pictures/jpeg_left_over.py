"""JPEG data that is left over: harmless filling, or the trace of pixels that were read wrong.

libjpeg stops at the last pixel of a scan and skips to the next marker. Bytes in between that no pixel needed are a sign
that the data before them is not what was written, as after a transfer as text, which puts a CR before each LF or takes
CRs away. Some cameras put a few bytes there, though, and programs leave some between the segments of the header.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_LEFT_OVER = re.compile(r"\d+ extraneous bytes before marker 0x([0-9a-f]{2})", re.IGNORECASE)
_RESTARTS, _START_OF_SCAN, _END = range(0xD0, 0xD8), 0xDA, 0xD9
_FEW = 8
"""So many line ends that all have a CR are no chance: one in 256 would have one."""
_FILLING = b"\0\xff"
_LONG = 1 << 12
"""Data of this length without a CR is no chance either: there should be 16."""


def of_pixels(data: bytes, warning: str, warning_of: Callable[[bytes], str]) -> tuple[bytes, str]:
    """A JPEG and libjpeg's first warning that is about its pixels: gaps of its header may come before it.

    `warning` is the first warning of `data`; it stays where there is no other. `warning_of` gives that of other data.
    """
    if _marker(warning) in (None, _END, *_RESTARTS):
        return data, warning
    whole = _without_gaps(data)
    later = warning_of(whole) if len(whole) < len(data) else ""
    return (whole, later) if later else (data, warning)


def damage_of(data: bytes, warning: str) -> str | None:
    """Why the pixels of a JPEG are damaged, from a warning as `of_pixels` gives it; None if nothing says so."""
    marker = _marker(warning)
    if marker is None:
        return None
    if marker in _RESTARTS:
        return "data is left over inside a scan"
    if marker == _END:
        return _transfer(data, few=_FEW)
    has_gaps = len(_without_gaps(data)) < len(data)
    return _transfer(data, few=2) if has_gaps else "data is left over behind a scan"


def _marker(warning: str) -> int | None:
    """The marker in front of which data is left over."""
    found = _LEFT_OVER.search(warning)
    return None if found is None else int(found[1], 16)


def _transfer(data: bytes, *, few: int) -> str | None:
    """That line ends were changed, if they show it; `few` of them are enough."""
    line_ends, returns, both = data.count(b"\n"), data.count(b"\r"), data.count(b"\r\n")
    if (line_ends == both and line_ends >= few) or (returns == both and returns >= few):
        return "it was transferred as text: each line end has a CR and an LF"
    if not returns and len(data.translate(None, _FILLING)) >= _LONG:
        return "it was transferred as text: there is no CR in it"
    return None


def _without_gaps(data: bytes) -> bytes:
    """The same JPEG without bytes between the segments in front of the first scan."""
    parts, place = [data[:2]], 2
    while 0 <= place < len(data):
        marker = data[place + 1] if place + 1 < len(data) else 0
        if data[place] != 0xFF or marker in (0, 0xFF):
            place = place + 1 if marker == 0xFF and data[place] == 0xFF else data.find(b"\xff", place + 1)
            continue
        if marker == _START_OF_SCAN:
            break
        length = 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        parts.append(data[place : place + length])
        place += length
    return b"".join(parts) + data[place:] if 0 <= place < len(data) else data
