"""The red box that the model was trained to see: an outline on the upright picture, before it is fitted."""

from __future__ import annotations

from PIL import Image, ImageDraw

from joyedit.job.spec import Box

RED = (255, 0, 0)
SHARE = 200
"""The line is one part in so many of the longer side: 5 pixels of 1024."""
LEAST = 2
"""The thinnest line, in pixels."""


def with_red_box(image: Image.Image, box: Box) -> Image.Image:
    """A copy of an RGB picture with a red outline. `box` is in fractions; the line lies inside of it."""
    made = image.copy()
    width, height = made.size
    left, right = (min(width - 1, round(part * width)) for part in (box[0], box[2]))
    top, bottom = (min(height - 1, round(part * height)) for part in (box[1], box[3]))
    line = max(LEAST, round(max(width, height) / SHARE))
    ImageDraw.Draw(made).rectangle((left, top, max(left, right), max(top, bottom)), outline=RED, width=line)
    return made
