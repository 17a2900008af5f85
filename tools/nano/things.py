"""How each kind of object is drawn: one short function a kind, in a unit square with y pointing down.

A thing has one main colour, which is the one that its name says, a darker shade of it for a few accents, and
fixed colours for what has its own (wheels, windows, trunks). Each fills the unit square and is centred in it,
so that the same place and size mean the same for every kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import ImageDraw

Paint = tuple[int, int, int, int]

CLEAR: Paint = (0, 0, 0, 0)


class Inks(NamedTuple):
    """The paints of one object."""

    main: Paint
    shade: Paint
    wood: Paint = (104, 66, 40, 255)
    roof: Paint = (112, 124, 160, 255)
    glass: Paint = (206, 234, 250, 255)
    tyre: Paint = (46, 46, 54, 255)
    hub: Paint = (206, 208, 214, 255)
    cream: Paint = (247, 233, 202, 255)
    stem: Paint = (62, 138, 66, 255)
    heart: Paint = (244, 186, 62, 255)


class Pen:
    """Draws in unit coordinates on a square canvas of `side` pixels."""

    def __init__(self, draw: ImageDraw.ImageDraw, side: int) -> None:
        self._draw = draw
        self._side = side

    def _at(self, *values: float) -> list[float]:
        return [value * self._side for value in values]

    def polygon(self, points: Sequence[tuple[float, float]], paint: Paint) -> None:
        self._draw.polygon([(x * self._side, y * self._side) for x, y in points], fill=paint)

    def disc(self, x: float, y: float, radius: float, paint: Paint) -> None:
        self.oval(x - radius, y - radius, x + radius, y + radius, paint)

    def oval(self, x0: float, y0: float, x1: float, y1: float, paint: Paint) -> None:
        # Pillow counts the last pixel in; without the step back, shapes grow by one to the lower right.
        a, b, c, d = self._at(x0, y0, x1, y1)
        self._draw.ellipse((a, b, c - 1, d - 1), fill=paint)

    def box(self, x0: float, y0: float, x1: float, y1: float, paint: Paint, round_by: float = 0.0) -> None:
        a, b, c, d = self._at(x0, y0, x1, y1)
        self._draw.rounded_rectangle((a, b, c - 1, d - 1), radius=round_by * self._side, fill=paint)

    def half_disc(self, x0: float, y0: float, x1: float, y1: float, start: int, end: int, paint: Paint) -> None:
        """The part of an oval between two angles in degrees, clockwise from three o'clock."""
        a, b, c, d = self._at(x0, y0, x1, y1)
        self._draw.chord((a, b, c - 1, d - 1), start, end, fill=paint)


def _around(
    count: int, radius: float, turn: float, middle: tuple[float, float] = (0.5, 0.5)
) -> list[tuple[float, float]]:
    """`count` points on a circle, the first one `turn` degrees clockwise from the top."""
    angles = [math.radians(turn + 360.0 * i / count) for i in range(count)]
    return [(middle[0] + radius * math.sin(a), middle[1] - radius * math.cos(a)) for a in angles]


def _circle(pen: Pen, ink: Inks) -> None:
    pen.disc(0.5, 0.5, 0.48, ink.main)


def _square(pen: Pen, ink: Inks) -> None:
    pen.box(0.07, 0.07, 0.93, 0.93, ink.main, 0.04)


def _triangle(pen: Pen, ink: Inks) -> None:
    pen.polygon([(0.5, 0.04), (1.0, 0.93), (0.0, 0.93)], ink.main)


def _star(pen: Pen, ink: Inks) -> None:
    middle = (0.5, 0.53)
    tips, dents = _around(5, 0.53, 0.0, middle), _around(5, 0.225, 36.0, middle)
    pen.polygon([point for pair in zip(tips, dents, strict=True) for point in pair], ink.main)


def _diamond(pen: Pen, ink: Inks) -> None:
    pen.polygon([(0.5, 0.0), (0.86, 0.5), (0.5, 1.0), (0.14, 0.5)], ink.main)


def _hexagon(pen: Pen, ink: Inks) -> None:
    pen.polygon(_around(6, 0.5, 30.0), ink.main)


def _heart(pen: Pen, ink: Inks) -> None:
    points = []
    for i in range(60):
        t = 2.0 * math.pi * i / 60
        x = 16.0 * math.sin(t) ** 3
        y = 13.0 * math.cos(t) - 5.0 * math.cos(2 * t) - 2.0 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.5 + x * 0.0305, 0.46 - y * 0.0305))
    pen.polygon(points, ink.main)


def _ring(pen: Pen, ink: Inks) -> None:
    pen.disc(0.5, 0.5, 0.48, ink.main)
    pen.disc(0.5, 0.5, 0.25, CLEAR)


