"""The figures of a run as metrics of Prometheus: their names, kinds and labels. docs/logs.md has the same table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from joyedit.job.results.report import State, WorkerWork

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Kind = Literal["counter", "gauge"]
ALL = ("output", "shard")
"""Labels of every metric: several runs of one machine write into one folder of files."""

METRICS: Mapping[str, tuple[Kind, tuple[str, ...], str]] = {
    "joyedit_items_total": ("counter", ("state",), "Items of this run by state: done, failed, skipped (need no edit)."),
    "joyedit_item_failures_total": ("counter", ("code",), "Failed items by their code."),
    "joyedit_items_left": ("gauge", (), "Items that are still to be edited."),
    "joyedit_items_per_second": ("gauge", (), "Finished items a second since the model was loaded."),
    "joyedit_run_remaining_seconds": ("gauge", (), "Seconds until the last item, at this rate."),
    "joyedit_run_duration_seconds": ("gauge", (), "Seconds since the run began."),
    "joyedit_run_start_timestamp_seconds": ("gauge", (), "When the run began, in seconds since 1970."),
    "joyedit_last_write_timestamp_seconds": ("gauge", (), "When this file was written, in seconds since 1970."),
    "joyedit_run_state": ("gauge", ("state",), "1 for the state that the run is in, 0 for the others."),
    "joyedit_run_info": ("gauge", ("version", "model", "device", "dtype"), "1, with what the run works with."),
    "joyedit_stage_seconds_total": ("counter", ("stage",), "Seconds in each stage, summed over threads."),
    "joyedit_batches_total": ("counter", (), "Batches that went through the networks."),
    "joyedit_batch_size": ("gauge", (), "Items of the last batch."),
    "joyedit_device_busy_ratio": ("gauge", (), "Share of the time since loading in which devices had a batch."),
    "joyedit_device_memory_peak_bytes": ("gauge", (), "The most memory of a device that was in use."),
    "joyedit_host_memory_peak_bytes": ("gauge", (), "The most memory that this process has used."),
    "joyedit_workers": ("gauge", (), "Worker processes that share the work; 1 is this process alone."),
    "joyedit_worker_items_total": ("counter", ("worker", "device"), "Items that came back from a worker."),
    "joyedit_worker_busy_ratio": ("gauge", ("worker", "device"), "Share of the time in which a worker had a batch."),
    "joyedit_worker_deaths_total": ("counter", ("worker", "device"), "How often the process of a worker died."),
}
"""Name -> kind, own labels, and what it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What a run knows of itself now. Times are seconds, memory is bytes; None where nobody knows."""

    output: str
    shard: str
    state: State
    started: float
    seconds: float
    done: int
    skipped: int
    failed: Mapping[str, int]
    left: int | None
    rate: float | None
    stages: Mapping[str, float]
    batches: int
    batch_size: int | None
    busy: float | None
    device_peak: int | None
    host_peak: int | None
    count_workers: int
    workers: tuple[WorkerWork, ...]
    info: Mapping[str, str]


class FiguresCollector:
    """A collector of prometheus_client that gives these figures."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """A family for each metric that has a value."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        found = self._figures
        every = (found.output, found.shard)
        samples: dict[str, list[tuple[tuple[str, ...], float]]] = {}
        for name, own, value in _samples(found):
            if value is not None:
                samples.setdefault(name, []).append(((*every, *own), float(value)))
        for name, values in samples.items():
            kind, labels, told = METRICS[name]
            family: Any = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            made = family(name, told, labels=[*ALL, *labels])
            for own, value in values:
                made.add_metric(list(own), value)
            yield made


def _samples(found: Figures) -> Iterator[tuple[str, tuple[str, ...], float | None]]:
    """Name, values of the own labels, and the value of each sample."""
    for state, count in (("done", found.done), ("failed", sum(found.failed.values())), ("skipped", found.skipped)):
        yield "joyedit_items_total", (state,), count
    for code, count in sorted(found.failed.items()):
        yield "joyedit_item_failures_total", (code,), count
    yield "joyedit_items_left", (), found.left
    yield "joyedit_items_per_second", (), found.rate
    if found.left is not None and found.rate:
        yield "joyedit_run_remaining_seconds", (), found.left / found.rate
    yield "joyedit_run_duration_seconds", (), found.seconds
    yield "joyedit_run_start_timestamp_seconds", (), found.started
    yield "joyedit_last_write_timestamp_seconds", (), time.time()
    for state in get_args(State):
        yield "joyedit_run_state", (state,), state == found.state
    yield "joyedit_run_info", tuple(found.info[label] for label in METRICS["joyedit_run_info"][1]), 1
    for stage, seconds in found.stages.items():
        yield "joyedit_stage_seconds_total", (stage,), seconds
    yield "joyedit_batches_total", (), found.batches
    yield "joyedit_batch_size", (), found.batch_size
    yield "joyedit_device_busy_ratio", (), found.busy
    yield "joyedit_device_memory_peak_bytes", (), found.device_peak
    yield "joyedit_host_memory_peak_bytes", (), found.host_peak
    yield "joyedit_workers", (), found.count_workers
    for work in found.workers:
        own = str(work.worker), work.device
        yield "joyedit_worker_items_total", own, work.items
        yield "joyedit_worker_busy_ratio", own, None if work.idle is None else 1 - work.idle.share
        yield "joyedit_worker_deaths_total", own, work.deaths
