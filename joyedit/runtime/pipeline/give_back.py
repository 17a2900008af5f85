"""An edited bucket -> the result as its picture went in: size, proportions, colours, alpha, metadata."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.hashing import HashCache
from joyedit.job.pictures.as_given import as_given
from joyedit.job.pictures.budget import PlainCaller, shared_budget
from joyedit.job.pictures.can_write import lost_format
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.deep import DEEP_FORMATS, Deep, load_deep, with_own_values
from joyedit.job.pictures.drift import SMALL_SHIFT, measure_drift, without_drift
from joyedit.job.pictures.encode import Beside
from joyedit.job.pictures.fitted import taken_out
from joyedit.job.pictures.metadata import metadata_of
from joyedit.job.pictures.unedited import changed_mask, is_whole, mask_of_result, with_unedited
from joyedit.job.spec import RunConfig
from joyedit.runtime.protocol import ReadyItem

_RGB = 4
"""Bytes for one pixel of a picture that Pillow holds."""
_WORKING = 16
"""Bytes for one pixel of a result: it is there in three forms at most while it is made, and as a file."""

DriftRecord: TypeAlias = "dict[str, float] | None"


class Result(NamedTuple):
    """A picture as it is written. `quality` is None where the encoder decides.

    `deep` are its pixels where it has 16 bits, `drift` is how far the model moved it, as its record says that.
    """

    image: Image.Image
    beside: Beside
    quality: int | None = None
    deep: Deep | None = None
    notes: tuple[str, ...] = ()
    drift: DriftRecord = None


@contextmanager
def given_back(image: Image.Image, ready: ReadyItem, format: str, config: RunConfig) -> Iterator[Result]:
    """The result of `ready`, of which the model made `image` (RGB, of the target's size).

    In the block the memory of a large result counts as that of a picture that is decoded. Raises ItemError.
    """
    sized, properties = ready.sized, ready.properties
    height, width = sized.result or (image.height, image.width)
    is_compared = bool(sized.fits) and sized.fits[-1].bucket == sized.target
    # It is read before there is room for the result: who waits for room must hold none.
    is_deep = properties is not None and (properties.depth, properties.size) == (16, (height, width))
    is_deep = is_deep and format in DEEP_FORMATS
    original, own = _original(ready, config, is_deep) if config.keep_unedited and is_compared else (None, None)
    need = height * width * (_WORKING if own is None else 2 * _WORKING) + (
        0 if original is None else original.width * original.height * _RGB
    )
    give_back = shared_budget().admit(ready.item.output, need, PlainCaller(), work="making it takes")
    try:
        if properties is None or not sized.fits:
            yield Result(taken_out(image, sized.shown, sized.result), Beside(), config.quality)
            return
        fit = sized.fits[-1]
        drift = measure_drift(image, ready.pictures[-1]) if is_compared else None
        if config.register and drift is not None and drift.reach(image.width, image.height) > SMALL_SHIFT:
            image = without_drift(image, drift)
        result = taken_out(image, sized.shown, sized.result)
        mask = None if original is None else changed_mask(image, ready.pictures[-1])
        if original is not None and mask is not None:
            result = with_unedited(result, original, mask, fit, sized.shown)
        given = as_given(result, properties, fit.box, format=format)
        lost = lost_format(properties.kind) if config.format == "same" else None
        notes = [*given.notes, *([lost] if lost else [])]
        deep = None
        if own is not None and mask is not None and given.is_own and is_whole(fit, own.shape[:2]):
            deep = with_own_values(given.image, own, mask_of_result(mask, sized.shown, (height, width)))
            notes += [] if deep is None else ["kept: 16 bits outside the edit"]
        metadata = metadata_of(properties, config.metadata, (height, width), notes)
        is_source_quality = config.quality is None and format == "jpg"
        yield Result(
            given.image,
            Beside(metadata, given.profile, properties.sampling if is_source_quality else None),
            properties.quality if is_source_quality else config.quality,
            deep,
            tuple(notes),
            None if drift is None else drift.as_record(fit.scale),
        )
    finally:
        give_back()


def _original(ready: ReadyItem, config: RunConfig, is_deep: bool) -> tuple[Image.Image, Deep | None]:
    """The last reference once more, and its values if it has 16 bits. Raises ItemError if it is another one now."""
    path, seen = ready.item.images[-1], ready.seen[-1]
    own = load_deep(path, config.max_pixels) if is_deep else None
    picture = load_picture(path, config.max_pixels, HashCache())
    if picture.seen is None or picture.seen.sha256 != seen.sha256:
        raise ItemError("picture_changed", f"{path}: the file changed while it was edited")
    return picture.image, own
