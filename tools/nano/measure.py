"""Whether an edit happened, told from the output's pixels by geometry and colour, and what it left alone.

No network judges here. The scene data says where to look and what would be seen there; an object is segmented
by the colour that the instruction names, against the background that would be there without it, and its
outline is compared with outlines that the same segmentation finds in clean drawings. So confusions of the
segmentation itself (a window in a white house, a dark shadow) stand on both sides and cancel out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from nano import scenes
from nano.colours import PALETTE, nearest_colour, nearest_ground, to_lab
from nano.edits import EditPair
from nano.scenes import Mask, Scene, Thing
from nano.things import KINDS

Pixels = npt.NDArray[np.float32]

PSNR_CAP = 60.0

# The figures below were read off 60 pairs a kind: "smeared" is a blur of radius 2 with noise of sigma 6.
#
# The outline of a smeared true target agrees with the clean one by 0.66 at least and 0.95 in the median.
SAME_SHAPE = 0.6
# An outline that is off by a fifth of its width agrees by 0.48 in the median, one that is off by a third by
# 0.36. Another kind in the same place can agree by 0.9 (circle and hexagon), hence the comparison of all
# kinds beside it.
SAME_PLACE = 0.5
# Uncovered background may be this wrong on average (8-bit levels). A smeared true target has 6 at most, the
# faintest object on its background makes 32.
LEFT_OVER = 14.0
# ... and no more than this share of the error that the object's being there makes.
LEFT_SHARE = 0.4
# A shadow left behind makes an error of 18 in the median, but 5 on the darkest background, where nobody sees
# it.
LEFT_SHADOW = 8.0
LEFT_SHADOW_SHARE = 0.6
# An area may be off by this share; 1.5 and 0.6 in length are 2.25 and 0.36 in area, far away from 1.
AREA_SLACK = 0.25
# Mean (max - min) over the channels after averaging 4 x 4 pixels: a smeared true target has 2.6, the palest
# source 47.
GREY_CHROMA = 8.0
# The same at the 98th percentile, where one small object that kept its colour shows: 6 against 60.
GREY_CHROMA_MOST = 24.0
# Mean error of the luminance of the same picture in grey: a smeared true target has 2.6.
GREY_LUMA = 14.0
# Light and dark must lie where they were: correlation over the picture, asked for where there is contrast at
# all.
GREY_STRUCTURE = 0.7
GREY_CONTRAST = 3.0
# No palette colour is nearer to another than 33 in CIELAB, so that what is farther than this from all of them
# is something else: a wheel, a roof.
OFF_COLOUR = 45.0


@dataclass(frozen=True)
class Measured:
    """`happened` is the verdict; `psnr_unchanged` is in dB, at most 60, over what should not change.

    For greyscale every pixel changes, but none its luminance: there it is the PSNR of the luminance. `detail`
    holds the numbers behind the verdict, and each condition by name.
    """

    happened: bool
    psnr_unchanged: float
    detail: dict[str, float | bool | str]


def measure(pair: EditPair, output: Image.Image) -> Measured:
    """Judge an output of the source's size. Raises ValueError for another size."""
    wanted = (pair.source.width, pair.source.height)
    if output.size != wanted:
        raise ValueError(f"the output is {output.size[0]} x {output.size[1]}, the scene {wanted[0]} x {wanted[1]}")
    pixels = np.asarray(output.convert("RGB"))
    conditions, detail = _JUDGES[pair.kind](pair, pixels)
    happened = all(conditions.values())
    return Measured(happened, psnr_unchanged(pair, output), {**detail, **conditions})


def psnr_unchanged(pair: EditPair, output: Image.Image) -> float:
    """PSNR in dB, at most 60, against the target over the pixels that the edit leaves alone."""
    if pair.kind == "greyscale":
        error = _array(output.convert("L")) - _array(pair.target_image.convert("L"))
    else:
        error = (_array(output.convert("RGB")) - _array(pair.target_image))[pair.unchanged]
    mean = float(np.mean(np.square(error))) if error.size else 0.0
    return PSNR_CAP if mean <= 0.0 else min(PSNR_CAP, 10.0 * math.log10(255.0**2 / mean))


# --- segmentation

Rectangle = tuple[slice, slice]


def _array(picture: Image.Image) -> Pixels:
    return np.asarray(picture, dtype=np.float32)


def _window(scene: Scene, thing: Thing, grow: float = 1.25) -> Rectangle:
    """The rows and columns around an object, with a border in which it may stick out."""
    half = math.ceil(thing.size * grow / 2)
    rows = slice(max(0, thing.cy - half), min(scene.height, thing.cy + half))
    return rows, slice(max(0, thing.cx - half), min(scene.width, thing.cx + half))


