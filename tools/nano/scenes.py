"""Scenes as data, and how they become pictures and exact masks.

A `Scene` says everything about its picture, so that an edit is a change of data and the true result of an
edit is one more rendering. Drawing is antialiased by supersampling each object alone and keeping it: the
source and the target of an edit share most objects, and the picture they share costs nothing twice.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from nano.colours import COLOURS, PALETTE, RGB, TONES, stands_out
from nano.things import DRAWINGS, KINDS, Inks, Paint, Pen

Mask = npt.NDArray[np.bool_]

# (height, width) of the training pictures: buckets of the 256-pixel base, so that none is resized or cropped.
SIZES: tuple[tuple[int, int], ...] = (
    (256, 256),
    (224, 288),
    (288, 224),
    (208, 304),
    (304, 208),
    (192, 320),
    (320, 192),
)

PATTERNS: tuple[str, ...] = ("plain", "gradient", "stripes", "dots", "checks", "noise")
VARIANTS = 16  # how many versions of each pattern there are

# Sides of the squares that objects fill, as shares of the square root of the picture's area.
SIZE_CLASSES: dict[str, tuple[float, float]] = {
    "small": (0.19, 0.23),
    "medium": (0.26, 0.31),
    "large": (0.35, 0.41),
}

BOX_RED: RGB = (255, 0, 0)
BOX_STROKE = 4

_SUPERSAMPLING = 4
_SHADOW_PAINT: RGB = (24, 24, 48)
_SHADOW_DEPTH = 0.30
_MARGIN = 0.035  # free room at the picture's edge and between objects, as a share of the base


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object: it fills the square of even side `size` around pixel (cy, cx)."""

    kind: str
    colour: str
    cy: int
    cx: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"

    @property
    def square(self) -> Square:
        return Square(cy=self.cy, cx=self.cx, size=self.size)


@dataclass(frozen=True, kw_only=True)
class Square:
    """A square of side `size` around (cy, cx), in pixels."""

    cy: int
    cx: int
    size: int

    def clear_of(self, other: Square, gap: float) -> bool:
        """True where at least `gap` pixels lie between the two, along one axis."""
        reach = (self.size + other.size) / 2 + gap
        return abs(self.cy - other.cy) >= reach or abs(self.cx - other.cx) >= reach

    def inside(self, height: int, width: int, margin: float) -> bool:
        half = self.size / 2 + margin
        return half <= self.cy <= height - half and half <= self.cx <= width - half


@dataclass(frozen=True, kw_only=True)
class Background:
    """A named colour in one of the patterns; `variant` picks the pattern's period, angle and phase."""

    colour: str
    pattern: str
    variant: int


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle's outer edge, pixels [y0, y1) x [x0, x1), drawn as a red outline."""

    y0: int
    x0: int
    y1: int
    x1: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture as data. Objects stand in drawing order; no two have the same kind."""

    height: int
    width: int
    background: Background
    objects: tuple[Thing, ...] = ()
    box: Box | None = None
    grey: bool = False

    def __post_init__(self) -> None:
        if self.height % 16 or self.width % 16 or min(self.height, self.width) < 64:
            raise ValueError(f"a scene's sides are multiples of 16, at least 64, not {self.height} x {self.width}")
        kinds = [thing.kind for thing in self.objects]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"each kind may occur once in a scene, not {kinds}")

    @property
    def base(self) -> float:
        """The side of a square picture of the same area; sizes are shares of it."""
        return math.sqrt(self.height * self.width)


# --- drawing


def render(scene: Scene) -> Image.Image:
    """The scene as an RGB picture."""
    picture = render_background(scene)
    for thing in scene.objects:
        sprite = _sprite(thing.kind, thing.colour, thing.size)
        half = thing.size // 2
        y, x = thing.cy - half, thing.cx - half
        picture.paste(_SHADOW_PAINT, (x + sprite.shadow_x, y + sprite.shadow_y), sprite.shadow)
        picture.paste(sprite.colour, (x, y), sprite.alpha)
    if scene.box is not None:
        box = scene.box
        ImageDraw.Draw(picture).rectangle((box.x0, box.y0, box.x1 - 1, box.y1 - 1), outline=BOX_RED, width=BOX_STROKE)
    return picture.convert("L").convert("RGB") if scene.grey else picture


def render_background(scene: Scene) -> Image.Image:
    """The scene's background alone, always in colour."""
    size = (scene.width, scene.height)
    ground = scene.background
    light, dark = TONES[ground.colour]
    if ground.pattern == "plain":
        return Image.new("RGB", size, _mix(light, dark, 0.5))
    weight = _pattern(scene.height, scene.width, ground.pattern, ground.variant)
    picture = Image.new("RGB", size, light)
    picture.paste(dark, None, weight)
    return picture


