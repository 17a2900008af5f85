"""The folders of shards inside an output folder: `OUT/shards/3-of-16`, each an output folder of its own.

A run of a shard writes nowhere else, so machines that share the disk never write to one file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from joyedit.errors import OutputError, UsageError
from joyedit.job.own_files import LOCK, RESULTS, SHARDS, UNFINISHED
from joyedit.job.results.lock import holder, holder_text
from joyedit.job.shard import Shard


@dataclass(frozen=True, order=True, slots=True)
class ShardFolder:
    """The folder of a shard that has begun."""

    shard: Shard
    path: Path

    @property
    def inside(self) -> str:
        """Its place in the output folder, with a slash behind it."""
        return f"{SHARDS}/{self.shard.folder}/"

    @property
    def has_records(self) -> bool:
        """Whether the run of the shard came so far that it has a journal."""
        return (self.path / RESULTS).is_file()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was done here and nobody is at it: the shard had no items, or its run was refused."""
        with suppress(OSError):
            if os.stat(self.path / RESULTS).st_size:
                return False
        return not os.path.lexists(self.path / UNFINISHED) and holder(self.path) is None


def folder_of(out: Path, shard: Shard) -> Path:
    """Where the run of this shard writes."""
    return out / SHARDS / shard.folder


def whole_of(folder: Path) -> Path:
    """The output folder in which this one is the folder of a shard; `folder` itself where it is none."""
    if folder.parent.name == SHARDS and Shard.of_folder(folder.name) is not None:
        return folder.parent.parent
    return folder


def shard_folders(out: Path) -> list[ShardFolder]:
    """The shards in this output folder that have begun and are not merged, in order. Links are none."""
    found = []
    try:
        names = os.listdir(out / SHARDS)
    except OSError:
        return []
    for name in names:
        shard, path = Shard.of_folder(name), out / SHARDS / name
        if shard is None or path.is_symlink() or not path.is_dir():
            continue
        if any(os.path.lexists(path / own) for own in (RESULTS, LOCK, UNFINISHED)):
            found.append(ShardFolder(shard, path))
    return sorted(found)


def missing_shards(folders: Sequence[ShardFolder], merged: object) -> list[int]:
    """The numbers of the shards that have not begun; none where shards of several N lie side by side.

    `merged` is what the report of the output folder says of shards that are merged already.
    """
    counts = {one.shard.of for one in folders}
    if len(counts) != 1:
        return []
    of = counts.pop()
    known = {one.shard.number for one in folders}
    for name in merged if isinstance(merged, dict) else ():
        shard = Shard.of_folder(name)
        if shard is not None and shard.of == of:
            known.add(shard.number)
    return sorted(set(range(1, of + 1)) - known)


def refuse_other_parts(out: Path, shard: Shard | None) -> None:
    """Raises `UsageError` where a run into `out` would do what shards do that are not merged.

    `shard` is that of the run. Raises `OutputError` for a run of a shard while somebody writes to `out` itself.
    """
    others = [one for one in shard_folders(out) if shard is None or one.shard.of != shard.of]
    others = [one for one in others if not one.is_empty]
    if others:
        counts = sorted({one.shard.of for one in others})
        what = "1 shard that is not merged" if len(others) == 1 else f"{len(others)} shards that are not merged"
        parts = " and ".join(f"of {count}" for count in counts)
        raise UsageError(
            f"{out} holds {what} ({parts}), and this run would edit their items again "
            f"(joyedit merge {out} makes one folder of them; or go on with --shard {others[0].shard.flag})"
        )
    who = None if shard is None else holder(out)
    if who is not None:
        raise OutputError(f"another run or a merge writes to {out}: {holder_text(who)}; wait for it")


def refuse_unmerged(out: Path) -> None:
    """Raises `UsageError` where an output folder has no records of its own, but shards that are not merged."""
    folders = [] if (out / RESULTS).is_file() else shard_folders(out)
    if folders:
        count = "1 shard" if len(folders) == 1 else f"{len(folders)} shards"
        raise UsageError(
            f"{out} holds {count} and no records of its own: joyedit merge {out} makes one folder of them "
            f"(a shard alone is in {folders[0].path})"
        )
