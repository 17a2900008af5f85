"""What an earlier run left in the output folder, for a dry run: nothing is locked, loaded or written there.

It works on a copy of results.jsonl, since opening that file may repair it. The copy has no name: nothing of it stays,
however the program ends.
"""

from __future__ import annotations

import signal
import statistics
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from joyedit.errors import CheckpointError, DeviceError, OutputError
from joyedit.job.hashing import HashCache
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.journal import Journal, has_records
from joyedit.job.results.merged_records import MergedRecords, copied_journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.own_pictures import OwnPictures
from joyedit.job.results.recorded_outputs import RecordedOutputs
from joyedit.job.results.records import read_journal
from joyedit.job.results.replacing import Replacing
from joyedit.job.results.resume import Resume
from joyedit.job.results.shared import shared_by_all
from joyedit.job.results.unfinished import Unfinished
from joyedit.job.results.verify import read_report
from joyedit.job.run_config import RunConfig
from joyedit.job.source.sources import Source
from joyedit.job.spec import EditItem, Sampling
from joyedit.job.speed.bundles import speed_record
from joyedit.runtime.model import describe_without_loading, is_fake, model_identity
from joyedit.runtime.pipeline.interrupts import INTERRUPTS
from joyedit.runtime.protocol import BackendInfo
from joyedit.weights.defaults import local_folder
from joyedit.weights.wanted import Wanted

_KEPT = 1000
"""So many times of each kind of item are kept; their medians count."""

