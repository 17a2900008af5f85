"""Pillow's TIFF reader, and beside it joyedit's own for the layouts that Pillow reads wrong or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image, ImageFile, TiffImagePlugin

from joyedit.job.pictures import tiff, tiff_layout
from joyedit.job.pictures.tiff_layout import Layout, is_read_by_pillow, layout_of, refuse_unread
from joyedit.job.pictures.tiff_pixels import read_array, to_8_bits

_PROFILE, _JPEG_TABLES = 34675, 347
_RESOLUTION = (282, 283, 296)
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class TiffPicture(TiffImagePlugin.TiffImageFile):
    """A TIFF of any layout that is read right; opening another one raises ValueError with the reason.

    `layout` is None where Pillow reads the pixels. `check` is called now and then while joyedit reads them, and
    `reading_notes` tells how they were scaled.
    """

    layout: Layout | None = None
    _is_decoded = False
    check: Callable[[], None] = staticmethod(lambda: None)

    def _setup(self) -> None:
        # Who counts the pages meets the other ones, and comes back to the first one when it is decoded.
        if self.tell() > 0 or self._is_decoded:
            return
        self.reading_notes: list[str] = []
        tags: Any = self.tag_v2
        self._find_lost_tags(tags)
        if is_read_by_pillow(tags):
            try:
                super()._setup()  # type: ignore[no-untyped-call, unused-ignore]
            except (SyntaxError, KeyError):
                if not tags.get(tiff.WIDTH) or not tags.get(tiff.LENGTH):
                    raise
            else:
                self._let_libtiff_unpack()
                return
        layout = layout_of(tags)
        refuse_unread(layout)
        self._mode = layout.mode
        is_turned = tags.get(tiff_layout.ORIENTATION) in (5, 6, 7, 8)
        self._tile_size = layout.width, layout.height
        self._size = (layout.height, layout.width) if is_turned else (layout.width, layout.height)
        self.palette = None
        self.tile = [ImageFile._Tile("joyedit", (0, 0, layout.width, layout.height))]
        self.use_load_libtiff = layout.compression not in (1, 8, 32946)
        if _PROFILE in tags:
            self.info["icc_profile"] = tags[_PROFILE]
        self.layout = layout

    def _find_lost_tags(self, tags: Any) -> None:
        """Pillow gives up a directory at a tag whose values lie outside the file, and passes over large ones after it.

        It also trips over a resolution that is no number. The pixels need none of these.
        """
        for tag in _RESOLUTION:
            if tag in tags:
                del tags[tag]
        assert self.fp is not None
        if tags.offset is not None and self.tell() == 0:
            lost = [tag for tag in tiff_layout.NEEDED if tag not in tags]
            for tag, (kind, data) in tiff.values_of(self.fp, lost).items():
                tags._tagdata[tag] = data
                tags.tagtype[tag] = kind

    def _let_libtiff_unpack(self) -> None:
        """Pillow takes uncompressed YCbCr for pixel after pixel, although the colours may be stored for groups.

        Older versions take it for RGB.
        """
        tags: Any = self.tag_v2
        if tags.get(tiff.PHOTOMETRIC) != tiff_layout.YCBCR or self.use_load_libtiff:
            return
        width, height = self._tile_size
        counts = tags.get(tiff_layout.STRIP_BYTES) or tags.get(tiff_layout.TILE_BYTES) or ()
        is_shared = tags.get(tiff_layout.SUBSAMPLING, (2, 2)) != (1, 1) and sum(counts) < 3 * width * height
        if is_shared or self.mode != "YCbCr":
            tags[tiff_layout.COMPRESSION] = tiff_layout.LZW  # Pillow leaves to libtiff what is compressed
            super()._setup()  # type: ignore[no-untyped-call, unused-ignore]
            tags[tiff_layout.COMPRESSION] = tiff_layout.RAW

    def seek(self, frame: int) -> None:
        """See Pillow. The pixels of the first page stay when the pages are counted."""
        if frame == 0 and self._is_decoded:
            self._seek(0)
        else:
            super().seek(frame)

    def load(self) -> Any:
        """See Pillow."""
        layout = self.layout
        if self.tag_v2.get(tiff_layout.ORIENTATION) in (5, 6, 7, 8):
            self.filename = ""  # a file that Pillow maps into memory gets the wrong width otherwise
        if layout is None or not self.tile:
            pixels = super().load()
            self._is_decoded = True
            return pixels
        assert self.fp is not None
        samples = read_array(self.fp, layout, self.tag_v2, self.check)
        colour_map = self.tag_v2.get(tiff_layout.COLOUR_MAP)
        self.im = to_8_bits(samples, layout, colour_map, self.reading_notes).im
        del samples
        self.tile = []
        self.readonly = 0
        self.load_end()
        self._is_decoded = True
        return Image.Image.load(self)

    def jpeg_pieces(self) -> Iterator[bytes]:
        """Each strip or tile as a JPEG of its own, if it is one: libtiff tells nobody of missing data."""
        tags: Any = self.tag_v2
        if tags.get(tiff_layout.COMPRESSION) != tiff_layout.JPEG or self.fp is None:
            return
        tables = tags.get(_JPEG_TABLES, b"")
        offsets = tags.get(tiff_layout.STRIPS) or tags.get(tiff_layout.TILES) or ()
        lengths = tags.get(tiff_layout.STRIP_BYTES) or tags.get(tiff_layout.TILE_BYTES) or ()
        for offset, length in zip(offsets, lengths, strict=False):
            self.fp.seek(offset)
            piece = self.fp.read(length)
            # The tables lack pixels, and the pixels lack tables: the end of the one, the start of the other fall away.
            yield tables[:-2] + piece[2:] if isinstance(tables, bytes) and len(tables) > 4 else piece

    def load_end(self) -> None:
        """Turn the picture upright, by its tag alone: Pillow would read all EXIF for that, which may be damaged."""
        turn = _TRANSPOSE.get(self.tag_v2.get(tiff_layout.ORIENTATION, 1))
        if turn is not None:
            stored = self._new(self.im)
            turned = stored.transpose(turn)
            self.im = turned.im
            self._size = turned.size
            del self.tag_v2[tiff_layout.ORIENTATION]
