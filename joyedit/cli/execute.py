"""What `joyedit run` does with its options: a dry run, or the run itself with progress and summary."""

from __future__ import annotations

from joyedit.cli import console, run_events
from joyedit.cli.dry_run import dry_run_there
from joyedit.cli.progress import RunProgress
from joyedit.cli.streams import Pump
from joyedit.job.own_files import FAILED, LOG, RESULTS
from joyedit.job.results.report import Report, seconds_text
from joyedit.options import RunOptions
from joyedit.printable import printable
from joyedit.request import build_request, run_request, shown_place


def execute(options: RunOptions, pump: Pump | None = None) -> int:
    """Do it; gives the exit code. Raises `JoyeditError` for what is refused before anything is written."""
    request = build_request(options)
    for note in request.notes if not options.quiet else ():
        console.note(note)
    if options.dry_run:
        return dry_run_there(request, json=options.json is not None, quiet=options.quiet)
    progress = RunProgress(request, json=options.json, quiet=options.quiet, verbose=options.verbose, pump=pump)
    try:
        outcome = run_request(request, progress)
    finally:
        progress.close()
    report = outcome.report
    if not options.quiet:
        run_events.tell_summary(report, outcome.page)
    if outcome.error is not None:
        console.error(outcome.error)
    if report.failed:
        folder, objects = request.config.output, request.config.objects
        results, log, failed = (shown_place(folder, objects, name) for name in (RESULTS, LOG, FAILED))
        console.message(f"{report.failed} of {report.items} items failed: see {results} and {log}")
        if request.picture is not None and not options.quiet:
            console.message(f"the same command tries it again and removes {folder}")
        elif (folder / FAILED).exists() and not options.quiet:
            also = f", or run {failed}" if objects is None else ""
            console.message(f"to edit only these items again, add --retry-failed to the same command{also}")
    is_one = report.items == 1 and not options.verbose
    if options.json or (is_one and not options.quiet):
        progress.tell_picture()
    if options.quiet or options.json:
        return outcome.exit_code
    page = [] if outcome.page is None else [("page", printable(str(outcome.page)))]
    if is_one:
        _tell_one(report)
    else:
        console.table([*report.rows(), *page])
    return outcome.exit_code


def _tell_one(report: Report) -> None:
    """The line after the only picture of a run. Times of stages say little about one picture; -v shows them."""
    if report.ok and not report.skipped:
        loading = report.stages.get("load", 0.0)
        console.message(f"edited in {seconds_text(report.seconds)} ({seconds_text(loading)} of it to load the model)")
