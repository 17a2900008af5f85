"""The references of an item: pictures in files, in larger files, and in a line of the source itself."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from joyedit.job.contained import ContainedPicture

_SHOWN_DIGITS = 12

MOST_HELD = 128 << 20
"""Where items wait, no more join them while they hold more bytes of pictures than this."""


@dataclass(frozen=True, slots=True)
class DataPicture:
    """A picture that stands in its line (`data:image/png;base64,...`), and in no file.

    `data` are the bytes that a file would hold, `sha256` is their hash. `address` names the picture in messages and
    records without its bytes: `data:image/png;sha256=<64 digits>`. Equal addresses mean equal bytes.
    """

    address: str
    sha256: str = field(compare=False)
    data: bytes = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        """A short name: `data-` and the first digits of the hash."""
        return f"data-{self.sha256[:_SHOWN_DIGITS]}"


Reference: TypeAlias = Path | DataPicture | ContainedPicture
"""A picture that an item begins with."""


def address_of(reference: Reference) -> str:
    """What a record says of a reference: the absolute path of a file, the address of a picture that is in none."""
    return os.path.abspath(reference) if isinstance(reference, Path) else reference.address


def file_of(reference: Reference) -> str | None:
    """The file that a reference is, or lies in; None for a picture in a line."""
    if isinstance(reference, ContainedPicture):
        return reference.file
    return os.fspath(reference) if isinstance(reference, Path) else None


def is_in_a_line(address: object) -> bool:
    """Whether this entry of a record stands for a picture in a line. The path of a file is absolute there."""
    return isinstance(address, str) and address.startswith("data:")


def held_by(references: Iterable[Reference]) -> int:
    """The bytes of pictures that these references hold in memory."""
    return sum(len(one.data) for one in references if isinstance(one, DataPicture))
