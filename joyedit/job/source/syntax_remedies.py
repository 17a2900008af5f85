"""What to do about broken JSON and YAML: the parsers say what they did not expect, and not what a person did."""

from __future__ import annotations

import re

_LAST_COMMA = re.compile(r",\s*\Z")
_CURLY = "\u201c\u201d\u201e\u2018\u2019"
"""Quotes of word processors."""
_WORD = re.compile(r"(?:True|False|None)\b")
_NEAR = 200
"""So many characters before a fault are looked at: lines may have millions."""
_SPACES = "indent with spaces, not with tabs"
_IN_QUOTES = "put the text between quotes"


def json_remedy(text: str, at: int, message: str) -> str:
    """The remedy for what the parser of JSON says of the character at `at`; empty if nobody can tell."""
    char = text[at : at + 1]
    has_comma = _LAST_COMMA.search(text, max(0, at - _NEAR), at) is not None
    if message.startswith("Illegal trailing comma") or (char != "" and char in "]}" and has_comma):
        return "remove the comma before the closing bracket"
    if char == "'" or (char != "" and char in _CURLY):
        return 'keys and texts stand between straight double quotes: "'
    if _WORD.match(text, at):
        return "write true, false or null"
    if message.startswith("Invalid control character"):
        return "a text stands on one line, with \\n for the end of a line and \\t for a tab"
    if message.startswith("Invalid \\escape"):
        return "write \\\\ for each \\ of a text, or / in a path"
    if message.startswith("Extra data") and char == ",":
        return "remove the comma behind the object"
    if message.startswith("Expecting ',' delimiter") and char.isalpha():
        return 'write \\" for each " inside of a text'
    return ""


def yaml_remedy(text: str, line: int, column: int, message: str) -> str:
    """The same for YAML; line and column are counted from 0."""
    if message == "mapping values are not allowed in this context":
        return f"{_IN_QUOTES} if it has a colon and a space in it"
    if message.startswith("found a tab character"):
        return _SPACES
    if message == "found character that cannot start any token":
        lines = text.split("\n", line + 1)
        char = lines[line][column : column + 1] if line < len(lines) else ""
        if char == "\t":
            return _SPACES
        return f"{_IN_QUOTES} if it begins with {char}" if char != "" and char in "@`%" else ""
    return ""
