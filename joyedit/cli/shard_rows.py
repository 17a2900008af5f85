"""How far shards are, as rows of a table: the sum first, then each shard, and those that have not begun."""

from __future__ import annotations

from collections.abc import Mapping

from joyedit.job.results.lock import holder_text
from joyedit.job.results.report import seconds_text
from joyedit.job.results.shard_status import ShardStatus, TreeStatus
from joyedit.job.shard import missing_text


def rows_of(tree: TreeStatus) -> list[tuple[str, str]]:
    """Label and text of each row."""
    rows = [
        ("state", tree.state.replace("_", " ")),
        ("done", str(tree.done)),
        ("failed", _failed(tree.failed, tree.failed_by_code)),
        ("left", "unknown" if tree.left is None else str(tree.left)),
    ]
    if tree.merged:
        rows.append(("merged", f"{tree.merged} of these items are merged already"))
    if tree.rate is not None:
        rows.append(("rate", f"{tree.rate:.2g} items a second"))
    if tree.seconds_left is not None:
        rows.append(("time left", seconds_text(tree.seconds_left)))
    rows += [(f"shard {one.folder.shard}", _shard(one)) for one in tree.shards]
    if tree.missing:
        rows.append(("missing", missing_text(list(tree.missing), tree.shards[0].folder.shard.of)))
    return rows


def _shard(one: ShardStatus) -> str:
    found = one.status
    state = found.state.replace("_", " ") + ("" if found.holder is None else f" ({holder_text(found.holder)})")
    left = "" if found.left is None else f", {found.left} left"
    failed = f", {_failed(found.failed, found.failed_by_code)} failed" if found.failed else ""
    merged = f", {one.merged} merged before" if one.merged else ""
    return f"{found.done} done{merged}{failed}{left}, {state}"


def _failed(count: int, codes: Mapping[str, int]) -> str:
    named = ", ".join(f"{code} {number}" for code, number in sorted(codes.items()))
    return f"{count} ({named})" if named else str(count)
