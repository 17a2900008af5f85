"""How a run ended: at the end of its source, where every item that was counted is accounted for, or by an error."""

from __future__ import annotations

from collections.abc import Callable

from joyedit.errors import JoyeditError, first_line
from joyedit.job.results.run_counts import Tally
from joyedit.job.source.source import Source
from joyedit.runtime.pipeline.stats import Ending


def all_accounted_for(
    tally: Tally,
    came: int,
    source: Source,
    *,
    again: int,
    is_update: bool,
    note: Callable[[str], None],
    log: Callable[[str], None],
) -> Ending:
    """The ending where `came` items came. `again` finished pictures were edited once more. `note` tells the user, `log`
    writes to the log.

    Notes in `tally` which items were counted and did not come.
    """
    if came != tally.recorded + tally.left:
        known = tally.recorded + tally.left
        return Ending("stopped", JoyeditError(f"{came} items came, {known} are known: this is a fault of joyedit"))
    if again:
        what = "1 finished picture is" if again == 1 else f"{again} finished pictures are"
        why = "" if is_update else ": line, picture or edited file changed since the last run"
        note(f"{what} edited again{why}")
    tally.missing = source.counted_missing()
    if tally.missing:
        told = f"{source.name}: {tally.missing} of {came + tally.missing} items were gone when their turn came"
        log(told)
        note(told)
    return Ending("complete")


def ending_of(error: BaseException, *, is_interrupted: bool) -> Ending:
    """The ending of a run that `error` stopped."""
    if is_interrupted or isinstance(error, KeyboardInterrupt):
        return Ending("interrupted")
    if isinstance(error, JoyeditError):
        return Ending("stopped", error)
    text = f"unexpected error, {type(error).__name__}: {first_line(error)}"
    return Ending("stopped", JoyeditError(text))
