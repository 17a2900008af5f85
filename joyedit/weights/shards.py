"""Which files hold the tensors of a component's folder: one, or the shards that an index names. No torch in here."""

from __future__ import annotations

import re
from pathlib import Path

from joyedit.errors import CheckpointError
from joyedit.printable import brief
from joyedit.weights.regular_files import INDEX_BYTES, entries, is_there, printable_path, read_object

MOST_SHARDS = 1000
_INDEX = re.compile(r".+\.safetensors\.index(\.[^.]+)?\.json")


def shards_of(folder: Path, stem: str) -> list[Path]:
    """The files of one component, there or not: `<stem>.safetensors`, or the shards that its index names.

    Raises CheckpointError for an index that cannot be read.
    """
    single, index = folder / f"{stem}.safetensors", index_of(folder, stem)
    if is_there(single) or index is None:
        return [single]
    return [folder / shard for shard in sorted(set(weight_map(index).values()))]


def absent_files(folder: Path, stem: str) -> list[Path]:
    """The files of one component that are not there. Raises CheckpointError for an index that cannot be read."""
    return [path for path in shards_of(folder, stem) if not is_there(path)]


def index_of(folder: Path, stem: str) -> Path | None:
    """The index of the shards: `<stem>.safetensors.index.json`, or the only one of another name (of a variant)."""
    usual = folder / f"{stem}.safetensors.index.json"
    if is_there(usual):
        return usual
    try:
        others = [path for path in entries(folder) if _INDEX.fullmatch(path.name)]
    except CheckpointError:
        return None
    return others[0] if len(others) == 1 else None


def weight_map(index: Path) -> dict[str, str]:
    """The shard of each tensor. Raises CheckpointError for names that lead out of the folder, or too many shards."""
    where = printable_path(index)
    found = read_object(index, INDEX_BYTES).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{where}: not a safetensors index (it has no weight_map)")
    for shard in found.values():
        if not isinstance(shard, str):
            raise CheckpointError(f"{where}: not a safetensors index (the name of a shard is no text)")
        if Path(shard).name != shard or shard == "..":
            raise CheckpointError(f"{where}: names a shard outside its folder: {brief(shard)}")
    if (count := len(set(found.values()))) > MOST_SHARDS:
        raise CheckpointError(f"{where}: names {count} shards, {MOST_SHARDS} are allowed")
    return found
