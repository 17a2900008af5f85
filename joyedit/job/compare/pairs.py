"""The items of two output folders by their ids, and what was found of each pair of pictures."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from joyedit.errors import ItemError
from joyedit.job.compare.measure import WINDOW, measure, pixels_of
from joyedit.job.containers.pictures import contained_at
from joyedit.job.page import loose
from joyedit.job.pictures.decode import Picture, load_picture
from joyedit.job.results.all_records import AllRecords, FinalRecord
from joyedit.job.results.records import error_code

State = Literal[
    "different", "other_size", "unreadable", "failed_a", "failed_b", "failed_both", "only_a", "only_b", "identical"
]
"""In the order in which items are shown. `unreadable`: a picture is gone, or cannot be read."""
STATES: tuple[State, ...] = get_args(State)
Distance = Callable[[Picture, Picture], float]
Look = Callable[["Pair", "Found", Picture | None, Picture | None], None]
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Pair:
    """An item: its record in A and in B, None where there is none."""

    a: FinalRecord | None
    b: FinalRecord | None

    @property
    def id(self) -> str:
        """The id of the item."""
        found = self.a or self.b
        assert found is not None
        return str(found.record["id"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was found of a pair. `psnr` in dB (infinite: identical), `ssim`, `lpips`: None where not measured."""

    state: State
    psnr: float | None = None
    ssim: float | None = None
    lpips: float | None = None
    why: str = ""

    @property
    def is_compared(self) -> bool:
        """Whether both pictures were compared."""
        return self.state in ("identical", "different")


class Folders:
    """The two folders. Raises `UsageError` for what is no output folder, `OutputError`."""

    def __init__(self, a: Path, b: Path) -> None:
        self.a, self.b = AllRecords(a), AllRecords(b)

    def pairs(self) -> Iterator[Pair]:
        """Every item of A, then those that are only in B."""
        for found in self.a:
            yield Pair(found, self.b.get(found.record["id"]))
        for found in self.b:
            if self.a.place_of(found.record["id"]) is None:
                yield Pair(None, found)

    def path(self, side: Literal["a", "b"], record: FinalRecord) -> str | None:
        """The finished picture of a record, or its address in a shard; None if it names none inside of its folder."""
        relative = PurePosixPath(record.output or "")
        if not relative.parts or relative.is_absolute() or ".." in relative.parts or "\0" in str(relative):
            return None
        return os.path.join(os.path.abspath((self.a if side == "a" else self.b).out), *relative.parts)


def look_at(folders: Folders, pair: Pair, distance: Distance | None, shown: Look | None) -> Found:
    """Compare the pictures of a pair. `shown` gets what was found with the decoded pictures, for the page."""
    state = _state(pair)
    if state is not None:
        found = Found(state=state)
        if shown is not None:
            shown(pair, found, *(_or_none(folders, side, pair) for side in ("a", "b")))
        return found
    assert pair.a is not None
    assert pair.b is not None
    if shown is None and distance is None and _has_one_hash(folders, pair):
        return Found(state="identical", psnr=math.inf, ssim=1.0)
    read: list[Picture] = []
    for side, record in (("a", pair.a), ("b", pair.b)):
        try:
            read.append(_read(folders.path(side, record)))  # type: ignore[arg-type]
        except ItemError as error:
            found = Found(state="unreadable", why=f"{side.upper()}: {error}")
            if shown is not None:
                shown(pair, found, *(_or_none(folders, one, pair) for one in ("a", "b")))
            return found
    found = _compared(read[0], read[1], distance)
    if shown is not None:
        shown(pair, found, read[0], read[1])
    return found


def _compared(one: Picture, other: Picture, distance: Distance | None) -> Found:
    if one.image.size != other.image.size:
        (width, height), (wide, high) = one.image.size, other.image.size
        return Found(state="other_size", why=f"{width} x {height} in A, {wide} x {high} in B")
    told = measure(*pixels_of(one, other))
    return Found(
        state="identical" if math.isinf(told.psnr) else "different",
        psnr=told.psnr,
        ssim=told.ssim,
        lpips=None if distance is None else distance(one, other),
    )


def _state(pair: Pair) -> State | None:
    """What the records alone say; None where there are two pictures."""
    if pair.a is None or pair.b is None:
        return "only_b" if pair.a is None else "only_a"
    bad_a, bad_b = (error_code(one.record) is not None for one in (pair.a, pair.b))
    if bad_a and bad_b:
        return "failed_both"
    return "failed_a" if bad_a else "failed_b" if bad_b else None


def _has_one_hash(folders: Folders, pair: Pair) -> bool:
    """Whether both records name the same content, large enough for SSIM, and both files have the recorded length."""
    assert pair.a is not None
    assert pair.b is not None
    first, second = (loose.text(one.record.get("output_sha256")) for one in (pair.a, pair.b))
    sides = loose.entries(pair.a.record.get("size"))
    is_large = len(sides) == 2 and all(isinstance(side, int) and side >= WINDOW for side in sides)
    if not is_large or not first or first != second:
        return False
    for side, one in (("a", pair.a), ("b", pair.b)):
        path = folders.path(side, one)  # type: ignore[arg-type]
        try:
            if path is None or os.stat(path).st_size != one.record.get("output_bytes"):
                return False
        except OSError:
            return False
    return True


def _read(path: str | None) -> Picture:
    """Raises ItemError."""
    if path is None:
        raise ItemError("output_outside", "its record names no picture of its folder")
    return load_picture(contained_at(path) or path, _NO_LIMIT)


def _or_none(folders: Folders, side: Literal["a", "b"] | str, pair: Pair) -> Picture | None:
    record = pair.a if side == "a" else pair.b
    if record is None or record.output is None:
        return None
    try:
        return _read(folders.path("a" if side == "a" else "b", record))
    except ItemError:
        return None


class Results:
    """What was found of all pairs, in about 40 bytes an item."""

    def __init__(self) -> None:
        self._places = (array("q"), array("q"))
        self._states = array("b")
        self._figures = (array("d"), array("d"), array("d"))

    def __len__(self) -> int:
        return len(self._states)

    def add(self, places: tuple[int | None, int | None], found: Found) -> None:
        """One more pair; `places` are those of its records."""
        for kept, place in zip(self._places, places, strict=True):
            kept.append(-1 if place is None else place)
        self._states.append(STATES.index(found.state))
        for kept_figure, value in zip(self._figures, (found.psnr, found.ssim, found.lpips), strict=True):
            kept_figure.append(math.nan if value is None else value)

    def found(self, number: int) -> Found:
        """What was found of this pair; without its reason."""
        psnr, ssim, lpips = (None if math.isnan(kept[number]) else kept[number] for kept in self._figures)
        return Found(state=STATES[self._states[number]], psnr=psnr, ssim=ssim, lpips=lpips)

    def places(self, number: int) -> tuple[int | None, int | None]:
        """Where the records of this pair stand, in A and in B."""
        a, b = (kept[number] for kept in self._places)
        return None if a < 0 else a, None if b < 0 else b

    def worst_first(self) -> list[int]:
        """The numbers of all pairs: those that differ by PSNR, then the others by their state."""
        psnr = self._figures[0]
        return sorted(range(len(self)), key=lambda n: (self._states[n], 0.0 if math.isnan(psnr[n]) else psnr[n]))
