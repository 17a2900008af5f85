"""An edited bucket -> the result as its picture went in: size, proportions, colours, alpha, metadata."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageChops

from joyedit.errors import ItemError
from joyedit.job.data_picture import Reference
from joyedit.job.fit import Fit, PixelBox, parse_size
from joyedit.job.hashing import HashCache
from joyedit.job.pictures.as_given import as_given
from joyedit.job.pictures.budget import PlainCaller, shared_budget
from joyedit.job.pictures.can_write import lost_format
from joyedit.job.pictures.decode import Picture, load_picture
from joyedit.job.pictures.deep import DEEP_FORMATS, Deep, load_deep, with_own_values
from joyedit.job.pictures.drift import SMALL_SHIFT, measure_drift, without_drift
from joyedit.job.pictures.encode import Beside
from joyedit.job.pictures.fitted import is_whole, taken_out
from joyedit.job.pictures.masked import Masked, mask_in, mask_of, with_mask, with_own_pixels
from joyedit.job.pictures.metadata import metadata_of
from joyedit.job.pictures.unedited import changed_mask, mask_of_result, with_unedited
from joyedit.job.run_config import RunConfig
from joyedit.job.sizes import Size
from joyedit.job.spec import Seen
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
    # These are read before there is room for the result: who waits for room must hold none.
    keeps_unedited = config.keep_unedited and is_compared
    is_kept = (keeps_unedited or ready.mask is not None) and format in DEEP_FORMATS
    own = _own_values(ready, (height, width), config) if is_kept else None
    masked = _masked(ready, config)
    original = None if masked is None else masked.picture.image
    if original is None and keeps_unedited:
        original = _original(ready, config).image
    need = height * width * (_WORKING if own is None else 2 * _WORKING) + _held(original, masked)
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
        mask = None
        if original is not None and keeps_unedited:
            mask = changed_mask(image, ready.pictures[-1])
            result = with_unedited(result, original, mask, fit, sized.shown)
        if masked is not None:
            is_bucket = parse_size(ready.item.result_size).kind == "bucket"
            result = with_mask(result, masked, fit, sized.shown, is_bucket=is_bucket)
        given = as_given(result, properties, fit.box, format=format, placed=(fit, sized.shown))
        if masked is not None:
            given = given._replace(image=with_own_pixels(given, masked, fit, sized.shown))
        lost = lost_format(properties.kind) if config.format == "same" else None
        notes = [*given.notes, *([lost] if lost else [])]
        deep = None
        if own is not None and given.is_own and is_whole(fit, sized.shown):
            deep = with_own_values(given.image, own, _edited(mask, masked, fit, sized.shown, (height, width)))
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


def _original(ready: ReadyItem, config: RunConfig, *, keeps_own: bool = False) -> Picture:
    """The last reference once more. Raises ItemError if it is another one now."""
    path = ready.item.images[-1]
    picture = load_picture(path, config.max_pixels, HashCache(), keeps_own=keeps_own)
    _refuse_changed(path, picture, ready.seen[-1])
    return picture


def _own_values(ready: ReadyItem, size: Size, config: RunConfig) -> Deep | None:
    """The values of the last reference, if it has 16 bits and the result's size. Whoever reads it next refuses another
    file.
    """
    properties = ready.properties
    if properties is None or (properties.depth, properties.size) != (16, size):
        return None
    return load_deep(ready.item.images[-1], config.max_pixels)


def _masked(ready: ReadyItem, config: RunConfig) -> Masked | None:
    """The picture and its mask once more, where there is one. Errors as in `_original`."""
    path = ready.item.mask
    if path is None or ready.mask is None:
        return None
    read = load_picture(path, config.max_pixels, HashCache(), follows_profile=False)
    _refuse_changed(path, read, ready.mask.seen)
    mask = mask_of(read)
    return Masked(_original(ready, config, keeps_own=True), mask)


def _edited(
    changed: Image.Image | None, masked: Masked | None, fit: Fit, shown: PixelBox | None, size: Size
) -> Image.Image:
    """Where a result of `size` is not all the picture's own (L): 0 where it is.

    `changed` (of the bucket's size) is what the edit changed, None if that was not asked for.
    """
    found = Image.new("L", (size[1], size[0]), 255) if changed is None else mask_of_result(changed, shown, size)
    if masked is None:
        return found
    # The result has the mask's greys already; only what they leave alone is taken from the file.
    kept = mask_in(masked.mask, fit, shown, size).point([0] + [255] * 255)
    return ImageChops.darker(found, kept)


def _refuse_changed(path: Reference, picture: Picture, seen: Seen) -> None:
    if picture.seen is None or picture.seen.sha256 != seen.sha256:
        raise ItemError("picture_changed", f"{path}: the file changed while it was edited")


def _held(original: Image.Image | None, masked: Masked | None) -> int:
    """The bytes of the pictures that are held beside the result."""
    held = 0 if original is None else original.width * original.height * _RGB
    if masked is not None:
        held += masked.mask.width * masked.mask.height + (0 if masked.picture.own is None else held)
    return held
