"""The events of a run that text mode says in another way: what was loaded, how each item ended, and the counts."""

from __future__ import annotations

from pathlib import Path

from joyedit.cli import console
from joyedit.job.results.report import Report
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import ItemResult
from joyedit.runtime.protocol import BackendInfo


def tell_loaded(config: RunConfig, info: BackendInfo, items: int | None, seconds: float) -> None:
    """The model is loaded; nothing with text, where the settings say it. `items`: None if nobody knows."""
    if not console.is_json():
        return
    console.message(
        f"loaded {info.model}",
        "loaded",
        model=info.model,
        layout=info.layout,
        device=info.device,
        dtype=info.dtype,
        precision=info.precision,
        attention=info.attention,
        schedule=info.schedule,
        placement=info.placement or None,
        items=items,
        batch_size=config.batch_size or "auto",
        seconds=seconds,
    )


def tell_result(result: ItemResult) -> None:
    """An item is finished, or has failed."""
    seconds, stages = sum(result.seconds.values()), dict(result.seconds)
    if result.error is None:
        console.message(
            f"{result.id}: {result.output}",
            "item_finished",
            id=result.id,
            output=result.output,
            seconds=seconds,
            stages=stages,
            notes=list(result.notes) or None,
        )
        return
    origin = result.origin
    console.message(
        result.error["message"],
        "item_failed",
        "error",
        id=result.id,
        code=result.error["code"],
        seconds=seconds,
        stages=stages,
        file=None if origin is None else origin.file,
        line=None if origin is None else origin.line,
    )


def tell_summary(report: Report, page: Path | None) -> None:
    """The counts of the run; nothing with text, where the table says them."""
    if not console.is_json():
        return
    console.message(
        f"{report.items} items: {report.ok} ok, {report.failed} failed",
        "summary",
        state=report.state,
        items=report.items,
        ok=report.ok,
        skipped=report.skipped,
        failed=report.failed,
        failed_by_code=dict(report.failed_by_code),
        left=report.left,
        seconds=report.seconds,
        output=report.output,
        page=None if page is None else str(page),
    )
