"""What joyedit embeds in its pictures, read back."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import ExifTags, Image, PngImagePlugin


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata that `save_picture` embedded in the file; empty if there is none."""
    with Image.open(path) as image:
        if isinstance(image, PngImagePlugin.PngImageFile):
            return {key: str(value) for key, value in image.text.items()}
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if not isinstance(comment, bytes):
        return {}
    read = json.loads(comment.removeprefix(b"ASCII\0\0\0"))
    assert isinstance(read, dict)
    return read