def _segment(pixels: npt.NDArray[np.uint8], ground: npt.NDArray[np.uint8], colour: str) -> Mask:
    """True where a pixel looks more like the named colour than like the background there, shaded or not.

    The border lies half way, where an antialiased edge has its middle. What is far from the colour as well (a
    wheel, a roof) is not counted.
    """
    lab = to_lab(pixels)
    to_colour = np.linalg.norm(lab - to_lab(PALETTE[colour]), axis=-1)
    lit = to_lab(ground)
    to_ground = np.linalg.norm(lab - lit, axis=-1)
    # The same ground in full shadow.
    dim = to_lab((ground * np.float32(0.74)).astype(np.uint8))
    to_shadow = np.linalg.norm(lab - dim, axis=-1)
    seen: Mask = (to_colour < to_ground) & (to_colour < to_shadow) & (to_colour < OFF_COLOUR)
    return seen


def _iou(a: Mask, b: Mask) -> float:
    union = int(np.count_nonzero(a | b))
    return float(np.count_nonzero(a & b)) / union if union else 0.0


@functools.lru_cache(maxsize=8)
def _ground(scene: Scene) -> npt.NDArray[np.uint8]:
    return np.asarray(scenes.render_background(scene))


def _drawn(scene: Scene, thing: Thing, window: Rectangle) -> Mask:
    """What the segmentation finds in a clean drawing of the object alone on the scene's background."""
    alone = scenes.render(replace(scene, objects=(thing,), box=None, grey=False))
    return _segment(np.asarray(alone)[window], _ground(scene)[window], thing.colour)


def _shape_scores(pair: EditPair, pixels: npt.NDArray[np.uint8], thing: Thing) -> dict[str, float]:
    """IoU of what is seen around `thing` in its colour with each kind that could stand there."""
    window = _window(pair.target, thing)
    seen = _segment(pixels[window], _ground(pair.target)[window], thing.colour)
    return {kind: _iou(seen, _drawn(pair.target, replace(thing, kind=kind), window)) for kind in KINDS}


def _seen_iou(pair: EditPair, pixels: npt.NDArray[np.uint8], thing: Thing) -> float:
    window = _window(pair.target, thing)
    seen = _segment(pixels[window], _ground(pair.target)[window], thing.colour)
    return _iou(seen, _drawn(pair.target, thing, window))


def _shrink(mask: Mask, by: int) -> Mask:
    """The mask without its rim, or the whole of it where nothing else would be left."""
    inner = scenes.grow(mask, -by)
    return inner if np.count_nonzero(inner) >= 24 else mask


def _main_colour(scene: Scene, index: int, pixels: npt.NDArray[np.uint8]) -> str:
    """The name of the median colour where object `index` would show its main one."""
    inner = _shrink(scenes.main_mask(scene, index), 2)
    return nearest_colour(np.median(pixels[inner].astype(np.float32), axis=0))


def _error(pixels: npt.NDArray[np.uint8], wanted: Image.Image, mask: Mask) -> float:
    """Mean absolute error in 8-bit levels over the mask; 0 where it is empty."""
    difference = np.abs(pixels[mask].astype(np.float32) - _array(wanted)[mask])
    return float(difference.mean()) if difference.size else 0.0


def _cleared(pair: EditPair, pixels: npt.NDArray[np.uint8], mask: Mask) -> tuple[bool, float]:
    """Whether the mask shows the target and not the source, and the mean error there."""
    error = _error(pixels, pair.target_image, mask)
    was = _error(np.asarray(pair.source_image), pair.target_image, mask)
    return error <= LEFT_OVER and error <= LEFT_SHARE * was, error


# --- one judge for each kind of edit

Verdict = tuple[dict[str, bool], dict[str, float | bool | str]]


def _result(pair: EditPair) -> Thing:
    assert pair.result is not None, "this kind of edit ends with an object"
    return pair.target.objects[pair.result]


def _subject_index(pair: EditPair) -> int:
    assert pair.subject is not None, "this kind of edit starts from an object"
    return pair.subject


def _recolour(pair: EditPair, pixels: npt.NDArray[np.uint8]) -> Verdict:
    """The main colour is nearest to the wanted name, and the outline is still the object's."""
    thing = _result(pair)
    colour = _main_colour(pair.target, _subject_index(pair), pixels)
    iou = _seen_iou(pair, pixels, thing)
    return {"colour_right": colour == thing.colour, "shape_kept": iou >= SAME_SHAPE}, {
        "colour": colour,
        "iou": iou,
    }


def _background(pair: EditPair, pixels: npt.NDArray[np.uint8]) -> Verdict:
    """The background has the wanted colour in the median and everywhere; every object kept its own."""
    ground = _shrink(scenes.background_mask(pair.target), 3)
    colour = nearest_ground(np.median(pixels[ground].astype(np.float32), axis=0))
    was = _error(np.asarray(pair.source_image), pair.target_image, ground)
    error = _error(pixels, pair.target_image, ground)
    colours = [_main_colour(pair.target, index, pixels) for index in range(len(pair.target.objects))]
    kept = [found == thing.colour for found, thing in zip(colours, pair.target.objects, strict=True)]
    conditions = {
        "colour_right": colour == pair.wanted,
        # Half way to the target still is another picture; a wrong pattern phase alone stays below this.
        "all_over": error <= max(0.5 * was, LEFT_OVER),
        "objects_kept": all(kept),
    }
    return conditions, {"colour": colour, "error": error, "kept": float(sum(kept))}


