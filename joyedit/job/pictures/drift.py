"""How far a result was shifted and zoomed against its picture: measured at the size of the bucket, and undone.

The model may move a whole picture by some pixels or enlarge it a little. The measure follows Lucas and Kanade (1981),
from small pictures to large ones: Gauss-Newton steps on three numbers, with Tukey's weights, so that what the edit
changed does not count. Both pictures are brought to equal local contrast before, because an edit may change the light.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]

_LEVELS = (128, 256, 512)
"""The long sides in pixels of the pictures that are compared, one after the other."""
_STEPS = 12
_ENOUGH = 1e-3
"""A step that moves no corner by so many pixels is the last one of its level."""
_TUKEY = 4.685
_FIRM = 0.3
"""The least correlation of the two pictures behind the last step: what has less in common has no drift."""
_BETTER = 0.9
"""A drift is believed if the pictures differ, with it, by no more than this share of what they differ by without."""
_FLAT = 8
"""Levels of 255 that a picture has at least between its darkest and its brightest part, if anything shows a drift."""
MOST_SHIFT, MOST_ZOOM = 0.06, 0.08
"""Of the long side, and of 1: what is more than that is an edit, and no drift."""
SMALL_SHIFT = 0.1
"""A drift that moves no corner of the bucket by so many pixels is left as it is."""


class Drift(NamedTuple):
    """A point at (x, y) from the centre of the picture lies at (zoom * x + dx, zoom * y + dy) in the result.

    Pixels are those of the bucket.
    """

    dx: float
    dy: float
    zoom: float

    def as_record(self, scale: float) -> dict[str, float]:
        """What a record says: `dx` and `dy` in pixels of the picture. `scale`: pixels of the bucket for one of them."""
        return {"dx": round(self.dx / scale, 2), "dy": round(self.dy / scale, 2), "zoom": round(self.zoom, 5)}

    def reach(self, width: int, height: int) -> float:
        """The pixels by which the corner of a picture of this size is moved at most."""
        across = abs(self.dx) + abs(self.zoom - 1) * width / 2
        down = abs(self.dy) + abs(self.zoom - 1) * height / 2
        return float(np.hypot(across, down))


def measure_drift(edited: Image.Image, picture: Image.Image) -> Drift | None:
    """The drift of `edited` against `picture` (both RGB, of one size); None where they have too little in common."""
    if min(np.ptp(np.asarray(image.convert("L").resize((32, 32)))) for image in (edited, picture)) < _FLAT:
        return None
    zoom, dx, dy = 1.0, 0.0, 0.0  # shifts as shares of the long side
    long = max(picture.size)
    alike = 0.0
    for level in _LEVELS:
        if level > _LEVELS[0] and level > 1.5 * long:
            break
        scale = min(1.0, level / long)
        size = max(8, round(picture.width * scale)), max(8, round(picture.height * scale))
        fixed, moved = _features(picture, size), _features(edited, size)
        side = max(size)
        found = _refined(fixed, moved, np.array([zoom - 1, dx * side, dy * side]))
        if found is None:
            return None
        (grown, right, down), alike = found
        zoom, dx, dy = 1 + grown, right / side, down / side
        if abs(dx) > MOST_SHIFT or abs(dy) > MOST_SHIFT or abs(zoom - 1) > MOST_ZOOM:
            return None
    if alike < _FIRM:
        return None
    drift = Drift(dx * long, dy * long, zoom)
    return drift if _explains(drift, fixed, moved, scale) else Drift(0.0, 0.0, 1.0)


def without_drift(edited: Image.Image, drift: Drift) -> Image.Image:
    """`edited` (RGB) with its drift undone. What came in from outside repeats the edge."""
    width, height = edited.size
    pad = int(np.ceil(drift.reach(width, height))) + 2
    pixels = np.pad(np.asarray(edited), ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    way = _way(drift.zoom, drift.dx, drift.dy, width, height)
    way = (*way[:2], way[2] + pad, *way[3:5], way[5] + pad)
    return Image.fromarray(pixels).transform((width, height), Image.Transform.AFFINE, way, Image.Resampling.BICUBIC)


def _way(zoom: float, dx: float, dy: float, width: int, height: int) -> tuple[float, ...]:
    """Where Pillow finds each pixel of a picture without its drift; the centre is the fixed point of the zoom."""
    return zoom, 0.0, dx + (1 - zoom) * width / 2, 0.0, zoom, dy + (1 - zoom) * height / 2


def _features(image: Image.Image, size: tuple[int, int]) -> Array:
    """Brightness with equal local contrast, (H, W)."""
    grey = image.convert("L").resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(grey).astype(np.float32)
    centred = pixels - _blurred(pixels, 6)
    even: Array = centred / np.sqrt(np.maximum(_blurred(centred**2, 12), 0) + 16)
    return even


def _blurred(pixels: Array, radius: float) -> Array:
    """Pillow blurs no float pictures, but it scales them: a small one scaled up again is as smooth."""
    image = Image.fromarray(pixels)
    size = max(2, round(image.width / radius)), max(2, round(image.height / radius))
    small = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC), dtype=np.float32)


def _refined(fixed: Array, moved: Array, start: NDArray[np.float64]) -> tuple[tuple[float, float, float], float] | None:
    """The zoom less 1 and the shifts in pixels, from a start; and the correlation there."""
    height, width = fixed.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    inside = _inside(fixed)
    picture = Image.fromarray(moved)
    now = start.copy()
    for _ in range(_STEPS):
        warped = _warped(picture, now)
        down, right = np.gradient(warped)
        jacobian = np.stack([right * x + down * y, right, down], axis=-1)[inside].reshape(-1, 3)
        rest = (fixed - warped)[inside].ravel()
        spread = max(1.4826 * float(np.median(np.abs(rest))), 0.05)
        far = np.minimum(np.abs(rest) / (_TUKEY * spread), 1.0)
        weights = (1 - far**2) ** 2
        weighted = jacobian * weights[:, None]
        matrix = weighted.T.astype(np.float64) @ jacobian
        if np.linalg.cond(matrix) > 1e9:
            return None
        step = np.linalg.solve(matrix, weighted.T.astype(np.float64) @ rest)
        now += step
        if not np.isfinite(now).all() or abs(now[0]) > 0.5:
            return None
        if abs(step[0]) * max(height, width) / 2 + abs(step[1]) + abs(step[2]) < _ENOUGH:
            break
    one, other = fixed[inside].astype(np.float64), _warped(picture, now)[inside].astype(np.float64)
    alike = float((one * other).sum() / max(float(np.sqrt((one**2).sum() * (other**2).sum())), 1e-9))
    return (float(now[0]), float(now[1]), float(now[2])), alike


def _explains(drift: Drift, fixed: Array, moved: Array, scale: float) -> bool:
    """Whether the pictures agree clearly better with the drift than without: few and plain things fit in many ways."""
    picture = Image.fromarray(moved)
    inside = _inside(fixed)
    place = np.array([drift.zoom - 1, drift.dx * scale, drift.dy * scale])
    without, with_it = (np.abs(fixed - _warped(picture, at))[inside] for at in (np.zeros(3), place))
    spread = max(1.4826 * float(np.median(with_it)), 0.05)
    costs = [float((1 - (1 - np.minimum(rest / (_TUKEY * spread), 1) ** 2) ** 3).mean()) for rest in (with_it, without)]
    return costs[0] <= _BETTER * costs[1]


def _inside(pixels: Array) -> tuple[slice, slice]:
    """All but the edges, where things come in from outside."""
    down, across = (max(1, round(0.04 * side)) for side in pixels.shape)
    return slice(down, -down), slice(across, -across)


def _warped(picture: Image.Image, now: NDArray[np.float64]) -> Array:
    way = _way(1 + now[0], now[1], now[2], picture.width, picture.height)
    warped = picture.transform(picture.size, Image.Transform.AFFINE, way, Image.Resampling.BICUBIC)
    return np.asarray(warped, dtype=np.float32)
