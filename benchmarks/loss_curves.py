"""Gain against loss as a picture: SVG of our own, which reads in light and in dark.

Two charts stand side by side over one gain: PSNR against the exact run, and edits that happened. A colour is a family
of settings, named by its first flag; a filled point is of many steps, a hollow one of few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

EXACT = "exact"
WIDTH, HEIGHT = 920, 420
TOP, BOTTOM, LEFT, BETWEEN, RIGHT = 64, 80, 56, 72, 24
COLOURS = ("#2f6fde", "#d1542b", "#2a9d5c", "#9a4fc4", "#b8860b", "#c2347f", "#1f9aa8", "#777777")
STYLE = """
 text { font: 12px system-ui, sans-serif; fill: #24292f }
 .ground { fill: #ffffff } .grid { stroke: #d8dee4 } .axis { stroke: #57606a } .title { font-weight: 600 }
 .label { font-size: 10px } .hollow { fill: #ffffff }
 @media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .ground, .hollow { fill: #0d1117 } .grid { stroke: #30363d } .axis { stroke: #8b949e }
 }
"""


def pairs_of(found: dict[str, Any]) -> str:
    """How many pairs the figures are of: "200", or "200 (12 steps) and 80 (40 steps)"."""
    counts = {row["steps"]: row["all"]["pairs"] for row in found["settings"]}
    if len(set(counts.values())) == 1:
        return str(next(iter(counts.values())))
    return " and ".join(f"{count} ({steps} steps)" for steps, count in sorted(counts.items()))


def draw(found: dict[str, Any], gain: str) -> str:
    """The SVG of one set of figures, as `loss.py` writes them. `gain` is "time", or "work" that was not done."""
    points = _points(found, gain)
    many = max(row["steps"] for row in found["settings"])
    few = sorted({row["steps"] for row in found["settings"]} - {many})
    families = list(dict.fromkeys(family for family, *_ in points))
    width = (WIDTH - LEFT - BETWEEN - RIGHT) / 2
    word = "times faster (denoising)" if gain == "time" else "times less work of the DiT"
    charts = (
        ("psnr", "PSNR against the exact run, dB (60: the same)", LEFT),
        ("happened", "edits that happened, %", LEFT + width + BETWEEN),
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="Gain against loss of {escape(found["model"])}">',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        _legend(families, many, few),
    ]
    for name, title, left in charts:
        parts.append(_chart(points, families, name, (title, word), (left, width)))
    caption = f"{found['model']}, {pairs_of(found)} held-out edits, {found['date']}"
    parts.append(
        f'<text class="label" x="{WIDTH - RIGHT}" y="{HEIGHT - 10}" text-anchor="end">{escape(caption)}</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _points(found: dict[str, Any], gain: str) -> list[tuple[str, dict[str, Any]]]:
    """Family and point of each setting that has a gain; exact settings of fewer steps are a family of their own."""
    rows = found["settings"]
    exact = {row["steps"]: row["all"] for row in rows if row["setting"] == EXACT}
    many = max(row["steps"] for row in rows)
    points = []
    for row in rows:
        figures = row["all"]
        if gain == "time":
            value: float | None = exact[row["steps"]]["seconds"] / figures["seconds"]
        else:
            share = 1.0 if row["setting"] == EXACT else figures["computed"]
            value = None if not share else 1 / share
        if value is not None:
            family, label = _names(row["setting"])
            point = {"gain": value, "label": label, "many": row["steps"] == many, "steps": row["steps"]}
            points.append((family, point | {name: figures[name] for name in ("psnr", "happened")}))
    return points


def _names(setting: str) -> tuple[str, str]:
    """The family of a setting, and what tells it from the others there."""
    if setting == EXACT:
        return EXACT, ""
    words = setting.split()
    flags = [word for word in words if word.startswith("--")]
    values = [word for word in words if not word.startswith("--")]
    return " ".join(flags), ", ".join(values)


def _chart(
    points: Sequence[tuple[str, dict[str, Any]]],
    families: Sequence[str],
    name: str,
    words: tuple[str, str],
    place: tuple[float, float],
) -> str:
    """One chart: `place` is its left edge and its width."""
    left, width = place
    height = HEIGHT - TOP - BOTTOM
    most = max(1.5, math.ceil(10 * max(point["gain"] for _, point in points) + 1) / 10)
    least = min(1.0, min(point["gain"] for _, point in points))
    values = [point[name] for _, point in points]
    low, high, step = _range(values, 60.0 if name == "psnr" else 100.0)

    def x(gain: float) -> float:
        return left + width * (gain - least) / (most - least)

    def y(value: float) -> float:
        return TOP + height * (high - value) / (high - low)

    parts = [f'<text class="title" x="{left:.0f}" y="{TOP - 12}">{escape(words[0])}</text>']
    value = low
    while value <= high + 1e-9:
        parts.append(f'<path class="grid" d="M{left:.1f} {y(value):.1f}h{width:.1f}"/>')
        parts.append(f'<text x="{left - 8:.1f}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
        value += step
    ticks = 0.5 if most < 4 else 1.0
    gain = math.ceil(least / ticks) * ticks
    while gain <= most:
        parts.append(f'<path class="axis" d="M{x(gain):.1f} {TOP + height}v4"/>')
        parts.append(f'<text x="{x(gain):.1f}" y="{TOP + height + 18}" text-anchor="middle">{gain:g}</text>')
        gain += ticks
    parts.append(f'<path class="axis" d="M{left:.1f} {TOP + height}h{width:.1f}"/>')
    parts.append(f'<text x="{left + width / 2:.1f}" y="{TOP + height + 38}" text-anchor="middle">{words[1]}</text>')
    for number, family in enumerate(families):
        colour = COLOURS[number % len(COLOURS)]
        own = [point for of, point in points if of == family]
        for many in (True, False):
            line = sorted((p for p in own if p["many"] is many), key=lambda p: p["gain"])
            if len(line) > 1:
                path = " ".join(f"{x(p['gain']):.1f},{y(p[name]):.1f}" for p in line)
                dashes = "" if many else ' stroke-dasharray="4 3"'
                parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"{dashes}/>')
            parts += [_dot(x(p["gain"]), y(p[name]), colour, p) for p in line]
    return "\n".join(parts)


def _dot(x: float, y: float, colour: str, point: dict[str, Any]) -> str:
    look = f'fill="{colour}"' if point["many"] else 'class="hollow"'
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" stroke="{colour}" stroke-width="1.5" {look}/>'
    if not point["label"]:
        return dot
    down = -7 if point["many"] and y - 7 > TOP else 15  # above the chart stands its title
    return (
        f'{dot}<text class="label" x="{x:.1f}" y="{y + down:.1f}" text-anchor="middle">{escape(point["label"])}</text>'
    )


def _range(values: Sequence[float], top: float) -> tuple[float, float, float]:
    """The axis for these values below `top`: least, most and the step between lines."""
    spread = top - min(values)
    step = next(step for step in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if spread <= 6 * step)
    return top - step * max(1, math.ceil(spread / step)), top, step


def _legend(families: Sequence[str], many: int, few: Sequence[int]) -> str:
    parts, left = [], float(LEFT)
    for number, family in enumerate(families):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<circle cx="{left:.1f}" cy="20" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{left + 9:.1f}" y="24">{escape(family)}</text>')
        left += 30 + 6.6 * len(family)
    told = f"filled: {many} steps" + "".join(f", hollow: {steps}" for steps in few)
    parts.append(f'<text x="{WIDTH - RIGHT}" y="24" text-anchor="end">{told}</text>')
    return "\n".join(parts)
