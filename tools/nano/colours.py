"""The named colours, the two tones each of them has as a background, and distances between them.

Ten names are all that an instruction can say about a colour. Object colours lie at least 30 apart in CIELAB,
so that a blurred, noisy output still has one nearest name; backgrounds use paler pairs, so that an object
stands out.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

RGB = tuple[int, int, int]

PALETTE: dict[str, RGB] = {
    "red": (218, 44, 50),
    "orange": (246, 136, 28),
    "yellow": (253, 214, 48),
    "green": (52, 156, 78),
    "blue": (40, 104, 206),
    "purple": (128, 62, 170),
    "pink": (247, 142, 186),
    "brown": (124, 78, 44),
    "white": (250, 250, 248),
    "black": (40, 40, 46),
}

# (lighter, darker) tone of a background with that name.
TONES: dict[str, tuple[RGB, RGB]] = {
    "red": ((238, 112, 104), (226, 88, 84)),
    "orange": ((253, 192, 122), (248, 172, 92)),
    "yellow": ((255, 240, 168), (252, 227, 128)),
    "green": ((182, 224, 166), (152, 206, 142)),
    "blue": ((168, 210, 246), (134, 187, 236)),
    "purple": ((208, 180, 236), (186, 152, 222)),
    "pink": ((252, 212, 226), (246, 186, 210)),
    "brown": ((202, 168, 130), (182, 146, 108)),
    "white": ((252, 252, 250), (230, 232, 236)),
    "black": ((84, 86, 98), (66, 68, 78)),
}

COLOURS: tuple[str, ...] = tuple(PALETTE)

# Below this CIELAB distance an object is hard to tell from a background tone (white on pale pink, pink on
# red).
DISTINCT = 27.0


def to_lab(rgb: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """CIELAB (D65) of 8-bit sRGB values, (..., 3) -> (..., 3); distances are roughly what an eye sees."""
    values = np.asarray(rgb)
    if values.dtype == np.uint8:
        linear = _linear_table()[values]
    else:
        linear = _linear(np.clip(values.astype(np.float32), 0.0, 255.0))
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ],
        dtype=np.float32,
    ) / np.array([[0.95047], [1.0], [1.08883]], dtype=np.float32)
    xyz = linear @ to_xyz.T
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1).astype(np.float32)


def _linear(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit = values / np.float32(255.0)
    curve: npt.NDArray[np.float32] = np.where(unit > 0.04045, ((unit + 0.055) / 1.055) ** 2.4, unit / 12.92)
    return curve.astype(np.float32)


@functools.lru_cache(maxsize=1)
def _linear_table() -> npt.NDArray[np.float32]:
    return _linear(np.arange(256, dtype=np.float32))


def distance(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """CIELAB distance of two 8-bit sRGB colours."""
    return float(np.linalg.norm(to_lab(a) - to_lab(b)))


@functools.lru_cache(maxsize=1)
def _stands_out() -> frozenset[tuple[str, str]]:
    return frozenset(
        (name, ground)
        for name in COLOURS
        for ground in COLOURS
        if name != ground and min(distance(PALETTE[name], tone) for tone in TONES[ground]) >= DISTINCT
    )


def stands_out(name: str, ground: str) -> bool:
    """True where an object of colour `name` is well seen on a background of colour `ground`."""
    return (name, ground) in _stands_out()


def nearest_colour(rgb: npt.ArrayLike) -> str:
    """The name of the object colour that is nearest to an 8-bit sRGB value."""
    table = to_lab(np.array([PALETTE[name] for name in COLOURS], dtype=np.uint8))
    return COLOURS[int(np.argmin(np.linalg.norm(table - to_lab(rgb), axis=-1)))]


def nearest_ground(rgb: npt.ArrayLike) -> str:
    """The name of the background colour whose tones, or a blend of the two, are nearest to an sRGB value."""
    steps = np.linspace(0.0, 1.0, 5, dtype=np.float32)[:, None]
    blends = np.stack([(1.0 - steps) * np.array(TONES[name][0]) + steps * np.array(TONES[name][1]) for name in COLOURS])
    return COLOURS[int(np.argmin(np.linalg.norm(to_lab(blends) - to_lab(rgb), axis=-1).min(axis=1)))]
