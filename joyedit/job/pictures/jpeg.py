"""Whether a JPEG has all its data. Pillow's decoder fills what is missing with grey and tells nobody.

libjpeg knows, and warns. simplejpeg gives that warning. It decodes to an eighth of each side, which reads all the data.
"""

from __future__ import annotations

import os
import re
from typing import IO, cast

from PIL import JpegImagePlugin

from joyedit.job.pictures.file_parts import PartsOfFile
from joyedit.job.pictures.jpeg_left_over import damage_of, of_pixels

_MISSING = re.compile("premature end of data segment", re.IGNORECASE)
_EXTRANEOUS = re.compile("extraneous bytes before marker 0xd9", re.IGNORECASE)
_DAMAGED = re.compile("bad huffman code|bad arithmetic code|instead of RST", re.IGNORECASE)
_HARMLESS_END = re.compile("^premature end of jpeg file", re.IGNORECASE)
_WARNING = re.compile("^(corrupt jpeg data|warning|inconsistent progression|invalid sos|unknown adobe)", re.IGNORECASE)


_START_OF_SCAN, _COMMENT, _END = 0xDA, 0xFE, b"\xff\xd9"
_NO_FRAMES = (0xC4, 0xC8, 0xCC)
_FILLING = 16
_JFIF, _EXIF, _ADOBE = 0xE0, 0xE1, 0xEE


class JpegPicture(JpegImagePlugin.JpegImageFile):
    """Pillow's JPEG reader. `reading_notes` tells whether metadata was left out because it is damaged.

    It reads a file without an end marker, and `lacks_end` says so then: `check_end` tells whether the data is whole.
    Not for progressive files: where whole scans are missing at the end, libjpeg is content with the others.
    """

    reading_notes: list[str]
    lacks_end = False

    def load_read(self, read_bytes: int) -> bytes:
        """The next bytes of the file; an end marker behind the last one."""
        data = super().load_read(read_bytes)
        if data or self.lacks_end or "progressive" in self.info:
            return data
        self.lacks_end = True
        return _END


def open_jpeg(file: IO[bytes], name: str) -> JpegPicture:
    """The lazy reader; where it fails, the one that sees no metadata, which may be what is damaged."""
    try:
        image = JpegPicture(file, name)
        image.reading_notes = []
        return image
    except Exception as error:  # nearly anything
        for kept in ((_JFIF, _EXIF, _ADOBE), (_JFIF, _ADOBE)):
            parts = _parts(file, kept)
            try:
                image = JpegPicture(cast("IO[bytes]", PartsOfFile(file, parts)), name)
            except Exception:
                continue
            image.reading_notes = ["damaged metadata left out"]
            return image
        raise error


def _parts(file: IO[bytes], kept: tuple[int, ...]) -> list[tuple[int, int]]:
    """Start and length of all segments before the pixels but APPn and COM that are not kept, and of the rest."""
    end = file.seek(0, os.SEEK_END)
    parts, place = [(0, 2)], 2
    while True:
        file.seek(place)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (_START_OF_SCAN, 0xFF):
            return [*parts, (place, end - place)]
        length = 2 + int.from_bytes(head[2:], "big")
        is_metadata = 0xE0 <= head[1] <= 0xEF or head[1] == _COMMENT
        if not is_metadata or head[1] in kept:
            parts.append((place, length))
        place += length


def check_data(data: bytes, notes: list[str]) -> None:
    """Adds libjpeg's other warnings to `notes`. Raises OSError if data is missing, and ValueError if it is damaged.

    `data` is a JPEG that Pillow has decoded. This takes the memory of `data` and of what decoding took.
    """
    data, warning = of_pixels(data, _warning(data), _warning)
    if _EXTRANEOUS.search(warning):
        warning = _warning_without_filling(data) or warning
    if _MISSING.search(warning):
        raise OSError(f"the file is truncated: data is missing before its end marker (libjpeg says: {warning})")
    if _DAMAGED.search(warning):
        raise ValueError(f"its data is damaged (libjpeg says: {warning})")
    damage = damage_of(data, warning)
    if damage is not None:
        raise ValueError(f"its data is damaged: {damage} (libjpeg says: {warning})")
    # Without its end marker a picture is whole: Pillow has found all rows.
    if _WARNING.search(warning) and not _HARMLESS_END.search(warning):
        notes.append(f"libjpeg says: {warning}")


def check_end(data: bytes, notes: list[str]) -> None:
    """The same for a JPEG without an end marker: raises OSError unless libjpeg finds all its data and nothing odd."""
    warning = _warning(data + _END)
    if warning or not _has_one_scan(data):
        reason = f"libjpeg says: {warning}" if warning else "it has several scans, and the last ones may be lost"
        raise OSError(f"the file is truncated: data is missing at its end ({reason})")
    notes.append("its end marker is missing, but its data is whole")


def _has_one_scan(data: bytes) -> bool:
    """Whether the first scan holds all components. `data` is a JPEG that Pillow has decoded."""
    place, components = 2, 0
    while data[place : place + 1] == b"\xff":
        marker = data[place + 1]
        if marker == _START_OF_SCAN:
            return data[place + 4] == components
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
            components = data[place + 9]
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return False


def _warning_without_filling(data: bytes) -> str:
    """libjpeg's warning if zeros before the end marker were data; empty otherwise.

    A tool may write zeros where it lost data. They give picture elements like any other data, fewer bits each, so
    some are left over. Zeros that only fill up a whole picture are left over too, but nothing needs them.
    """
    end = data.rfind(_END)
    without = data[: max(end, 0)].rstrip(b"\0")
    if end - len(without) < _FILLING:
        return ""
    warning = _warning(without + _END)
    return warning if _MISSING.search(warning) else ""


def _warning(data: bytes) -> str:
    """libjpeg's first warning; empty if there is none, or if this way of decoding cannot read the file."""
    import simplejpeg  # not at the top: `joyedit --help` does not need it

    try:
        simplejpeg.decode_jpeg(data, colorspace="GRAY", min_height=1, min_width=1)
    except ValueError as error:
        return " ".join(str(error).split())[:200]
    return ""
