"""When the model is loaded: at once for a new folder, otherwise when the first item is found that needs it.

Loading takes minutes and tens of gigabytes, and a repeated run may have nothing to do. So where an earlier run
left records, joyedit first checks which items are done; `describe` says what this needs to know of the model.
Then, before anything is edited, the whole source is checked and the model is loaded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from joyedit.job.results.journal import has_records
from joyedit.job.run_config import RunConfig
from joyedit.job.source.source import SourceStoppedError, SourceSummary
from joyedit.job.source.source_options import BUILT_IN
from joyedit.runtime.model import DescribeModel, FetchModel, LoadModel, model_identity
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.interrupts import INTERRUPTS
from joyedit.runtime.pipeline.progress import Progress
from joyedit.runtime.protocol import BackendInfo, LoadedModel

if TYPE_CHECKING:
    from joyedit.job.source.sources import Source


class LazyModel:
    """The source and the model of one run. `backend` is None as long as it is not loaded.

    `summary` and `info` stand from the beginning; while `backend` is None, `summary` may not tell how
    many items there are. Raises what `open` and `describe` raise.
    """

    backend: LoadedModel | None
    summary: SourceSummary
    info: BackendInfo

    def __init__(
        self,
        source: Source,
        config: RunConfig,
        *,
        load_backend: LoadModel,
        describe: DescribeModel | None,
        fetch: FetchModel | None,
        progress: Progress,
        clock: StageClock,
    ) -> None:
        self._source = source
        self._config = config
        self._load = load_backend
        self._fetcher = fetch
        self._progress = progress
        self._clock = clock
        self.backend = None
        self._checked = False
        resumed = config.redo == "failed" or (config.redo == "changed" and has_records(config.output))
        resumed = resumed or config.tree is not None  # a shard may have no items, or all of them in the tree
        if source.kind == "stdin" and not self._came(describe):
            return
        if describe is None or not resumed or source.kind == "stdin":
            self.open()
        else:
            self.summary = source.outline()
            self._fetch()
            self.info = describe(config)
            progress.checking()

    def _came(self, describe: DescribeModel | None) -> bool:
        """Whether standard input sent anything before the run was stopped. If not, only a report is to be written.

        Raises SourceStoppedError or KeyboardInterrupt where there is no output folder for a report.
        """
        try:
            self.check()
        except (SourceStoppedError, KeyboardInterrupt):
            if describe is None or not self._config.output.is_dir() or not self._source.stopped():
                raise
            INTERRUPTS.take()
            self.summary = SourceSummary(items=None, settings=BUILT_IN)
            self.info = describe(self._config)
            return False
        return True

    def check(self) -> None:
        """Check the source as a whole; a second call does nothing. Raises `ManifestError`."""
        if not self._checked:
            self.summary = self._source.check()
            self._checked = True

    def _fetch(self) -> None:
        if self._fetcher is not None:
            self._fetcher(self._config, self._progress.downloading)

    def open(self, done: int = 0) -> LoadedModel:
        """Check the source, then load the model; a second call does nothing. So many items need no edit any more.

        Raises `ManifestError` for a faulty source, and whatever loading raises.
        """
        if self.backend is None:
            self.check()
            self._fetch()
            self._progress.loading(self._config)
            with self._clock.stage("load"):
                self.backend = self._load(with_loras(with_outlook(self._config, self.summary, done), self.summary))
            self.info = self.backend.info
            self._progress.started(self.info, self.summary)
        return self.backend

    def identity(self) -> str:
        """What tells the model from others."""
        return model_identity(self.info, self._config)

    def close(self) -> None:
        """Give the device's memory back."""
        if self.backend is not None:
            self.backend.close()


def with_outlook(config: RunConfig, summary: SourceSummary, done: int = 0) -> RunConfig:
    """The config with what is known of the items to come, for whoever plans memory and time.

    `done` of them are known to need no edit any more; there may be others among those that nobody has looked at.
    """
    items = None if summary.items is None else max(1, summary.items - done)
    return replace(
        config,
        expected_steps=_expected_steps(summary, items),
        largest=_largest(summary),
        expected_items=items,
        expected_guidance=_has_guidance(summary),
    )


def _has_guidance(summary: SourceSummary) -> bool:
    """Whether an item may have guidance."""
    swept = summary.matrix.axis("guidance_scale")
    own = None if summary.lines is None else summary.lines.values().get("guidance_scale")
    scales = [summary.settings.over(BUILT_IN).guidance_scale] if swept is None else map(float, swept.values)
    found = [*scales, *((own.least, own.most) if own is not None else ())]
    return summary.items is None or any(scale is not None and float(scale) > 1 for scale in found)


def _largest(summary: SourceSummary) -> int | None:
    """The largest base size of an item; None if lines are still to come."""
    swept = summary.matrix.axis("basesize")
    basesize = summary.settings.over(BUILT_IN).basesize if swept is None else max(map(int, swept.values))
    if summary.items is None or basesize is None:
        return None
    own = None if summary.lines is None else summary.lines.values().get("basesize")
    return basesize if own is None else max(basesize, *(int(n) for n in (own.least, own.most) if n is not None))


def with_loras(config: RunConfig, summary: SourceSummary) -> RunConfig:
    """How the LoRAs of a source are used: one set for all items is merged, others are opened for their batches."""
    sets = summary.lora_sets
    if sets is not None and len(sets) == 1:
        return replace(config, merged_loras=sets[0])
    return replace(config, lora_sets=(summary.loras.loras,) if sets is None else sets)


def _expected_steps(summary: SourceSummary, items: int | None) -> float | None:
    """Steps of so many items, each counted as the part of a 1024-pixel step that its base size makes it."""
    settings = summary.settings.over(BUILT_IN)
    if items is None or settings.steps is None or settings.basesize is None:
        return None
    steps = summary.matrix.mean("steps", settings.steps)
    return items * steps * (summary.matrix.mean("basesize", settings.basesize) / 1024) ** 2
