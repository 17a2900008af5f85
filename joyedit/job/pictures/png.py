"""PNG files: their pixels go to Pillow, and what stands beside the pixels is read here, chunk by chunk.

Pillow gives up a good picture for a damaged or an oversized chunk of text. So it gets to see only the chunks that
it needs for the pixels. Of the others joyedit reads the ones that it uses, with bounds, and leaves out the rest.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, cast

from PIL import PngImagePlugin

from joyedit.job.pictures.file_parts import PartsOfFile

MOST_EXIF = 16 << 20
"""Longer EXIF is passed over: no camera writes it, and each of its values would become an object."""
MOST_PROFILE = 8 << 20
"""Bytes of a colour profile, inflated. The largest for printing have 4 MB."""
MOST_TEXT = 1 << 20
"""Bytes of a text, inflated, up to which it is no remarkable one."""
_MOST_CHUNKS = 1 << 16
_PIECE = 1 << 16

_FOR_PIXELS = (b"tRNS", b"acTL", b"fcTL")
_DATA = (b"IDAT", b"fdAT")
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_NUMBERS = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32, b"pHYs": 9}
"""Chunks that say what the colours are and how large a pixel is, and their lengths."""
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP, _RAW_EXIF = "XML:com.adobe.xmp", "Raw profile type exif"


class _Chunk(NamedTuple):
    """`start` is the place of its length field; `length` is that of its body."""

    kind: bytes
    start: int
    length: int


class PngPicture(PngImagePlugin.PngImageFile):
    """Pillow's PNG reader behind a filter.

    `beside` has icc_profile, exif, cicp, srgb, gamma, chromaticity and dpi, as far as they are there.
    Seeking a frame drops it from `info`. `depth` are the bits of a sample. `reading_notes` tells what is damaged.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.reading_notes: list[str] = []
        self.beside: dict[str, Any] = {}
        self._source = file
        chunks = list(_chunks(file))
        if not any(chunk.kind in (*_DATA, b"IEND", b"REST") for chunk in chunks):
            raise OSError("the file is truncated: it ends before the first pixel")
        self._left_out = _damaged(file, [chunk for chunk in chunks if chunk.kind in _FOR_PIXELS], self.reading_notes)
        self._others = [chunk for chunk in chunks if not self._is_for_pixels(chunk) and chunk.kind not in _DATA]
        self._read_beside()
        self._open_pixels(chunks, name)
        self.depth = _depth(file)
        self._scale_transparency(self.depth)
        if "transparency" in self.info:
            self.beside["transparency"] = self.info["transparency"]
        self.info.update(self.beside)

    def _open_pixels(self, chunks: list[_Chunk], name: str) -> None:
        """Open what is left of the file; if that fails, try it without its animation, and without transparency."""
        fault: Exception | None = None
        for less, note in (
            ((), ""),
            (_ANIMATION, "damaged animation left out"),
            ((b"tRNS",), "a damaged tRNS chunk left out"),
        ):
            if less and not any(chunk.kind in less for chunk in chunks if self._is_for_pixels(chunk)):
                continue
            self._left_out |= set(less)
            parts = [(0, 8), *((chunk.start, 12 + chunk.length) for chunk in chunks if self._is_for_pixels(chunk))]
            try:
                super().__init__(cast("IO[bytes]", PartsOfFile(self._source, parts)), name)
            except Exception as error:  # nearly anything
                fault = fault or error
                continue
            self.reading_notes += [note] if note else []
            return
        assert fault is not None
        raise fault

    @property
    def text_bytes(self) -> int:
        """What `note_damage` takes at most."""
        texts = [min(chunk.length, MOST_TEXT) for chunk in self._others if chunk.kind in _TEXTS]
        return 3 * max(texts) + MOST_TEXT if texts else 0

    def note_damage(self) -> None:
        """Read all chunks that are no pixels, and add to `reading_notes` what is damaged or oversized."""
        _damaged(self._source, self._others, self.reading_notes)
        for chunk in self._others:
            if chunk.kind in _TEXTS and _is_oversized(self._source, chunk):
                self.reading_notes.append(f"a text ({chunk.kind.decode()}) of more than {MOST_TEXT >> 20} MiB left out")
        self.reading_notes[:] = dict.fromkeys(self.reading_notes)

    def _is_for_pixels(self, chunk: _Chunk) -> bool:
        if chunk.kind in _ANIMATION:
            return not self._left_out & {b"acTL", b"fcTL"}
        is_critical = not chunk.kind[:1].islower()
        return is_critical or (chunk.kind in _FOR_PIXELS and chunk.kind not in self._left_out)

    def _read_beside(self) -> None:
        for chunk in self._others:
            length = _NUMBERS.get(chunk.kind)
            if length is not None and length == chunk.length:
                body = _intact_body(self._source, chunk)
                if body is not None:
                    self.beside.update(_numbers(chunk.kind, body))
            elif chunk.kind == b"eXIf" and "exif" not in self.beside and chunk.length <= MOST_EXIF:
                body = _intact_body(self._source, chunk)
                if body is not None:
                    self.beside["exif"] = b"Exif\0\0" + body.removeprefix(b"Exif\0\0")
            elif chunk.kind == b"iCCP" and "icc_profile" not in self.beside:
                self._read_profile(chunk)
            elif chunk.kind in _TEXTS:
                self.beside.update(_text(self._source, chunk))

    def _read_profile(self, chunk: _Chunk) -> None:
        body = _intact_body(self._source, chunk) if chunk.length <= MOST_PROFILE else None
        if body is None:
            if chunk.length > MOST_PROFILE:
                self.reading_notes.append("colour profile ignored: it is far too long")
            return
        _, _, rest = body.partition(b"\0")
        try:
            profile = _inflated(rest[1:], MOST_PROFILE)
        except zlib.error:
            self.reading_notes.append("colour profile ignored: its data is damaged")
            return
        if profile is None:
            self.reading_notes.append("colour profile ignored: it is far too long")
        else:
            self.beside["icc_profile"] = profile

    def _scale_transparency(self, depth: int) -> None:
        """Pillow brings 2 and 4 bits to 8 and takes the upper 8 of 16, but leaves the transparent value as it is."""
        clear = self.info.get("transparency")
        if self.mode == "L" and isinstance(clear, int) and depth in (2, 4):
            self.info["transparency"] = clear * 255 // ((1 << depth) - 1)
        elif self.mode == "RGB" and isinstance(clear, tuple) and depth == 16:
            self.info["transparency"] = tuple(value >> 8 for value in clear)


