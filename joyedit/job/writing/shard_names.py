"""The files of shards: their names, and which of them lie in an output folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ENDINGS: Mapping[str, str] = {"webdataset": ".tar", "parquet": ".parquet"}
"""What a run writes in shards -> how their names end."""
SHARD_SIZE = 1000
"""Items of a shard where nobody says another number."""

_NAME = re.compile(r"edited-([0-9]{6,})(\.partial)?(\.tar|\.parquet)")


def shard_name(number: int, kind: str, *, is_partial: bool = False) -> str:
    """`edited-000003.tar`, where `kind` is webdataset; a shard that lacks items is `edited-000003.partial.tar`."""
    return f"edited-{number:06d}{'.partial' if is_partial else ''}{ENDINGS[kind]}"


def kind_of(name: str) -> str | None:
    """What writes a file of this name; None if that is no shard."""
    told = _NAME.fullmatch(name)
    return None if told is None else next(kind for kind, ending in ENDINGS.items() if ending == told[3])


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFiles:
    """The files of shards in an output folder: `complete` ones, and `partial` ones, which lack items."""

    complete: int
    partial: int

    @classmethod
    def of(cls, names: Iterable[str], kind: str) -> ShardFiles:
        """Those that `kind`, webdataset or parquet, has among these names."""
        found = [told for name in names if (told := _NAME.fullmatch(name)) is not None and told[3] == ENDINGS[kind]]
        partial = sum(told[2] is not None for told in found)
        return cls(complete=len(found) - partial, partial=partial)


def shards_in(folder: Path) -> Iterator[str]:
    """The names of the shards that lie in a folder, in order."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    yield from (name for name in names if kind_of(name) is not None)
