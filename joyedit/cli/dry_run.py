"""`joyedit run --dry-run`: the batches as they would be formed. Loads no model and writes nothing."""

from __future__ import annotations

import json as jsonlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from joyedit.cli import console
from joyedit.cli.passed_over_text import tell_passed_over
from joyedit.cli.planned_text import lines_of, record_of
from joyedit.cli.planned_turns import PlannedTurns
from joyedit.cli.settings_in_force import in_force
from joyedit.errors import EXIT_OK, EXIT_SOME_FAILED
from joyedit.job.fit import LARGE_LOSS
from joyedit.job.pause import Pause
from joyedit.job.plan import failed, planner
from joyedit.job.results.objects.reading import output_to_read
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import line_of
from joyedit.job.results.report import seconds_text
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import Batch, EditItem, FailedItem
from joyedit.request import Request
from joyedit.runtime.earlier_run import EarlierRun, Rates, earlier_run
from joyedit.runtime.lazy_model import with_outlook
from joyedit.runtime.model import is_fake, placement_without_loading
from joyedit.weights.describe import describe
from joyedit.weights.wanted import Wanted

ASSUMED_BATCH_SIZE = 4
"""Stands for `--batch-size auto`, which only a device can settle."""
_ASSUMED = f"auto, shown with {ASSUMED_BATCH_SIZE} (a run measures what fits its device)"


def dry_run_there(request: Request, *, json: bool, quiet: bool) -> int:
    """As `dry_run`, also for an output on an object store: its records are fetched, and nothing is written there."""
    if request.config.objects is None:
        return dry_run(request, json=json, quiet=quiet)
    with output_to_read(Path(request.config.objects), may_be_new=True) as (folder, _):
        config = replace(request.config, output=folder)
        return dry_run(replace(request, config=config), json=json, quiet=quiet)


def dry_run(request: Request, *, json: bool, quiet: bool) -> int:
    """Print each batch with its items and each item that would fail, then the counts; gives the exit code.

    Raises what a run would raise for a source or an output folder that is refused.
    """
    config = request.config
    OutputFolder(config.output).check()
    summary = request.source.check()
    placement = placement_without_loading(with_outlook(config, summary))
    parallel = _parallel(request, with_outlook(config, summary))
    with earlier_run(request.source, config) as earlier:
        if not quiet:
            console.settings(in_force(request, summary))
            for line in _checkpoint(config):
                console.message(line)
            if config.batch_size is None:
                console.message(f"batch size: {_ASSUMED}")
            if parallel is not None:
                console.message(f"parallel: {parallel}")
            if placement is not None:
                console.message(f"weights: {placement}")
            tell_passed_over(summary.passed, by_name=True)
            if earlier.note is not None:
                console.note(earlier.note)
        turns = PlannedTurns(config.output, request.source.referred(), earlier.resume)
        counts = Counts(earlier, turns)
        folder = config.output if request.picture is None else request.picture.path.parent
        to_edit = counts.to_edit(turns.begin(request.source.items()))
        planned = planner(config, config.batch_size or ASSUMED_BATCH_SIZE)(to_edit, size_of=turns.size_of)
        for entry in planned:
            if isinstance(entry, Pause):
                continue
            counts.add(entry)
            if json:
                console.result(line_of(record_of(entry, folder)))
            elif not quiet:
                for line in lines_of(entry, folder):
                    console.result(line)
    numbers = counts.numbers | {"passed_over": summary.passed.count}
    if json:
        for path, kind in summary.passed.names:
            console.result(jsonlib.dumps({"passed_over": path, "reason": kind}))
        seconds = None if counts.rates is None else round(counts.seconds / config.workers, 3)
        told = {"seconds": seconds, "untimed": counts.untimed, "weights": placement}
        told |= {"parallel": parallel} if parallel is not None else {}
        told |= {"parts": counts.parts} if counts.parts else {}
        told |= {"precision": config.precision} if config.precision != "exact" else {}
        console.result(jsonlib.dumps({"summary": numbers | told}))
    elif not quiet:
        console.result(", ".join(f"{label.replace('_', ' ')} {count}" for label, count in numbers.items()))
        if counts.losing:
            what = "1 item loses" if counts.losing == 1 else f"{counts.losing} items lose"
            console.result(f"{what} more than {LARGE_LOSS:.0%} of a picture by cropping (--fit pad keeps all of it)")
        if counts.parts:
            console.result(f"{counts.parts} of the edits are parts of panoramas")
        if counts.rates is not None and counts.seconds:
            console.result(_time(counts, counts.rates, config.workers))
    return EXIT_SOME_FAILED if numbers["failed"] or numbers.get("left") else EXIT_OK


