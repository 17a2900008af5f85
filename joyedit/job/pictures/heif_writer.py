"""Pictures -> AVIF (by Pillow) and HEIC (by pillow-heif, an extra of joyedit)."""

from __future__ import annotations

from typing import Any, BinaryIO

from PIL import Image


def write_avif(
    image: Image.Image, file: BinaryIO, *, quality: int, exif: bytes = b"", xmp: bytes = b"", profile: bytes = b""
) -> None:
    """Write `image` (RGB or RGBA) as AVIF. `exif` has no orientation, else Pillow would write it anew.

    Raises OSError where there is no encoder, or where it fails.
    """
    more: dict[str, Any] = {"exif": exif} if exif else {}
    more |= {"xmp": xmp} if xmp else {}
    try:
        image.save(file, "AVIF", quality=quality, icc_profile=profile or None, **more)
    except (KeyError, ValueError) as error:  # a Pillow without AVIF
        raise OSError(f"this Pillow writes no AVIF: {error}") from error


def write_heic(
    image: Image.Image, file: BinaryIO, *, quality: int, exif: bytes = b"", xmp: bytes = b"", profile: bytes = b""
) -> None:
    """Write `image` (RGB or RGBA) as HEIC. Raises OSError where there is no encoder, or where it fails."""
    try:
        from pillow_heif import from_bytes
    except ImportError as error:
        raise OSError(str(error)) from error
    # Not by way of Pillow: for that pillow-heif would register itself with Pillow, for the whole process.
    picture = from_bytes(image.mode, image.size, image.tobytes())
    if profile:
        picture.info["icc_profile"] = profile
        picture.info["icc_profile_type"] = "prof"
    try:
        picture.save(file, quality=quality, exif=exif or None, xmp=xmp or None)
    except (RuntimeError, ValueError) as error:
        raise OSError(f"pillow-heif cannot write this picture: {error}") from error