def _chunks(file: IO[bytes]) -> Iterator[_Chunk]:
    """All chunks up to the end of the picture. The file stands at its start again."""
    end = file.seek(0, os.SEEK_END)
    place = 8
    for _ in range(_MOST_CHUNKS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if not kind.isalpha():  # what follows is no chunk: Pillow says so, if it needs it
            yield _Chunk(b"REST", place, end - place)
            break
        yield _Chunk(kind, place, length)
        place += 12 + length
        if kind == b"IEND":
            break
    else:
        yield _Chunk(b"REST", place, end - place)
    file.seek(0)


def _depth(file: IO[bytes]) -> int:
    file.seek(24)
    depth = file.read(1)
    file.seek(0)
    return depth[0] if depth else 0


def _body(file: IO[bytes], chunk: _Chunk) -> Iterator[bytes]:
    """Kind and body in pieces, as the checksum covers them."""
    file.seek(chunk.start + 4)
    left = 4 + chunk.length
    while left > 0 and (piece := file.read(min(left, _PIECE))):
        left -= len(piece)
        yield piece


def _is_intact(file: IO[bytes], chunk: _Chunk) -> bool:
    checksum = 0
    for piece in _body(file, chunk):
        checksum = zlib.crc32(piece, checksum)
    return file.read(4) == checksum.to_bytes(4, "big")


def _intact_body(file: IO[bytes], chunk: _Chunk) -> bytes | None:
    """The body; None if the checksum is wrong or the file ends before."""
    return b"".join(_body(file, chunk))[4:] if _is_intact(file, chunk) else None


def _damaged(file: IO[bytes], chunks: list[_Chunk], notes: list[str]) -> set[bytes]:
    """The kinds of which a chunk is damaged."""
    kinds = {chunk.kind for chunk in chunks if not _is_intact(file, chunk)}
    notes += [f"a damaged {kind.decode('ascii', 'replace')} chunk left out" for kind in sorted(kinds)]
    return kinds


def _inflated(data: bytes, most: int) -> bytes | None:
    """None if it is longer than `most`. Raises zlib.error."""
    inflater = zlib.decompressobj()
    found = inflater.decompress(data, most)
    if not inflater.eof and not inflater.unconsumed_tail:
        raise zlib.error("incomplete")
    return found if inflater.eof else None


def _numbers(kind: bytes, body: bytes) -> dict[str, Any]:
    if kind == b"pHYs":
        across, down, unit = struct.unpack(">IIB", body)
        return {"dpi": (across * 0.0254, down * 0.0254)} if unit == 1 else {}  # pixels a metre
    if kind == b"cICP":
        return {"cicp": tuple(body)}
    if kind == b"sRGB":
        return {"srgb": body[0]}
    if kind == b"gAMA":
        return {"gamma": int.from_bytes(body, "big") / 100_000}
    return {"chromaticity": tuple(value / 100_000 for value in struct.unpack(">8I", body))}


def _split_text(kind: bytes, body: bytes) -> tuple[str, bytes, bool]:
    """Keyword, content, and whether the content is compressed. An unreadable one gives an empty keyword."""
    key, _, rest = body.partition(b"\0")
    if kind == b"tEXt":
        return key.decode("latin-1"), rest, False
    if kind == b"zTXt":
        return key.decode("latin-1"), rest[1:], True
    parts = rest[2:].split(b"\0", 2)
    return (key.decode("latin-1"), parts[2], rest[0] == 1) if len(parts) == 3 else ("", b"", False)


def _text(file: IO[bytes], chunk: _Chunk) -> dict[str, Any]:
    """The texts that may hold an orientation; none for all others."""
    file.seek(chunk.start + 8)
    if file.read(len(_RAW_EXIF) + 1).partition(b"\0")[0].decode("latin-1") not in (_XMP, _RAW_EXIF):
        return {}
    if chunk.length > MOST_TEXT or not _is_intact(file, chunk):
        return {}
    key, content, is_compressed = _split_text(chunk.kind, b"".join(_body(file, chunk))[4:])
    try:
        found = _inflated(content, MOST_TEXT) if is_compressed else content
    except zlib.error:
        return {}
    if not key or found is None:
        return {}
    return {key: found.decode("utf-8" if chunk.kind == b"iTXt" else "latin-1", "replace")}


def _is_oversized(file: IO[bytes], chunk: _Chunk) -> bool:
    """Whether the text is longer than `MOST_TEXT`; it is inflated no further than that."""
    if chunk.length > MOST_TEXT:
        return True
    if chunk.kind == b"tEXt" or chunk.length < MOST_TEXT // 1032:  # deflate makes nothing smaller than that
        return False
    _, content, is_compressed = _split_text(chunk.kind, b"".join(_body(file, chunk))[4:])
    try:
        return is_compressed and _inflated(content, MOST_TEXT) is None
    except zlib.error:
        return False
