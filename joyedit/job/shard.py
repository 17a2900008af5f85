"""A shard: one of N parts of a source, which a machine edits by itself. The id of an item alone says in which it is.

So neither the order of the lines nor other lines change it, and the machines need not talk to each other.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

MOST_SHARDS = 100_000
_FOLDER = re.compile(r"([1-9][0-9]{0,5})-of-([1-9][0-9]{0,5})", re.ASCII)
_TEXT = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)
_PERSON = b"joyedit shard"


@dataclass(frozen=True, order=True, slots=True)
class Shard:
    """Part `number` (from 1) of `of` parts. Raises ValueError for numbers that are none."""

    of: int
    number: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of <= MOST_SHARDS:
            raise ValueError(f"no such shard: {self.number} of {self.of}")

    @classmethod
    def read(cls, text: str) -> Shard | None:
        """The shard that `3/16` names; None if the text names none."""
        return _of_match(_TEXT.fullmatch(text))

    @classmethod
    def of_folder(cls, name: str) -> Shard | None:
        """The shard whose folder has this name; None if no shard has."""
        return _of_match(_FOLDER.fullmatch(name))

    @property
    def folder(self) -> str:
        """The name of its folder: `3-of-16`."""
        return f"{self.number}-of-{self.of}"

    @property
    def flag(self) -> str:
        """As the command line takes it: `3/16`."""
        return f"{self.number}/{self.of}"

    def __str__(self) -> str:
        return f"{self.number} of {self.of}"

    def holds(self, name: str) -> bool:
        """Whether the item of the id `name` is in this shard."""
        return number_of(name, self.of) == self.number


def number_of(name: str, of: int) -> int:
    """The number (from 1) of the shard that holds the id `name`, where there are `of`. The same on every machine."""
    data = name.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(data, digest_size=8, person=_PERSON).digest()
    return int.from_bytes(digest, "big") % of + 1


def numbers_text(numbers: list[int]) -> str:
    """Numbers in ascending order as text: `4, 7 to 10`."""
    parts: list[str] = []
    place = 0
    while place < len(numbers):
        last = place
        while last + 1 < len(numbers) and numbers[last + 1] == numbers[last] + 1:
            last += 1
        if last - place > 1:
            parts.append(f"{numbers[place]} to {numbers[last]}")
        else:
            parts += map(str, numbers[place : last + 1])
        place = last + 1
    return ", ".join(parts)


def missing_text(numbers: list[int], of: int) -> str:
    """That shards have not begun: `2 of 16 shards have not begun: 4, 9`."""
    return f"{len(numbers)} of {of} shards {'has' if len(numbers) == 1 else 'have'} not begun: {numbers_text(numbers)}"


def _of_match(found: re.Match[str] | None) -> Shard | None:
    if found is None:
        return None
    try:
        return Shard(int(found[2]), int(found[1]))
    except ValueError:
        return None
