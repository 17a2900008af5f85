"""What `joyedit run` does with its options: a dry run, or the run itself with progress and summary."""

from __future__ import annotations

from joyedit.cli import console
from joyedit.cli.dry_run import dry_run
from joyedit.cli.progress import RunProgress
from joyedit.cli.streams import Pump
from joyedit.job.own_files import FAILED, LOG, RESULTS
from joyedit.options import RunOptions
from joyedit.request import build_request
from joyedit.runtime.model import backend_loader, describe_without_loading
from joyedit.runtime.run import run


def execute(options: RunOptions, pump: Pump | None = None) -> int:
    """Do it; gives the exit code. Raises `JoyeditError` for what is refused before anything is written."""
    request = build_request(options)
    if options.dry_run:
        return dry_run(request, json=options.json is not None, quiet=options.quiet)
    progress = RunProgress(request, json=options.json, quiet=options.quiet, verbose=options.verbose, pump=pump)
    try:
        outcome = run(
            request.source,
            request.config,
            load_backend=backend_loader(options.model),
            describe=describe_without_loading,
            progress=progress,
        )
    finally:
        progress.close()
    report = outcome.report
    if outcome.error is not None:
        console.error(outcome.error)
    if report.failed:
        folder = request.config.output
        console.message(f"{report.failed} of {report.items} items failed: see {folder / RESULTS} and {folder / LOG}")
        if (folder / FAILED).exists() and not options.quiet:
            console.message(
                f"to edit only these items again, add --retry-failed to the same command, or run {folder / FAILED}"
            )
    if not options.quiet and not options.json:
        console.table(report.rows())
    return outcome.exit_code
