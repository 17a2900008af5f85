"""Text from strangers as text that can be printed: no character of it moves a cursor or forges a line."""

from __future__ import annotations

import re

# C0 and C1 controls, the marks that change the direction of writing, line and paragraph separators, the mark of the
# byte order, invisible tags, and halves of surrogate pairs (bytes of a file name that are no UTF-8).
_KINDS = "\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
_UNPRINTABLE = re.compile(f"[\x00-\x1f{_KINDS}]")
_UNPRINTABLE_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_KINDS}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """`text` on one line, with an escape in place of each character that is not for printing."""
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub(_escape, text)


def brief(text: str, limit: int = 120) -> str:
    """The same for a name or a text of any length: at most `limit` characters."""
    shown = printable(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def printable_lines(text: str) -> str:
    """The same, but line feeds and tabs stay."""
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE_IN_LINES.sub(_escape, text)


def printable_json(text: str) -> str:
    """`text`, which is JSON, with an escape of JSON in place of each character that is not for printing.

    It is the same JSON value, and line feeds between its parts stay.
    """
    return text if text.isascii() and "\x7f" not in text else _UNPRINTABLE_IN_LINES.sub(_json_escape, text)


def gigabytes(count: int) -> str:
    """A number of bytes for people, for example "31.4 GB" or "17 MB": powers of ten."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    number = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _json_escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"