def _parallel(request: Request, config: RunConfig) -> str | None:
    """How several GPUs would share the work; None where there is one."""
    if not request.places:
        return None
    from joyedit.runtime.workers.grouping import grouped, in_words

    return in_words(grouped(request.places, config.parallel, config))


def _checkpoint(config: RunConfig) -> Iterator[str]:
    """What the checkpoint holds, and everything that it lacks. Raises UsageError for names that lead nowhere."""
    wanted = Wanted.of(config)
    if not wanted.is_enough or is_fake(config.model):
        return
    found = describe(wanted)
    yield f"checkpoint: {found.summary}"
    yield from (f"  {line}" for line in (*found.absent, *found.remedy))


class Counts:
    """What a dry run counts: `seconds` of the items whose time is known, and how many others there are (`untimed`).

    `losing` counts items of which much is cropped, `parts` those of panoramas, each of which is an edit.
    """

    def __init__(self, earlier: EarlierRun, turns: PlannedTurns) -> None:
        self.rates = earlier.rates
        self.seconds = 0.0
        self.untimed = 0
        self.losing = 0
        self.parts = 0
        self._own = earlier.own
        self._resume = earlier.resume
        self._turns = turns
        self._counts: Counter[str] = Counter()

    @property
    def numbers(self) -> dict[str, int]:
        """By what happens to the items: `left` are not edited, although they are not done."""
        names = ("items", "done", "left", "batches", "failed")
        return {name: self._counts[name] for name in names if self._resume is not None or name not in ("done", "left")}

    def to_edit(self, items: Iterator[EditItem | FailedItem | Pause]) -> Iterator[EditItem | FailedItem | Pause]:
        """The items that a run would not pass over."""
        for item in items:
            if isinstance(item, Pause):
                yield item
                continue
            self._counts["items"] += 1
            if not isinstance(item, EditItem):
                yield item
                continue
            decision = self._turns.decide(item)
            if decision != "edit":
                self._turns.skipped(item)
                self._counts["done" if decision in ("done", "changed") else "left"] += 1
                continue
            refused = None if self._own is None else self._own.refuse(item)
            yield item if refused is None else failed(item, refused.code, str(refused))

    def add(self, entry: Batch | FailedItem) -> None:
        """One planned batch, or an item that would fail."""
        self._turns.planned(entry)
        if isinstance(entry, FailedItem):
            self._counts["failed"] += 1
            return
        self._counts["batches"] += 1
        for sized in entry.items:
            self.parts += sized.part is not None
            seconds = None if self.rates is None else self.rates.of(sized.item)
            self.seconds += seconds or 0.0
            self.untimed += seconds is None
            self.losing += max((fit.lost for fit in sized.fits), default=0.0) > LARGE_LOSS


def _time(counts: Counts, rates: Rates, workers: int) -> str:
    text = f"time: about {seconds_text(counts.seconds / workers)} on {rates.device}"
    text += f" with --gpus {workers}" if workers > 1 else ""
    text += f", and {seconds_text(rates.loading)} to load the model, as in the run of {rates.when} in this folder"
    return text + (f"; {counts.untimed} items are of kinds that it did not have" if counts.untimed else "")