def object_mask(scene: Scene, index: int) -> Mask:
    """(H, W) True where object `index` covers at least half of the pixel; without its shadow."""
    thing = scene.objects[index]
    return _stamp(scene, thing, _sprite(thing.kind, thing.colour, thing.size).alpha)


def main_mask(scene: Scene, index: int) -> Mask:
    """(H, W) True where object `index` shows its main colour, the one that names it."""
    thing = scene.objects[index]
    return _stamp(scene, thing, _main_alpha(thing.kind, thing.size))


def shadow_mask(scene: Scene, index: int) -> Mask:
    """(H, W) True where the shadow of object `index` falls, also underneath the object."""
    thing = scene.objects[index]
    sprite = _sprite(thing.kind, thing.colour, thing.size)
    return _stamp(scene, thing, sprite.shadow, threshold=2, offset=(sprite.shadow_y, sprite.shadow_x))


def background_mask(scene: Scene) -> Mask:
    """(H, W) True where neither an object nor the box covers the pixel; shadows count as background."""
    covered = box_mask(scene)
    for index in range(len(scene.objects)):
        covered |= object_mask(scene, index)
    return ~covered


def box_mask(scene: Scene) -> Mask:
    """(H, W) True on the outline of the scene's red box; all False where it has none."""
    mask = np.zeros((scene.height, scene.width), dtype=np.bool_)
    if scene.box is not None:
        box = scene.box
        mask[box.y0 : box.y1, box.x0 : box.x1] = True
        mask[box.y0 + BOX_STROKE : box.y1 - BOX_STROKE, box.x0 + BOX_STROKE : box.x1 - BOX_STROKE] = False
    return mask


def grow(mask: Mask, by: int) -> Mask:
    """The mask grown by `by` pixels along both axes, or shrunk where `by` is negative.

    One axis after the other, by shifted views: far faster than a rank filter of the same reach.
    """
    if by < 0:
        return ~grow(~mask, -by)
    for _ in range(2):
        wide = mask.copy()
        for step in range(1, by + 1):
            wide[step:] |= mask[:-step]
            wide[:-step] |= mask[step:]
        mask = wide.T
    return mask


def extent(thing: Thing) -> Box:
    """The smallest rectangle that holds the object without its shadow; few kinds fill their square."""
    found = _sprite(thing.kind, thing.colour, thing.size).alpha.getbbox()
    assert found is not None, "a drawing is never empty"
    x0, y0, x1, y1 = found
    top, left = thing.cy - thing.size // 2, thing.cx - thing.size // 2
    return Box(y0=top + y0, x0=left + x0, y1=top + y1, x1=left + x1)


@dataclass(frozen=True, kw_only=True)
class _Sprite:
    colour: Image.Image  # RGB
    alpha: Image.Image  # L
    shadow: Image.Image  # L, larger than the sprite
    shadow_y: int  # where its corner lies from the sprite's corner
    shadow_x: int


