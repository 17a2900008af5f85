"""Colour spaces as ICC profiles: those that a picture names by numbers (PNG's cICP, gAMA and cHRM, nclx of AVIF).

Code points are those of ITU-T H.273. An ICC profile is then applied as an embedded one would be.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Primaries = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green, blue, as in PNG's cHRM."""

_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
SRGB: Primaries = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE_RGB: Primaries = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_NTSC: Primaries = (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)

PRIMARIES: Mapping[int, tuple[str, Primaries]] = {
    1: ("BT.709", SRGB),
    4: ("BT.470 M", (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: ("BT.470 BG", (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: ("BT.601", _NTSC),
    7: ("SMPTE 240M", _NTSC),
    9: ("BT.2020", (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    11: ("DCI-P3", (*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: ("Display P3", (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
}
_UNSPECIFIED = 2
_AS_SRGB = (1, 6, 7, 11, 12, 13, 14, 15)
"""Transfer of cameras (BT.709, BT.601, BT.2020) is meant for the same displays as sRGB's, and shown like it."""
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_PQ, _HLG = 16, 18
_PQ_WHITE = 203.0  # cd/m2 of a white sheet (BT.2408)
_HLG_WHITE = 0.75  # its signal

ENTRIES = 4096
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def of_code_points(codes: tuple[int, ...]) -> tuple[bytes, str] | None:
    """The profile and its name for primaries, transfer, matrix and range (1: full).

    None if nothing is specified. Raises ValueError for what is not known.
    """
    primaries, transfer, _, is_full = codes
    if primaries == transfer == _UNSPECIFIED and is_full:
        return None
    name, places = PRIMARIES.get(1 if primaries == _UNSPECIFIED else primaries, ("", None))
    if places is None:
        raise ValueError(f"colour primaries {primaries} are not known")
    signal = np.linspace(0.0, 1.0, ENTRIES)
    if not is_full:  # narrow range: 16 to 235 of 255
        name += ", narrow range"
        signal = np.clip((signal * 255 - 16) / 219, 0.0, 1.0)
    if transfer in (*_AS_SRGB, _UNSPECIFIED):
        curve = srgb_curve(signal)
    elif transfer in _GAMMAS:
        curve, name = signal ** _GAMMAS[transfer], f"{name}, gamma {_GAMMAS[transfer]:g}"
    elif transfer == _PQ:
        curve, name = np.minimum(_pq(signal) / _PQ_WHITE, 1.0), f"{name}, PQ: highlights clipped"
    elif transfer == _HLG:
        white = _hlg(np.array([_HLG_WHITE]))[0]
        curve, name = np.minimum(_hlg(signal) / white, 1.0), f"{name}, HLG: highlights clipped"
    else:
        raise ValueError(f"transfer characteristics {transfer} are not known")
    return profile(places, curve), name


def of_gamma(gamma: float | None, places: Primaries | None) -> tuple[bytes, str] | None:
    """The profile and its name for PNG's gAMA and cHRM. Raises ValueError if they make no sense."""
    if gamma is None and places is None:
        return None
    if gamma is not None and not 0.05 <= gamma <= 20:
        raise ValueError(f"a gamma of {gamma:g} makes no sense")
    signal = np.linspace(0.0, 1.0, ENTRIES)
    # sRGB is written as 0.45455 with its primaries; libpng too takes what is within 5% of that for its curve.
    has_srgb_places = places is None or np.abs(np.subtract(places, SRGB)).max() <= 0.01
    is_srgb = gamma is None or (has_srgb_places and abs(gamma * 2.2 - 1) <= 0.05)
    curve = srgb_curve(signal) if is_srgb or gamma is None else signal ** (1 / gamma)
    name = "sRGB's curve" if is_srgb or gamma is None else f"gamma {1 / gamma:.3g}"
    return profile(SRGB if places is None else places, curve), name if places is None else f"{name}, own primaries"


def srgb_curve(signal: Array) -> Array:
    """Light from sRGB's signal, both 0 to 1."""
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _pq(signal: Array) -> Array:
    """cd/m2 (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = signal ** (1 / m2)
    light: Array = 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    return light


def _hlg(signal: Array) -> Array:
    """Light of the scene, 0 to 1 (BT.2100)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def profile(places: Primaries, *curves: Array, name: str = "joyedit") -> bytes:
    """An ICC profile (version 2) of three primaries, and one curve or three.

    Raises ValueError for impossible primaries.
    """
    colorants = _colorants(places)
    tables = [
        struct.pack(">4sII", b"curv", 0, curve.size) + np.rint(curve * 65535).astype(">u2").tobytes()
        for curve in curves
    ]
    tags = {b"desc": _description(name), b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(_D50)}
    tags |= {name: _xyz(colorants[:, n]) for n, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    offset = 128 + 4 + 12 * (len(tags) + 3)
    heads, bodies = b"", b""
    for tag, body in (*tags.items(), *zip((b"rTRC", b"gTRC", b"bTRC"), tables, strict=False)):
        place = offset + len(bodies)
        heads += struct.pack(">4sII", tag, place, len(body))
        bodies += body + bytes(-len(body) % 4)
    if len(tables) == 1:  # the others are the same one
        heads += b"".join(struct.pack(">4sII", tag, place, len(tables[0])) for tag in (b"gTRC", b"bTRC"))
    head = struct.pack(">I4sI4s4s4s12s4s", offset + len(bodies), b"\0\0\0\0", 0x02400000, b"mntr", b"RGB ", b"XYZ ",
                       struct.pack(">6H", 2026, 1, 1, 0, 0, 0), b"acsp")  # fmt: skip
    head += bytes(28) + struct.pack(">3i", *(round(value * 65536) for value in _D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags) + 3) + heads + bodies


def _colorants(places: Primaries) -> Array:
    """XYZ of red, green and blue in columns, adapted to D50."""
    xy = np.array(places, dtype=np.float64).reshape(4, 2)
    if not np.all((xy[:, 1] > 1e-3) & (xy[:, 1] < 1) & (xy[:, 0] >= 0) & (xy[:, 0] < 1)):
        raise ValueError("its primaries make no sense")
    xyz = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(axis=1)) / xy[:, 1]])
    white, primaries = xyz[:, 0], xyz[:, 1:]
    if abs(np.linalg.det(primaries)) < 1e-3:
        raise ValueError("its primaries make no sense")
    scaled = primaries * np.linalg.solve(primaries, white)
    cone = _BRADFORD @ _D50 / (_BRADFORD @ white)
    adapted: Array = np.linalg.inv(_BRADFORD) @ np.diag(cone) @ _BRADFORD @ scaled
    return adapted


def _xyz(value: Any) -> bytes:
    return struct.pack(">4sI3i", b"XYZ ", 0, *(round(float(part) * 65536) for part in value))


def _description(text: str) -> bytes:
    return struct.pack(">4sII", b"desc", 0, len(text) + 1) + text.encode() + b"\0" + bytes(78)
