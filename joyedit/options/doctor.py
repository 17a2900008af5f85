"""The options of `joyedit doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from joyedit.job.spec import OffloadName, PrecisionName
from joyedit.options.option import option, same_as
from joyedit.options.run import DeviceName, DtypeName, RunOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorOptions:
    """The options of `joyedit doctor`. None stands for an option that was not given."""

    model: str | None = same_as(RunOptions, "model")
    dit: str | None = same_as(RunOptions, "dit")
    encoder: str | None = same_as(RunOptions, "encoder")
    vae: str | None = same_as(RunOptions, "vae")
    tokenizer: str | None = same_as(RunOptions, "tokenizer")
    output: Path = option(Path("edited"), "-o", "--output", metavar="DIR", help="The folder for the edited pictures.")
    device: DeviceName = same_as(RunOptions, "device")
    dtype: DtypeName = same_as(RunOptions, "dtype")
    precision: PrecisionName = same_as(RunOptions, "precision")
    memory: str = same_as(RunOptions, "memory")
    offload: OffloadName = same_as(RunOptions, "offload")
    basesize: int | None = same_as(RunOptions, "basesize")
    json: bool = option(False, "--json", help="Print one JSON object.")
    verbose: bool = option(False, "-v", "--verbose", help="Print tracebacks of errors.")
