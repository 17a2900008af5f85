"""`joyedit doctor`: what this machine can do, and what stands in the way of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from joyedit.cli import console
from joyedit.cli.options import takes_options
from joyedit.errors import EXIT_OK, EXIT_USAGE
from joyedit.options import DoctorOptions

if TYPE_CHECKING:
    from joyedit.runtime.doctor.findings import Examination


_ALL_WELL = "nothing here would stop a run"
_ONLY_SMALL = "the published model would not run here; nothing would stop a smaller one, such as --model nano"


def _is_too_small(report: Examination) -> bool:
    """Whether nobody named a model, and the published one finds no room here."""
    return any(one.about == "published model" for one in report.advice)


@takes_options(DoctorOptions)
def doctor_command(ctx: typer.Context, options: DoctorOptions) -> None:
    """Look at this machine and at a checkpoint: device, kernels, memory, disks, placement, expected time.

    Loads no weights and asks no network. Problems have their remedies. Exit codes: 0 a run could start, 2 something
    would stop it.
    """
    ctx.obj.verbose = options.verbose
    from json import dumps

    from joyedit.request import doctor_request
    from joyedit.runtime.doctor.diagnose import diagnose

    report = diagnose(*doctor_request(options))
    if options.json:
        console.result(dumps(report.to_dict()))
    else:
        console.table(report.rows)
        for one in report.advice:
            first, *rest = one.lines()
            console.result("\n".join([f"note: {first}", *rest]))
        if not report.problems:
            console.result(_ALL_WELL if not _is_too_small(report) else _ONLY_SMALL)
    if options.verbose:
        for trace in report.traces:
            console.message(trace)
    if report.problems:
        count = "1 problem" if len(report.problems) == 1 else f"{len(report.problems)} problems"
        lines = [line for one in report.problems for line in one.lines()]
        console.error("\n".join([f"{count} would stop a run", *lines]))
    raise typer.Exit(EXIT_USAGE if report.problems else EXIT_OK)