@functools.lru_cache(maxsize=512)
def _sprite(kind: str, colour: str, size: int) -> _Sprite:
    main = PALETTE[colour]
    # Black cannot be shaded darker and stay visible; its accents are lighter.
    accent = _mix(main, (255, 255, 255), 0.22) if colour == "black" else _mix(main, (0, 0, 0), 0.20)
    full = _draw(kind, size, Inks(main=(*main, 255), shade=(*accent, 255)), main)
    alpha = full.getchannel("A")
    blur = max(1.0, 0.028 * size)
    pad = math.ceil(3.0 * blur)
    shadow = Image.new("L", (size + 2 * pad, size + 2 * pad))
    shadow.paste(alpha.point([round(level * _SHADOW_DEPTH) for level in range(256)]), (pad, pad))
    shadow = shadow.filter(ImageFilter.GaussianBlur(blur))
    down, right = round(0.05 * size), round(0.03 * size)
    return _Sprite(colour=full.convert("RGB"), alpha=alpha, shadow=shadow, shadow_y=down - pad, shadow_x=right - pad)


@functools.lru_cache(maxsize=512)
def _main_alpha(kind: str, size: int) -> Image.Image:
    rest: Paint = (0, 0, 0, 255)
    inks = Inks(main=(255, 255, 255, 255), shade=rest)._replace(**{name: rest for name in Inks._fields[1:]})
    full = _draw(kind, size, inks, (0, 0, 0))
    black = Image.new("RGB", full.size)
    black.paste(full, None, full.getchannel("A"))
    return black.getchannel("R")


def _draw(kind: str, size: int, inks: Inks, under: RGB) -> Image.Image:
    side = size * _SUPERSAMPLING
    canvas = Image.new("RGBA", (side, side), (*under, 0))
    DRAWINGS[kind](Pen(ImageDraw.Draw(canvas), side), inks)
    # Pillow averages with the alpha multiplied in, so the clear part's colour does not fringe the edges.
    return canvas.reduce(_SUPERSAMPLING)


def _stamp(
    scene: Scene, thing: Thing, alpha: Image.Image, threshold: int = 128, offset: tuple[int, int] = (0, 0)
) -> Mask:
    plane = Image.new("L", (scene.width, scene.height))
    half = thing.size // 2
    plane.paste(alpha, (thing.cx - half + offset[1], thing.cy - half + offset[0]))
    return np.asarray(plane) >= threshold


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    red, green, blue = (round((1.0 - share) * x + share * y) for x, y in zip(a, b, strict=True))
    return red, green, blue


