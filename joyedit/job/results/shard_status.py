"""How far the shards of an output folder are, each and all together: also while they run, and after a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from joyedit.job.own_files import RESULTS
from joyedit.job.results.lock import holder
from joyedit.job.results.records import chain_in, error_code, final_records
from joyedit.job.results.shard_folders import ShardFolder, missing_shards, shard_folders
from joyedit.job.results.status import Status, state_of, status
from joyedit.job.results.verify import read_report


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardStatus:
    """How far one shard is. `merged` of its items have their records in the output folder already."""

    folder: ShardFolder
    status: Status
    merged: int

    @property
    def is_off(self) -> bool:
        """Whether somebody has to look: items failed, or the shard did not come to its end and is not running."""
        unfinished = self.status.state != "complete" or bool(self.status.left)
        return bool(self.status.failed) or (unfinished and self.status.holder is None)

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        of = self.folder.shard
        place = {"number": of.number, "of": of.of, "folder": str(self.folder.path), "merged": self.merged}
        return place | _json(self.status)


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeStatus:
    """How far all shards are. `missing` are the numbers of those that have not begun.

    `done` and `failed` count items, each once, also those that are merged already (`merged`). `left` is None if nobody
    knows how many items the source has. `rate` sums the shards that run, `seconds_left` is of the slowest of them.
    """

    shards: tuple[ShardStatus, ...]
    missing: tuple[int, ...]
    state: str
    merged: int
    done: int
    failed_by_code: dict[str, int]
    left: int | None
    rate: float | None
    seconds_left: float | None

    @property
    def failed(self) -> int:
        """The number of items that failed."""
        return sum(self.failed_by_code.values())

    @property
    def is_off(self) -> bool:
        """Whether somebody has to look: items failed, a shard has not begun, or one has ended too early."""
        return bool(self.failed or self.missing) or any(one.is_off for one in self.shards)

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "state": self.state,
            "done": self.done,
            "failed": self.failed,
            "failed_by_code": self.failed_by_code,
            "left": self.left,
            "rate": self.rate,
            "seconds_left": self.seconds_left,
            "merged": self.merged,
            "missing": list(self.missing),
            "shards": [one.as_json() for one in self.shards],
        }


def tree_status(out: Path) -> TreeStatus | None:
    """How far the shards in `out` are; None where there are none that are not merged.

    Raises `OutputError` if a journal cannot be read.
    """
    folders = shard_folders(out)
    if not folders:
        return None
    codes: dict[str, str | None] = {}
    merged: dict[str, str] = {}  # by id: what chooses the shard
    if (out / RESULTS).is_file():
        for record in final_records(out / RESULTS):
            codes[record["id"]], merged[record["id"]] = error_code(record), chain_in(record)
    shards: list[ShardStatus] = []
    for one in folders:
        own: set[str] = set()
        for record in final_records(one.path / RESULTS) if one.has_records else ():
            own.add(record["id"])
            code = error_code(record)
            if code is None or codes.get(record["id"], code) is not None:  # done in one place is done
                codes[record["id"]] = code
        known = (chain for name, chain in merged.items() if name not in own)
        shards.append(_shard_status(one, sum(map(one.shard.holds, known))))
    failed = Counter(code for code in codes.values() if code is not None)
    wholes = [whole for one in folders if (whole := whole_by(one)) is not None]
    left = max(0, max(wholes) - len(codes)) if wholes else None
    missing = () if left == 0 else tuple(missing_shards(folders, read_report(out).get("shards")))
    running = [one.status for one in shards if one.status.holder is not None]
    rates = [one.rate for one in running if one.rate is not None]
    times = [one.left / one.rate for one in running if one.left and one.rate]
    return TreeStatus(
        shards=tuple(shards),
        missing=missing,
        state=_state(shards, missing),
        merged=len(merged),
        done=len(codes) - failed.total(),
        failed_by_code=dict(failed),
        left=left,
        rate=sum(rates) if rates else None,
        seconds_left=max(times, default=None),
    )


def _shard_status(one: ShardFolder, merged: int) -> ShardStatus:
    found = _status_of(one)
    left = None if found.left is None else max(0, found.left - merged)
    return ShardStatus(folder=one, status=replace(found, left=left), merged=merged)


def _status_of(one: ShardFolder) -> Status:
    """The status of a shard; one that was killed, or looked at, before it had a journal has no items."""
    if one.has_records:
        return status(one.path)
    who = holder(one.path)
    state = state_of(read_report(one.path), who)
    return Status(state=state, holder=who, done=0, failed=0, failed_by_code={}, left=None, rate=None)


def whole_by(one: ShardFolder) -> int | None:
    """How many items all shards have, as the run of this one has counted them."""
    of_shard = read_report(one.path).get("shard")
    whole = of_shard.get("whole") if isinstance(of_shard, dict) else None
    return whole if isinstance(whole, int) else None


def _state(shards: Sequence[ShardStatus], missing: tuple[int, ...]) -> str:
    """Of all shards: the state that most wants to be looked at; `running` while one is."""
    states = {one.status.state for one in shards}
    for state in ("running", "killed", "stopped", "interrupted", "out_of_time"):
        if state in states:
            return state
    return "incomplete" if missing else "complete"


def _json(one: Status) -> dict[str, Any]:
    names = ("state", "holder", "done", "failed", "failed_by_code", "left", "rate")
    return {name: getattr(one, name) for name in names}