def _house(pen: Pen, ink: Inks) -> None:
    pen.box(0.70, 0.10, 0.82, 0.40, ink.roof)
    pen.box(0.10, 0.40, 0.90, 0.97, ink.main)
    pen.polygon([(0.5, 0.03), (1.0, 0.46), (0.0, 0.46)], ink.roof)
    pen.box(0.41, 0.62, 0.60, 0.97, ink.wood, 0.02)
    for left in (0.18, 0.67):
        pen.box(left, 0.56, left + 0.16, 0.74, ink.cream)
        pen.box(left + 0.02, 0.58, left + 0.14, 0.72, ink.glass)


def _tree(pen: Pen, ink: Inks) -> None:
    pen.polygon([(0.45, 0.50), (0.55, 0.50), (0.59, 1.0), (0.41, 1.0)], ink.wood)
    pen.disc(0.29, 0.50, 0.23, ink.main)
    pen.disc(0.71, 0.50, 0.23, ink.main)
    pen.disc(0.5, 0.29, 0.28, ink.main)
    pen.box(0.29, 0.40, 0.71, 0.73, ink.main)


def _car(pen: Pen, ink: Inks) -> None:
    pen.polygon([(0.24, 0.22), (0.66, 0.22), (0.82, 0.50), (0.12, 0.50)], ink.main)
    pen.box(0.0, 0.44, 1.0, 0.72, ink.main, 0.09)
    pen.polygon([(0.28, 0.28), (0.44, 0.28), (0.44, 0.46), (0.20, 0.46)], ink.glass)
    pen.polygon([(0.50, 0.28), (0.63, 0.28), (0.73, 0.46), (0.50, 0.46)], ink.glass)
    for x in (0.24, 0.76):
        pen.disc(x, 0.70, 0.125, ink.tyre)
        pen.disc(x, 0.70, 0.055, ink.hub)
    pen.box(0.94, 0.51, 1.0, 0.60, ink.heart, 0.02)


def _cup(pen: Pen, ink: Inks) -> None:
    pen.disc(0.78, 0.50, 0.22, ink.main)
    pen.disc(0.78, 0.50, 0.12, CLEAR)
    pen.polygon([(0.02, 0.18), (0.80, 0.18), (0.70, 0.88), (0.12, 0.88)], ink.main)
    pen.oval(0.12, 0.80, 0.70, 0.95, ink.main)
    pen.oval(0.02, 0.08, 0.80, 0.28, ink.shade)
    pen.oval(0.07, 0.11, 0.75, 0.25, ink.cream)


def _boat(pen: Pen, ink: Inks) -> None:
    pen.box(0.46, 0.02, 0.50, 0.66, ink.wood)
    pen.polygon([(0.53, 0.05), (0.53, 0.54), (0.93, 0.54)], ink.cream)
    pen.polygon([(0.43, 0.14), (0.43, 0.54), (0.12, 0.54)], ink.cream)
    pen.polygon([(0.0, 0.60), (1.0, 0.60), (0.82, 0.96), (0.18, 0.96)], ink.main)


def _flower(pen: Pen, ink: Inks) -> None:
    pen.box(0.47, 0.55, 0.53, 1.0, ink.stem)
    pen.polygon([(0.5, 0.98), (0.26, 0.80), (0.22, 0.68), (0.40, 0.76)], ink.stem)
    pen.polygon([(0.5, 0.98), (0.74, 0.80), (0.78, 0.68), (0.60, 0.76)], ink.stem)
    middle = (0.5, 0.36)
    for x, y in _around(6, 0.215, 0.0, middle):
        pen.disc(x, y, 0.145, ink.main)
    pen.disc(*middle, 0.13, ink.heart)


def _mushroom(pen: Pen, ink: Inks) -> None:
    pen.polygon([(0.38, 0.50), (0.62, 0.50), (0.69, 0.97), (0.31, 0.97)], ink.cream)
    pen.half_disc(0.0, 0.05, 1.0, 1.17, 180, 360, ink.main)
    for x, y, radius in ((0.30, 0.42, 0.07), (0.52, 0.24, 0.085), (0.74, 0.44, 0.065)):
        pen.disc(x, y, radius, ink.cream)


DRAWINGS: dict[str, Callable[[Pen, Inks], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "diamond": _diamond,
    "hexagon": _hexagon,
    "heart": _heart,
    "ring": _ring,
    "house": _house,
    "tree": _tree,
    "car": _car,
    "cup": _cup,
    "boat": _boat,
    "flower": _flower,
    "mushroom": _mushroom,
}

KINDS: tuple[str, ...] = tuple(DRAWINGS)