def _remove(pair: EditPair, pixels: npt.NDArray[np.uint8]) -> Verdict:
    """Where the object stood there is background, and where its shadow lay too."""
    index = _subject_index(pair)
    body = scenes.object_mask(pair.source, index)
    gone, error = _cleared(pair, pixels, body)
    shadow = scenes.shadow_mask(pair.source, index) & ~body
    dark = _error(pixels, pair.target_image, shadow)
    was = _error(np.asarray(pair.source_image), pair.target_image, shadow)
    no_shadow = dark <= max(LEFT_SHADOW, LEFT_SHADOW_SHARE * was)
    return {"gone": gone, "no_shadow": no_shadow}, {"error": error, "shadow_error": dark}


def _best(scores: dict[str, float]) -> str:
    return max(scores, key=lambda kind: scores[kind])


def _add(pair: EditPair, pixels: npt.NDArray[np.uint8]) -> Verdict:
    """An object of the colour stands at the place, and no other kind fits its outline better."""
    thing = _result(pair)
    assert pair.result is not None
    scores = _shape_scores(pair, pixels, thing)
    best, iou = _best(scores), scores[thing.kind]
    colour = _main_colour(pair.target, pair.result, pixels)
    conditions = {
        "there": iou >= SAME_PLACE,
        "kind_right": best == thing.kind,
        "colour_right": colour == thing.colour,
    }
    return conditions, {"iou": iou, "best": best, "colour": colour}


def _shape(pair: EditPair, pixels: npt.NDArray[np.uint8]) -> Verdict:
    """The outline at the object's place fits the wanted kind best of all, in the object's own colour."""
    return _add(pair, pixels)


def _resize(pair: EditPair, pixels: npt.NDArray[np.uint8]) -> Verdict:
    """The area has changed as wanted, within a quarter, around the same centre."""
    old, new = pair.source.objects[_subject_index(pair)], _result(pair)
    window = _window(pair.target, max(old, new, key=lambda thing: thing.size))
    ground = _ground(pair.target)[window]
    seen = _segment(pixels[window], ground, new.colour)
    before, wanted = (_drawn(pair.target, thing, window) for thing in (old, new))
    area, area_before, area_wanted = (float(np.count_nonzero(mask)) for mask in (seen, before, wanted))
    iou = _iou(seen, wanted)
    conditions = {
        "direction": area > area_before if pair.wanted == "bigger" else area < area_before,
        "area_right": abs(area / max(area_wanted, 1.0) - 1.0) <= AREA_SLACK,
        "in_place": iou >= SAME_SHAPE,
    }
    return conditions, {"area": area, "area_wanted": area_wanted, "iou": iou}


def _move(pair: EditPair, pixels: npt.NDArray[np.uint8]) -> Verdict:
    """The object stands where the box was; its old place and the box's outline are background."""
    thing = _result(pair)
    iou = _seen_iou(pair, pixels, thing)
    gone, error = _cleared(pair, pixels, scenes.object_mask(pair.source, _subject_index(pair)))
    outline = scenes.box_mask(pair.source)
    no_box, box_error = _cleared(pair, pixels, outline)
    conditions = {"there": iou >= SAME_PLACE, "gone": gone, "no_box": no_box}
    return conditions, {"iou": iou, "error": error, "box_error": box_error}


def _greyscale(pair: EditPair, pixels: npt.NDArray[np.uint8]) -> Verdict:
    """No colour is left, and light and dark are where they were."""
    # Averages over 4 x 4 pixels take out noise, which has colour but is not seen as one.
    small = _array(Image.fromarray(pixels).reduce(4))
    chroma = small.max(axis=-1) - small.min(axis=-1)
    mean, most = float(chroma.mean()), float(np.percentile(chroma, 98))
    luma, wanted = small.mean(axis=-1), _array(pair.target_image.reduce(4)).mean(axis=-1)
    error = float(np.abs(luma - wanted).mean())
    spread = float(luma.std() * wanted.std())
    together = float(((luma - luma.mean()) * (wanted - wanted.mean())).mean())
    structure = together / spread if spread > 0.0 else 0.0
    conditions = {
        "no_colour": mean <= GREY_CHROMA,
        "nowhere": most <= GREY_CHROMA_MOST,
        "luminance_kept": error <= GREY_LUMA,
        "structure_kept": structure >= GREY_STRUCTURE or float(wanted.std()) < GREY_CONTRAST,
    }
    return conditions, {"chroma": mean, "chroma_most": most, "luma_error": error, "structure": structure}


_JUDGES: dict[str, Callable[[EditPair, npt.NDArray[np.uint8]], Verdict]] = {
    "recolour": _recolour,
    "background": _background,
    "remove": _remove,
    "add": _add,
    "shape": _shape,
    "resize": _resize,
    "move": _move,
    "greyscale": _greyscale,
}
