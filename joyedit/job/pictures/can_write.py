"""Which formats of pictures can be written here: AVIF and HEIC need encoders that not every installation has."""

from __future__ import annotations

import io
from functools import lru_cache

NEEDS: dict[str, str] = {
    "avif": "AVIF needs a Pillow of 11.3 or newer that was built with it: update Pillow, or take another format",
    "heic": 'HEIC needs an extra: pip install "joyedit[heif]", or take another format',
}
"""What to do where a format cannot be written."""


_FORMATS = {"AVIF": "avif", "HEIF": "heic"}


def lost_format(kind: str) -> str | None:
    """The note about a picture (`kind` is Pillow's name of it) whose format cannot be written here; None if it can."""
    format = _FORMATS.get(kind, "png")
    return None if can_write(format) else f"the picture is {format.upper()}, and nothing here writes that"


@lru_cache(maxsize=8)
def can_write(format: str) -> bool:
    """Whether joyedit can write pictures of this format. The first question about AVIF or HEIC encodes a tiny one."""
    if format not in NEEDS:
        return True
    from PIL import Image  # not at the top: `joyedit --help` does not need it

    from joyedit.job.pictures.heif_writer import write_avif, write_heic

    write = {"avif": write_avif, "heic": write_heic}[format]
    try:
        write(Image.new("RGB", (16, 16)), io.BytesIO(), quality=50)
    except Exception:  # a library without its encoder says so in ways of its own
        return False
    return True
