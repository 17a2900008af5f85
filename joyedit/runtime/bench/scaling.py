"""What `joyedit bench --gpus` measures: whole edits by one GPU, by two, by four, and so on, as a run shares them out.

For each number of GPUs the processes start anew and build the same random weights, and each of them warms up. The timed
edits go the way of a run: pictures to a worker process, finished pictures back. No torch here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from PIL import Image

from joyedit.errors import DeviceError, ItemError, UsageError
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import SizedItem
from joyedit.runtime.bench.batch import BenchConfig, batch_of, with_steps
from joyedit.runtime.bench.scaling_report import ScalingReport, ScalingRow
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.edit import Edited
from joyedit.runtime.pipeline.progress import NoProgress
from joyedit.runtime.pipeline.worker_stats import FleetStats
from joyedit.runtime.protocol import ReadyBatch
from joyedit.runtime.workers.editor import FleetEditor
from joyedit.runtime.workers.fleet import Fleet
from joyedit.runtime.workers.grouping import grouped, in_words
from joyedit.runtime.workers.place import Place

WARM_UP_STEPS = 2
_POLL = 0.02


def measure_scaling(
    config: BenchConfig, run: RunConfig, places: Sequence[Place], say: Callable[[str], None] = lambda text: None
) -> ScalingReport:
    """Measure one, two, four, ... and all of these places of single devices. `say` hears what is measured next.

    Each worker makes `config.edits` batches. Raises DeviceError where a worker cannot be used, and what loading raises.
    """
    shared = {count: one for count in counts_of(len(places)) if (one := _shared(places[:count], run)) is not None}
    most = max(len(one) for one in shared.values())
    batches = [_numbered(batch_of(config), number) for number in range(config.edits * most)]
    warm_up = [_numbered(with_steps(batch_of(config), WARM_UP_STEPS), -1 - number) for number in range(most)]
    rows: list[ScalingRow] = []
    pictures: dict[str, Image.Image] = {}
    device = ""
    for count, workers in shared.items():
        say(f"{count} of {len(places)}: {in_words(workers)}" if count > 1 else f"1 of {len(places)}")
        with closing(Fleet(workers, replace(run, expected_items=None))) as fleet:
            measured = _Measured(fleet)
            measured.warm_up(warm_up[: len(workers)])
            row = measured.row(count, batches[: config.edits * len(workers)])
            device = device or fleet.info.device
        first = {name: picture for name, picture in measured.pictures.items() if name.startswith("0-")}
        pictures = pictures or first
        rows.append(replace(row, apart=max(_apart(first[name], pictures[name]) for name in pictures)))
    return ScalingReport.of(config, run, device, rows)


def counts_of(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    powers = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return [*powers, most]


def _shared(places: Sequence[Place], run: RunConfig) -> tuple[Place, ...] | None:
    """The workers of a run with so many devices; None where they cannot share the work as is wished."""
    if len(places) == 1:
        return tuple(places)
    try:
        return grouped(places, run.parallel, replace(run, expected_items=1))
    except UsageError:
        if len(places) == run.workers:
            raise
        return None


class _Measured:
    """The edits of one fleet. `pictures` are those of the timed edits, by id."""

    def __init__(self, fleet: Fleet) -> None:
        self.pictures: dict[str, Image.Image] = {}
        self._fleet = fleet
        self._clock = StageClock()
        self._ended = 0.0
        self._sent = 0
        self._progress = _Notes()

    def warm_up(self, batches: Sequence[ReadyBatch]) -> None:
        """Wait until all workers are ready, and let each of them make one of these batches."""
        stats = FleetStats(len(self._fleet.members))
        with self._editor(stats) as editor:
            while len(self._fleet.ready()) < len(self._fleet.members):
                self._refuse_given_up(editor)
                time.sleep(_POLL)
            self._edit(editor, batches, stats)
        self._sent = _sent(stats)
        self.pictures.clear()

    def row(self, gpus: int, batches: Sequence[ReadyBatch]) -> ScalingRow:
        """The figures of these batches, given to all workers at once."""
        members = self._fleet.members
        stats = FleetStats(len(members))
        begin = self._clock.now()
        for member in members:
            stats.loaded_at(member.place.number, begin)
        with self._editor(stats) as editor:
            self._edit(editor, batches, stats)
        images = sum(len(batch.items) for batch in batches)
        seconds = self._ended - begin
        idle = stats.idle(self._ended)
        layout = members[0].place.layout
        return ScalingRow(
            gpus=gpus,
            workers=len(members),
            layout="data" if layout.world == 1 and gpus > 1 else str(layout),
            images=images,
            seconds=seconds,
            exchanged=(_sent(stats) - self._sent) / images if layout.world > 1 else None,
            idle=None if idle is None else idle.share,
            peak_memory=self._fleet.peak_memory(),
        )

    def _editor(self, stats: FleetStats) -> FleetEditor:
        return FleetEditor(
            self._fleet,
            _Recorder(),  # type: ignore[arg-type]  # what an editor says to a recorder
            self._clock,
            stats,
            give=self._take,
            progress=self._progress,
            stopped=bool,
        )

    def _edit(self, editor: FleetEditor, batches: Sequence[ReadyBatch], stats: FleetStats) -> None:
        for batch in batches:
            _nothing(editor.edit(batch))
        _nothing(editor.finish())
        # A worker tells the times of a batch when its device has finished it, which may be after its pictures came.
        while sum(one.batches for one in stats.workers) < len(batches):
            self._refuse_given_up(editor)
            time.sleep(_POLL)

    def _take(self, edited: Edited) -> None:
        self.pictures[edited.ready.item.id] = edited.picture()
        self._ended = self._clock.now()

    def _refuse_given_up(self, editor: FleetEditor) -> None:
        """Raises what ended the editor, and DeviceError where a worker died: figures with fewer of them say nothing."""
        if editor.is_broken():
            editor.drain()
        if any(member.deaths or member.is_given_up for member in self._fleet.members):
            told = [*self._progress.notes, *self._fleet.notes]
            raise DeviceError("; ".join(told) or "a worker process died while it was measured")


class _Notes(NoProgress):
    """Keeps what is told of workers."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """One more."""
        self.notes.append(text)


class _Recorder:
    """Hears what would be recorded."""

    @property
    def tally(self) -> _Recorder:
        return self

    def batch(self, images: int, seconds: float, ended: float, *, warms_up: bool = False) -> None:
        """The stats have it."""

    def log(self, text: str, error: BaseException | None = None) -> None:
        """There is no log."""

    def failed(self, sized: SizedItem, error: Exception, code: str, **more: Any) -> None:
        """Raises DeviceError: nothing that is measured may fail."""
        told = error.code if isinstance(error, ItemError) else code
        raise DeviceError(f"an edit failed while it was measured ({told}): {error}")


def _numbered(batch: ReadyBatch, number: int) -> ReadyBatch:
    """With ids that no other batch has."""
    items = []
    for place, ready in enumerate(batch.items):
        item = replace(ready.item, id=f"{number}-{place}", output=f"{number}-{place}.png")
        items.append(replace(ready, sized=replace(ready.sized, item=item)))
    return replace(batch, index=max(0, number), items=tuple(items))


def _nothing(edited: Iterator[Edited]) -> None:
    """All pictures go another way."""
    for _ in edited:
        raise AssertionError


def _sent(stats: FleetStats) -> int:
    return sum(one.exchanged or 0 for one in stats.workers)


def _apart(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of a level of these pictures."""
    from PIL import ImageChops

    return max(high for _, high in ImageChops.difference(one, other).getextrema())  # type: ignore[misc]
