"""What a result gets back from its picture besides the pixels: metadata, profile, grey, alpha, quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, TiffImagePlugin

from joyedit.job.pictures.alpha import StoredAlpha
from joyedit.job.pictures.deep import depth_of
from joyedit.job.pictures.iptc import iptc_of
from joyedit.job.pictures.jpeg_quality import quality_of
from joyedit.job.pictures.profiles import COLOUR_KEYS
from joyedit.job.pictures.tiff_layout import STRUCTURE
from joyedit.job.sizes import Size

_MOST_EXIF = 1 << 20
_MOST_XMP = 4 << 20
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureProperties:
    """The properties of a picture file. `size` is that of the upright picture.

    `kind` is Pillow's name of the format, `mode` that of its colours: "L", "RGB" or "CMYK". `colours` is what it says
    of them, with the keys of `COLOUR_KEYS`. `exif` is a TIFF structure without a head, `xmp` an XML text in UTF-8; both
    are as they were found, or empty; so is `iptc`, a block of IIM. `dpi` is (across, down). `quality` and
    `sampling` are those of a JPEG, `depth` are the bits of a sample in a PNG or TIFF.
    """

    kind: str
    size: Size
    mode: str
    colours: dict[str, Any]
    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None
    alpha: StoredAlpha | None = None
    quality: int | None = None
    sampling: int | None = None
    depth: int = 8


class PropertiesReader:
    """Reads the properties of an opened picture. What cannot be kept is a note; damaged metadata is left out."""

    def __init__(self, opened: ImageFile.ImageFile, notes: list[str]) -> None:
        """Before the picture is decoded: a reader of TIFF closes its file behind the pixels."""
        self._notes = notes
        self._is_tiff = isinstance(opened, TiffImagePlugin.TiffImageFile)
        self._exif = self._collected(opened) if self._is_tiff else b""
        self._xmp = _xmp(opened)
        self._iptc = iptc_of(opened, notes)
        self._dpi = _tiff_dpi(opened) if self._is_tiff else _dpi(opened)
        self._kind, self._mode = opened.format or "", opened.mode
        self._depth = depth_of(opened)

    def read(
        self, opened: ImageFile.ImageFile, colours: Mapping[Any, Any], size: Size, alpha: StoredAlpha | None
    ) -> PictureProperties:
        """The properties, when the picture is decoded: a PNG may say something behind the pixels.

        `colours` is what the file says of them, `size` that of the upright picture.
        """
        is_jpeg = isinstance(opened, JpegImagePlugin.JpegImageFile)
        tables = getattr(opened, "quantization", None) if is_jpeg else None
        sampling = JpegImagePlugin.get_sampling(opened) if is_jpeg and opened.mode in ("RGB", "YCbCr", "L") else -1
        return PictureProperties(
            kind=self._kind,
            size=size,
            mode="L" if self._mode in _GREY_MODES else "CMYK" if self._mode == "CMYK" else "RGB",
            colours={key: value for key, value in colours.items() if key in COLOUR_KEYS},
            exif=self._exif if self._is_tiff else self._held(opened),
            xmp=_xmp(opened) or self._xmp,
            iptc=self._iptc,
            dpi=self._dpi if self._is_tiff else _dpi(opened),
            alpha=alpha,
            quality=quality_of(tables),
            sampling=sampling if sampling >= 0 else None,
            depth=self._depth,
        )

    def _held(self, opened: ImageFile.ImageFile) -> bytes:
        held = opened.info.get("exif")
        if not isinstance(held, bytes):
            is_raw_profile = isinstance(opened.info.get("Raw profile type exif"), (str, bytes))
            held = self._collected(opened) if is_raw_profile else b""
        held = held[6:] if held[:6] == b"Exif\0\0" else held
        return held if len(held) <= _MOST_EXIF else b""

    def _collected(self, opened: Image.Image) -> bytes:
        """What the tags of a TIFF say of the picture itself, as EXIF; empty if they are damaged."""
        try:
            held = exif_of_tags(opened).tobytes()
        except Exception:  # Pillow's reader raises nearly anything for damaged tags
            self._notes.append("damaged EXIF left out")
            return b""
        return held[6:] if len(held) <= _MOST_EXIF else b""


def exif_of_tags(opened: Image.Image) -> Image.Exif:
    """What the tags of a picture say of itself, and not of the layout of its file. Raises nearly anything."""
    found, made = opened.getexif(), Image.Exif()
    for tag, value in found.items():
        if tag not in STRUCTURE:
            made[tag] = value
    for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        tags = {tag: value for tag, value in found.get_ifd(ifd).items() if tag != ExifTags.IFD.Interop}
        made.get_ifd(ifd).update(tags)
    return made


def _xmp(opened: ImageFile.ImageFile) -> bytes:
    held = opened.info.get("xmp")
    if held is None:
        held = opened.info.get("XML:com.adobe.xmp")
    if isinstance(held, str):
        held = held.encode("utf-8", "replace")
    return held if isinstance(held, bytes) and len(held) <= _MOST_XMP else b""


def _tiff_dpi(opened: ImageFile.ImageFile) -> tuple[float, float] | None:
    try:
        tags = opened.getexif()
        unit = {2: 1.0, 3: 2.54}.get(tags.get(296, 2))
        return None if unit is None else _plausible((float(tags[282]) * unit, float(tags[283]) * unit))
    except Exception:  # Pillow's reader raises nearly anything for damaged tags
        return None


def _dpi(opened: ImageFile.ImageFile) -> tuple[float, float] | None:
    held = opened.info.get("dpi")
    if isinstance(opened, JpegImagePlugin.JpegImageFile) and held == (72, 72) and not opened.info.get("jfif_unit"):
        return None  # Pillow says so of a JPEG that says nothing
    try:
        across, down = (float(value) for value in held)  # type: ignore[union-attr]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return _plausible((across, down))


def _plausible(dpi: tuple[float, float]) -> tuple[float, float] | None:
    return dpi if all(1 < value < 30_000 for value in dpi) else None
