"""What a file holds that should hold something else: a few words and a remedy, from its first bytes.

Downloads, clones and copies leave such files under the names of pictures and weights.
"""

from __future__ import annotations

import codecs
import re

from joyedit.printable import brief

HEAD = 512
"""Bytes of a file that tell what it holds."""

_AGAIN = "get it again from its source"
_RENDER = "render or export it as PNG first"
_CONVERT = "joyedit does not read it: convert it to PNG or JPEG"
_POINTERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS: run 'git lfs pull' in its repository"),
    (b"/annex/objects/", "a pointer of git-annex: run 'git annex get' in its repository"),
)
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\x0a", f"a JPEG XL picture ({_CONVERT})"),
    (b"\0\0\0\x0cJXL ", f"a JPEG XL picture ({_CONVERT})"),
    (b"\0\0\0\x0cjP  ", f"a JPEG 2000 picture ({_CONVERT})"),
    (b"\xff\x4f\xff\x51", f"a JPEG 2000 picture ({_CONVERT})"),
    (b"8BPS", f"a Photoshop project ({_RENDER})"),
    (b"gimp xcf", f"a GIMP project ({_RENDER})"),
    (b"\x76\x2f\x31\x01", f"an OpenEXR picture ({_RENDER})"),
    (b"#?RADIANCE", f"a Radiance HDR picture ({_RENDER})"),
    (b"\0\0\x01\0", f"an icon of Windows ({_CONVERT})"),
    (b"icns", f"an icon of macOS ({_CONVERT})"),
    (b"%PDF-", f"a PDF document ({_RENDER})"),
    (b"%!PS", f"a PostScript document ({_RENDER})"),
    (b"\0\x05\x16\x07", "what macOS keeps beside a file (AppleDouble), not the file itself: leave it out"),
    (b"PK\x03\x04", "a ZIP archive: unpack it first"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x1a\x45\xdf\xa3", "a video, not a picture"),
)
_AS_TEXT = f"that was transferred as text, which destroys it ({_AGAIN}, as binary)"
_BASE64 = "in base64: decode it first (base64 -d)"
_DISGUISES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\n\x1a", f"a PNG {_AS_TEXT}"),  # without CR
    (b"\x89PNG\r\r\n", f"a PNG {_AS_TEXT}"),  # a CR before each LF
    (b"\x89PNG\r\n\x1a\r\n", f"a PNG {_AS_TEXT}"),  # a CR before each LF that had none
    (b"\xef\xbf\xbdPNG\r\n", f"a PNG {_AS_TEXT}"),  # through UTF-8
    (b"\xc2\x89PNG\r\n", f"a PNG {_AS_TEXT}"),
    (b"\xef\xbf\xbd" * 3, f"a picture {_AS_TEXT}"),
    (b"\xc3\xbf\xc3\x98\xc3\xbf", f"a JPEG {_AS_TEXT}"),
    (b"iVBORw0KGgo", f"a PNG {_BASE64}"),
    (b"/9j/", f"a JPEG {_BASE64}"),
    (b"R0lGOD", f"a GIF {_BASE64}"),
    (b"UklGR", f"a WebP {_BASE64}"),
    (b"data:image/", "a data: URI, which a manifest or standard input can hold: write it there, or decode it first"),
)
"""Pictures that something took for text."""
_TEXT = re.compile(rb"[^\x00-\x08\x0b\x0e-\x1f]+")


def stand_in_of(head: bytes) -> str | None:
    """What stands in the place of a file with these first bytes (`HEAD` of them), behind "it holds"; None if it is
    no pointer and no web page."""
    for signature, words in _POINTERS:
        if head.startswith(signature):
            return words
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    is_page = begin.startswith((b"<!doctype html", b"<html"))
    return f"a web page, as servers send it in place of a file ({_AGAIN})" if is_page else None


def content_of(head: bytes) -> str | None:
    """What a file that is no picture holds, behind "it holds"; None if nothing is known. Takes the same bytes."""
    stand_in = stand_in_of(head)
    if stand_in is not None:
        return stand_in
    for signature, words in _SIGNATURES + _DISGUISES:
        if head.startswith(signature):
            return words
    if head[4:8] == b"ftyp":
        is_raw = head[8:11] == b"crx"
        return "a RAW photo (CR3): develop it first" if is_raw else "a video or sound (MP4, MOV), not a picture"
    if not head.strip(b"\0"):
        return f"zeros only: a copy did not finish, or its disk is damaged ({_AGAIN})" if head else None
    return _text_of(head)


def _text_of(head: bytes) -> str | None:
    if not _TEXT.fullmatch(head):
        return None
    text = head.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace").strip()
    if "\ufffd" in text[:-1]:  # the last character may be cut
        return None
    if "<svg" in text.lower():
        return f"an SVG drawing ({_RENDER})"
    return f"text, which begins with {brief(text.splitlines()[0], 60)!r} ({_AGAIN})" if text else None