@functools.lru_cache(maxsize=512)
def _pattern(height: int, width: int, pattern: str, variant: int) -> Image.Image:
    """(H, W) 8-bit weight of the darker tone. Edges are ramps of one pixel: analytic antialiasing."""
    rng = np.random.default_rng(variant)
    base = math.sqrt(height * width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    if pattern == "gradient":
        ramp = y / height if variant % 4 else x / width
        weight = ramp if variant % 2 else 1.0 - ramp
    elif pattern == "stripes":
        angle = math.radians((0, 45, 90, 135)[variant % 4])
        half = base * rng.uniform(0.05, 0.08)
        along = y * math.cos(angle) + x * math.sin(angle) + rng.uniform(0.0, 2.0 * half)
        weight = _square_wave(along, half)
    elif pattern == "checks":
        half = base * rng.uniform(0.06, 0.10)
        a = _square_wave(y + rng.uniform(0.0, half), half)
        b = _square_wave(x + rng.uniform(0.0, half), half)
        weight = a + b - 2.0 * a * b
    elif pattern == "dots":
        period = base * rng.uniform(0.11, 0.15)
        radius = period * rng.uniform(0.20, 0.26)
        down, right = y + rng.uniform(0.0, period), x + rng.uniform(0.0, period)
        # Every other row is shifted by half a period.
        right = right + np.where(np.floor(down / period) % 2 > 0, period / 2, 0.0)
        away = np.hypot(down % period - period / 2, right % period - period / 2)
        weight = np.clip(radius - away + 0.5, 0.0, 1.0)
    elif pattern == "noise":
        cells = rng.random((max(3, height // 40), max(3, width // 40)), dtype=np.float32)
        smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        weight = np.clip(np.asarray(smooth), 0.0, 1.0)
    else:
        raise ValueError(f"no pattern is called {pattern!r}")
    return Image.fromarray(np.round(weight * 255.0).astype(np.uint8))


def _square_wave(along: npt.NDArray[np.float32], half: float) -> npt.NDArray[np.float32]:
    """0 and 1 in turn, each for `half` pixels, with ramps of one pixel between them."""
    phase = along % (2.0 * half)
    wave: npt.NDArray[np.float32] = np.clip(half / 2 - np.abs(phase - half) + 0.5, 0.0, 1.0)
    return wave.astype(np.float32)


# --- sampling


def even(value: float) -> int:
    """The nearest even number; even sides have their centre on the pixel grid."""
    return 2 * round(value / 2)


def margin(height: int, width: int) -> float:
    """The room in pixels to leave around objects: enough that no shadow reaches a neighbour."""
    return _MARGIN * math.sqrt(height * width)


def sample_size(rng: random.Random, height: int, width: int, classes: Sequence[str] = tuple(SIZE_CLASSES)) -> int:
    """A side in pixels from one of the size classes."""
    low, high = SIZE_CLASSES[rng.choice(list(classes))]
    return even(math.sqrt(height * width) * rng.uniform(low, high))


def free_square(
    rng: random.Random, height: int, width: int, size: int, taken: Sequence[Square], tries: int = 40
) -> Square | None:
    """A random square of side `size` in the picture, clear of those taken; None where none was found."""
    gap = margin(height, width)
    room = size / 2 + gap
    low_y, high_y, low_x, high_x = (
        math.ceil(room),
        math.floor(height - room),
        math.ceil(room),
        math.floor(width - room),
    )
    if low_y > high_y or low_x > high_x:
        return None
    for _ in range(tries):
        square = Square(cy=rng.randint(low_y, high_y), cx=rng.randint(low_x, high_x), size=size)
        if all(square.clear_of(other, gap) for other in taken):
            return square
    return None


def sample_background(rng: random.Random, colours: Sequence[str] = COLOURS) -> Background:
    """A background in one of the colours; plain has no variants, the others have `VARIANTS` of them."""
    pattern = rng.choice(PATTERNS)
    variant = 0 if pattern == "plain" else rng.randrange(VARIANTS)
    return Background(colour=rng.choice(list(colours)), pattern=pattern, variant=variant)


def object_colours(ground: str) -> list[str]:
    """The object colours that stand out on a background colour."""
    return [name for name in COLOURS if stands_out(name, ground)]


def add_bystanders(
    rng: random.Random, scene: Scene, count: int, taken: Sequence[Square] = (), kinds: Sequence[str] = KINDS
) -> Scene:
    """The scene with up to `count` more objects, of kinds it lacks, clear of all that is there or taken.

    Where no room is found there are fewer; drawing order is shuffled, so that an index says nothing.
    """
    objects = list(scene.objects)
    occupied = [*taken, *(thing.square for thing in objects)]
    left = [kind for kind in kinds if kind not in {thing.kind for thing in objects}]
    colours = object_colours(scene.background.colour)
    for _ in range(min(count, len(left))):
        size = sample_size(rng, scene.height, scene.width)
        square = free_square(rng, scene.height, scene.width, size, occupied, tries=20)
        if square is None:
            continue
        kind = left.pop(rng.randrange(len(left)))
        objects.append(Thing(kind=kind, colour=rng.choice(colours), cy=square.cy, cx=square.cx, size=size))
        occupied.append(square)
    rng.shuffle(objects)
    return Scene(
        height=scene.height,
        width=scene.width,
        background=scene.background,
        objects=tuple(objects),
        box=scene.box,
        grey=scene.grey,
    )


def sample_scene(rng: random.Random, size: tuple[int, int] | None = None, count: int | None = None) -> Scene:
    """A scene of `count` objects (else 1 to 3, sometimes 4), fewer where they do not fit; `size` or any."""
    height, width = size or rng.choice(SIZES)
    scene = Scene(height=height, width=width, background=sample_background(rng))
    return add_bystanders(rng, scene, count if count is not None else rng.choices((1, 2, 3, 4), (4, 6, 5, 1))[0])
