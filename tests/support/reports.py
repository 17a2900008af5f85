"""A report as a run writes it, with the figures of a tally."""

from __future__ import annotations

from joyedit.job.results.report import Idle, Report, StageWork
from joyedit.job.results.run_counts import Tally
from joyedit.job.spec import Settings


def report(tally: Tally, **changes: object) -> Report:
    fields: dict[str, object] = {
        "state": "complete",
        "exit_code": 0,
        "error": None,
        "missing": 0,
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:01:00+00:00",
        "seconds": 60.0,
        "source": "m.jsonl",
        "asked": {"path": "/m.jsonl", "format": "png", "limit": None, "keys": []},
        "output": "edited",
        "items": tally.recorded,
        "ok": tally.ok,
        "skipped": 0,
        "left": 0,
        "failed": tally.failed.total(),
        "failed_by_code": dict(tally.failed),
        "passed_over": 0,
        "passed_over_files": [],
        "batches": tally.batches,
        "stages": {"load": 1.0, "denoise": 75.0},
        "waited": {"read": 0.5, "write": 0.0},
        "device_work": {"denoise": StageWork.of(150 * 10**12, 75.0, 4.0)},
        "matmul_tflops": 4.0,
        "device_idle": Idle.of(80.0, 76.0),
        "images_per_second": 0.25,
        "warm_up": tally.warm_up(),
        "steady": tally.steady(),
        "peak_memory": {"device": None, "host": 3 * 2**30},
        "predicted_peak": None,
        "model": "joy",
        "layout": "diffusers",
        "device": "cpu",
        "dtype": "fp32",
        "precision": "exact",
        "attention": "sdpa",
        "schedule": "original",
        "placement": "all weights stay on the device",
        "fused": False,
        "compile": False,
        "compile_seconds": 0.0,
        "batch_size": "auto",
        "settings": Settings(steps=4),
        "notes": (),
        "versions": {"torch": None},
    }
    return Report(**(fields | changes))  # type: ignore[arg-type]
