"""An edited bucket -> the result as its picture went in: size, proportions, colours, alpha, metadata."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from PIL import Image

from joyedit.job.pictures.as_given import as_given
from joyedit.job.pictures.budget import PlainCaller, shared_budget
from joyedit.job.pictures.encode import Beside
from joyedit.job.pictures.fitted import taken_out
from joyedit.job.pictures.metadata import metadata_of
from joyedit.job.spec import RunConfig
from joyedit.runtime.protocol import ReadyItem

_WORKING = 16
"""Bytes for one pixel of a result: it is there in three forms at most while it is made, and as a file."""


class Result(NamedTuple):
    """A picture as it is written. `quality` is None where the encoder decides."""

    image: Image.Image
    beside: Beside
    quality: int | None = None
    notes: tuple[str, ...] = ()


@contextmanager
def given_back(image: Image.Image, ready: ReadyItem, format: str, config: RunConfig) -> Iterator[Result]:
    """The result of `ready`, of which the model made `image` (RGB, of the target's size).

    In the block the memory of a large result counts as that of a picture that is decoded. Raises ItemError.
    """
    sized, properties = ready.sized, ready.properties
    height, width = sized.result or (image.height, image.width)
    give_back = shared_budget().admit(ready.item.output, height * width * _WORKING, PlainCaller())
    try:
        result = taken_out(image, sized.shown, sized.result)
        if properties is None:
            yield Result(result, Beside(), config.quality)
            return
        box = sized.fits[-1].box if sized.fits else (0.0, 0.0, float(properties.size[1]), float(properties.size[0]))
        given = as_given(result, properties, box, format=format)
        notes = list(given.notes)
        metadata = metadata_of(properties, config.metadata, (height, width), notes)
        is_source_quality = config.quality is None and format == "jpg"
        yield Result(
            given.image,
            Beside(metadata, given.profile, properties.sampling if is_source_quality else None),
            properties.quality if is_source_quality else config.quality,
            tuple(notes),
        )
    finally:
        give_back()
