"""`data:` URIs -> pictures: the bytes of a file, written into a line of a manifest.

The two forms of RFC 2397 are read: base64, also with line breaks, without the `=` at its end or with `-` and `_`; and
percent-encoded bytes. What kind of picture it is, its bytes tell, not the type that the URI declares.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from urllib.parse import unquote_to_bytes

from joyedit.errors import Problem
from joyedit.job.data_picture import DataPicture
from joyedit.job.source.problems import shown

_HEAD = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+)?(?=[;,])", re.ASCII | re.IGNORECASE)
_LONGEST_HEAD = 300
_SPACES = re.compile(rb"[ \t\n\f\r]+")
_NO_BASE64 = re.compile(rb"[^0-9A-Za-z+/]")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)
_BASE64_BEGINNINGS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
"""PNG, JPEG, GIF and WebP. No folder is called /9j."""
_LEAST = 40
_EXAMPLE = "for example data:image/png;base64,iVBORw0..."


class DataUriError(Exception):
    """A `data:` URI that holds no bytes of a picture. `problem` says why."""

    def __init__(self, message: str, remedy: str = _EXAMPLE) -> None:
        self.problem = Problem(message, remedy, key="image")
        super().__init__(message)


def is_data(written: str) -> bool:
    """Whether this is no path but the picture itself (`data:image/png;base64,...`)."""
    return written[:5].lower() == "data:" and _HEAD.match(written) is not None


def lacks_head(written: str) -> bool:
    """Whether this is surely the base64 of a picture, without `data:image/png;base64,` in front of it."""
    begin = written[:_LONGEST_HEAD].rpartition(";base64,")[2]
    return begin.startswith(_BASE64_BEGINNINGS) and len(written) > _LEAST


def picture_of(written: str) -> DataPicture:
    """The picture that a `data:` URI holds; nothing of it is decoded. Raises DataUriError."""
    comma = written.find(",", 0, _LONGEST_HEAD)
    if comma < 0:
        if ";sha256=" in written[:_LONGEST_HEAD]:
            message = f"{shown(written)} names a picture that stood in another line"
            raise DataUriError(message, "give the picture itself, or run the manifest that holds it")
        raise DataUriError(f"{shown(written)} has no comma in front of its data")
    head = written[:comma]
    try:
        body = written[comma + 1 :].encode("ascii")
    except UnicodeEncodeError as error:
        message = f"the picture in this line has the character {shown(written[comma + 1 + error.start])}"
        raise DataUriError(
            f"{message} ({shown(head)})", "its data are letters, digits, and %XX for other bytes"
        ) from None
    is_base64 = head[-7:].lower() == ";base64"
    if b"%" in body or not is_base64:
        body = unquote_to_bytes(body)
    data = _from_base64(body, head) if is_base64 else body
    if not data:
        raise DataUriError(f"the picture in this line has no data ({shown(head)})")
    return picture_of_bytes(data)


def picture_of_bytes(data: bytes) -> DataPicture:
    """The picture with the bytes that a file would hold; nothing of it is decoded."""
    sha256 = hashlib.sha256(data).hexdigest()
    return DataPicture(f"data:{_kind(data)};sha256={sha256}", sha256, data)


def _from_base64(body: bytes, head: str) -> bytes:
    text = _SPACES.sub(b"", body).rstrip(b"=").translate(_URL_SAFE)
    wrong = _NO_BASE64.search(text)
    if wrong is not None:
        message = f"the picture in this line is broken base64: {shown(wrong[0].decode('latin-1'))} is no digit of it"
        raise DataUriError(f"{message} ({shown(head)})", "write the file anew, for example with base64 -w0")
    if len(text) % 4 == 1:
        message = f"the picture in this line is broken base64: {len(text)} digits are no whole number of bytes"
        raise DataUriError(f"{message} ({shown(head)})", "a part of it is missing")
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))


def _kind(data: bytes) -> str:
    """The media type that the first bytes tell; empty if they tell none."""
    kind = next((kind for mark, kind in _KINDS if data.startswith(mark)), "")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "webp"
    elif data[4:8] == b"ftyp":
        kind = "avif" if data[8:11] == b"avi" else "heif"
    return f"image/{kind}" if kind else ""
