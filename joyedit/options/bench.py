"""The options of `joyedit bench`."""

from __future__ import annotations

from dataclasses import dataclass

from joyedit.job.run_config import RandomSize
from joyedit.job.spec import AttentionName, OffloadName, PrecisionName, SpeedName, SwitchName
from joyedit.options.option import option, same_as
from joyedit.options.run import DeviceName, DtypeName, RunOptions
from joyedit.runtime.parallel.layout import ParallelName


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions:
    """The options of `joyedit bench`."""

    size: RandomSize = option(
        "small", "--size", help="full is the published model, small has its proportions for a CPU."
    )
    basesize: int | None = option(
        None, "--basesize", metavar="256|512|768|1024", help="Size of the pictures. [default: 1024 for full, else 256]"
    )
    references: int = option(1, "--references", least=0, most=5, help="Reference pictures of an item.")
    batch_size: int = option(1, "--batch-size", least=1, help="Items that go through the networks together.")
    steps: int | None = option(None, "--steps", least=1, help="Steps of the whole edit. [default: 40 for full, else 8]")
    rounds: int = option(5, "--rounds", least=1, help="Timed passes of each stage; the median counts.")
    edits: int = option(1, "--edits", least=1, help="Timed passes of the whole edit.")
    speed: SpeedName = option(
        "exact", "--speed",
        help="Time the whole edit with this level of joyedit run too, in turns with the exact one. Changes of random "
        "weights mean nothing, so as many steps are computed as with nano.",
    )  # fmt: skip
    gpus: str | None = option(
        None, "--gpus", metavar="all|N|LIST",
        help="Measure whole edits by one of these GPUs, by two, four, ... and all of them: all, a number, or indices "
        "such as 0,2. [default: the stages on one GPU]",
    )  # fmt: skip
    parallel: ParallelName = option(
        "data", "--parallel",
        help="How they share the work, as with run; auto is what a run of one item does.",
    )  # fmt: skip
    device: DeviceName = same_as(RunOptions, "device")
    dtype: DtypeName = same_as(RunOptions, "dtype")
    precision: PrecisionName = same_as(RunOptions, "precision")
    attention: AttentionName = same_as(RunOptions, "attention")
    memory: str = same_as(RunOptions, "memory")
    offload: OffloadName = same_as(RunOptions, "offload")
    fused: SwitchName = same_as(RunOptions, "fused")
    compile: SwitchName = same_as(RunOptions, "compile")
    json: bool = option(False, "--json", help="Print one JSON object; the table goes to stderr then.")
    verbose: bool = option(False, "-v", "--verbose", help="Print tracebacks of errors.")
