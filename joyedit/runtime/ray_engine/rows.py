"""What flows through the pipeline: one row is one planned batch, pickled into the only column of a table.

Each row is a block of its own, so Ray counts, bounds, moves and retries batches. All nodes run the same joyedit for the
same user, so what comes is trusted.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joyedit.job.run_config import RunConfig
from joyedit.job.spec import Batch, Seen, SeenMask
from joyedit.job.speed.settings import BlockSteps
from joyedit.runtime.protocol import BackendInfo, ReadyBatch, ReadyItem
from joyedit.runtime.workers.faults import Fault
from joyedit.runtime.workers.messages import Broken, Made

COLUMN = "row"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What all stages know. Paths are absolute. `info` is what was said of the model without loading it.

    `feed` is the handle of the `Feed` actor. `is_gpu`: whether an actor has a GPU. `environment` are the variables of
    the driver that its processes elsewhere get.
    """

    environment: Mapping[str, str]
    config: RunConfig
    info: BackendInfo
    feed: Any
    is_gpu: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRow:
    """From the driver: a batch to be edited. `replaceable` are the outputs that a writer may replace."""

    number: int
    batch: Batch
    replaceable: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The end of one item on a node: a `file` or a `fault`. `id` is that of the item, also where it had parts."""

    id: str
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()
    fault: Fault | None = None
    file: LeftFile | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftFile:
    """A complete picture under a temporary name, in the folder where `output` is to be. `bytes` is its size.
    On an object store it has its final name, and `temporary` is empty.

    `inputs` and `mask` are what was read, `work` is what ran of the steps (None where nothing was left out).
    """

    output: str
    temporary: str
    bytes: int
    sha256: str
    inputs: tuple[Seen, ...]
    all_inputs: tuple[Seen, ...]
    drift: dict[str, float] | None
    mask: SeenMask | None
    work: BlockSteps | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadRow:
    """From the readers. `batch` is None where nothing could be read; `outcomes` are the items that failed.

    `stages` are seconds of the stages so far, `fault` is what ends the whole run. `died`: processes died with this
    batch, so it is not tried again. `node` says where.
    """

    number: int
    batch: ReadyBatch | None
    outcomes: tuple[Outcome, ...]
    stages: Mapping[str, float]
    notes: tuple[str, ...] = ()
    fault: Fault | None = None
    died: bool = False
    node: str = ""
    replaceable: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorSays:
    """What an actor tells of itself and of one row.

    `actor` stays the same when Ray starts it again, `process` does not. `offset` is what turns times of its
    `perf_counter` into seconds since the epoch. `messages` are those of a worker: batches, loading, lines of the log.
    """

    actor: str
    process: str
    node: str
    info: BackendInfo
    offset: float
    messages: tuple[object, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EditedRow:
    """From an actor. `items` are those with a picture, or with what they have instead."""

    number: int
    items: tuple[tuple[ReadyItem, Made | Broken], ...]
    outcomes: tuple[Outcome, ...]
    stages: Mapping[str, float]
    notes: tuple[str, ...] = ()
    fault: Fault | None = None
    died: bool = False
    node: str = ""
    says: ActorSays | None = None
    replaceable: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenRow:
    """Back to the driver. Items of the batch without an outcome were not begun, because the run stops."""

    number: int
    outcomes: tuple[Outcome, ...]
    stages: Mapping[str, float]
    notes: tuple[str, ...] = ()
    fault: Fault | None = None
    died: bool = False
    node: str = ""
    says: ActorSays | None = None


def packed(row: object) -> Any:
    """A pyarrow table with this row."""
    return as_table(pickle.dumps(row, pickle.HIGHEST_PROTOCOL))


def as_table(data: bytes) -> Any:
    """A pyarrow table with one row of these bytes; none stand for a batch that is over."""
    import pyarrow

    return pyarrow.table({COLUMN: pyarrow.array([data], pyarrow.large_binary())})


def unpacked(table: Any) -> Any:
    """The row of a pyarrow table; None for a batch that is over."""
    (value,) = table.column(COLUMN)
    data = value.as_buffer()
    return pickle.loads(data) if len(data) else None