Kind = tuple[int, int, bool]
"""What the time of an edit depends on beside its steps: base size, references, and whether guidance is on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Device seconds of an earlier run: by kind, those of a step and those beside the steps. `loading` in seconds."""

    when: str
    device: str
    loading: float
    seconds: Mapping[Kind, tuple[float, float]]

    def of(self, item: EditItem) -> float | None:
        """The seconds of an item; None if the earlier run had none of its kind."""
        kind = (item.basesize, len(item.images), item.sampling.guidance_scale > 1)
        known = self.seconds.get(kind)
        return None if known is None else known[0] * item.sampling.steps + known[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierRun:
    """`resume` tells which items are done; `rates` how fast they were (None: another model or device, or no time).

    Both are None where there is no earlier run. `note` says why one was not looked at. `own` tells which files in the
    output folder are joyedit's own; None where that was not looked at, or there are none.
    """

    own: OwnPictures | None = None
    resume: Resume | None = None
    rates: Rates | None = None
    note: str | None = None


@contextmanager
def earlier_run(source: Source, config: RunConfig) -> Iterator[EarlierRun]:
    """Look at the output folder of `config`. Raises `UsageError` where the run would be refused."""
    has_some = has_records(config.output) or (config.tree is not None and has_records(config.tree))
    if not config.output.is_dir() and not has_some:
        yield EarlierRun()
        return
    skipped = f"the finished pictures in {config.output} are not looked at"
    with _ended_by_signals():
        try:
            journal = copied_journal(config.output)
            merged = None if config.tree is None else MergedRecords(config.tree)
        except (OSError, OutputError) as error:
            yield EarlierRun(note=f"{skipped}: {error}" if has_some else None)
            return
        with closing(journal), nullcontext() if merged is None else closing(merged):
            recorded = RecordedOutputs(journal)
            own = OwnPictures(journal, recorded, config.output, _unfinished(config.output, journal))
            info = _describe(config) if has_some else None
            if not isinstance(info, BackendInfo):
                yield EarlierRun(own=own, note=f"{skipped}: {info}" if info else None)
                return
            resume = _resume(journal, source, config, info, own, recorded, merged=merged)
            yield EarlierRun(own=own, resume=resume, rates=_rates(journal, config, info))


def _describe(config: RunConfig) -> BackendInfo | str:
    """What is known of the model without loading it; or why nothing is."""
    if not Wanted.of(config).is_enough:
        return "that needs --model"
    if config.model is not None and not is_fake(config.model) and local_folder(config.model) is None:
        return "that needs the checkpoint in a local folder"
    try:
        return describe_without_loading(config, may_fetch=False)
    except (CheckpointError, DeviceError) as error:
        return str(error)


def _unfinished(path: Path, journal: Journal) -> list[str]:
    """The outputs that were in work when a run ended."""
    if not path.is_dir():
        return []
    folder = OutputFolder(path)
    try:
        folder.prepare()  # it is there, so nothing is made
        return [one.output for one in Unfinished(folder, journal).before.values()]
    except OutputError:  # the run itself will tell
        return []
    finally:
        folder.close()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A hang-up and SIGTERM end the block as Ctrl-C does, without a word of the system."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(number) == signal.SIG_DFL]
    with INTERRUPTS.hold():
        for number in taken:
            signal.signal(number, INTERRUPTS.handle)
        try:
            yield
        finally:
            for number in taken:
                signal.signal(number, signal.SIG_DFL)


def _resume(
    journal: Journal,
    source: Source,
    config: RunConfig,
    info: BackendInfo,
    own: OwnPictures,
    recorded: RecordedOutputs,
    *,
    merged: MergedRecords | None,
) -> Resume:
    """As a run has it, but that files are compared by size and times. Raises UsageError as a run does."""
    fingerprints = Fingerprinter.for_run(config, model_identity(info, config), info.schedule, info.dtype)
    shared = shared_by_all(source, config.output, fingerprints)
    hashes = HashCache()
    replacing = None
    if config.redo != "all" and not config.update:
        replacing = Replacing(
            journal, recorded, config.output, fingerprints=fingerprints, hashes=hashes, shared=shared, model=info.model
        )
        if config.redo == "changed" and not source.comes_once:
            replacing.refuse(source)
    before = None
    if merged is not None:
        before = merged.resume(
            source,
            replace(config, trust_journal=True),
            fingerprints=fingerprints,
            hashes=hashes,
            shared=shared,
            model=info.model,
            at_once=not source.comes_once,
        )
    return Resume(
        journal,
        config.output,
        fingerprints=fingerprints,
        hashes=hashes,
        redo=config.redo,
        trust=True,
        own=own,
        replacing=replacing,
        merged=before,
    )


def _rates(journal: Journal, config: RunConfig, info: BackendInfo) -> Rates | None:
    """The times in the records of the last run, if that had the same model on the same kind of device."""
    report = read_report(config.output)
    device, stages = str(report.get("device")), report.get("stages")
    same = (_kind_of(device), report.get("model"), report.get("dtype"), report.get("precision", "exact"))
    if same != (_kind_of(info.device), info.model, info.dtype, info.precision):
        return None
    if _parts_left_out(report.get("speed")) != _parts_left_out(_speed_of(report, config, info)):
        return None
    times: dict[Kind, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=_KEPT))
    try:
        started = datetime.fromisoformat(str(report.get("started")))
        for record in read_journal(journal.path):
            kind = _timed_kind(record)
            if kind is not None and datetime.fromisoformat(str(record.get("at"))) >= started:
                seconds, steps = record["seconds"], record["settings"]["steps"]
                times[kind].append((seconds["denoise"] / steps, seconds["encode"] + seconds["decode"]))
    except (ValueError, TypeError, KeyError, ArithmeticError):  # somebody else wrote this report, or a record
        return None
    found = {
        kind: (statistics.median(one for one, _ in pairs), statistics.median(other for _, other in pairs))
        for kind, pairs in times.items()
    }
    loading = stages.get("load", 0.0) if isinstance(stages, dict) else 0.0
    return Rates(when=f"{started:%Y-%m-%d %H:%M} UTC", device=device, loading=loading, seconds=found) if found else None


def _speed_of(report: Mapping[str, Any], config: RunConfig, info: BackendInfo) -> dict[str, Any]:
    """What the run to come would leave out of an item with as many steps as the report tells."""
    settings = report.get("settings")
    steps = settings.get("steps") if isinstance(settings, dict) else None
    return speed_record(config, info.schedule, steps if isinstance(steps, int) else Sampling().steps)


def _parts_left_out(told: object) -> dict[str, Any]:
    """The parts of `speed` in a report that decide how long a step takes."""
    return {key: told.get(key) for key in ("reuse", "guidance_reuse")} if isinstance(told, dict) and told else {}


def _kind_of(device: str) -> str:
    """`cuda` of `cuda:0`, `cpu` of `cpu (2 threads)`."""
    return device.partition(" ")[0].partition(":")[0]


def _timed_kind(record: Mapping[str, Any]) -> Kind | None:
    settings, inputs = record.get("settings"), record.get("inputs")
    if record.get("status") != "ok" or not isinstance(settings, dict) or not isinstance(inputs, list):
        return None
    if record.get("parts"):  # several edits
        return None
    return settings["basesize"], len(inputs), settings["guidance_scale"] > 1
