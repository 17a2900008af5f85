"""What a run from Python gives back: how it ended, and its results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from joyedit.api.html import row, table, thumbnail_of
from joyedit.api.result import Result
from joyedit.api.result_list import ResultList
from joyedit.errors import JoyeditError
from joyedit.job.export.columns import cell
from joyedit.job.export.rows import flat, whole
from joyedit.job.not_finite import with_numbers
from joyedit.runtime.run import RunOutcome

_SHOWN = 12


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Outcome(RunOutcome):
    """How a run ended, and a sequence of its results in the order of the source.

    `exit_code`, `report`, `error` and `page` are those of the command. `folder` holds the pictures and the records; a
    temporary one lives as long as the outcome or one of its results. `notes` are remarks that the command would print.
    """

    results: ResultList
    folder: Path
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.results)

    def __bool__(self) -> bool:
        """Always True: an outcome without results is one, too."""
        return True

    @overload
    def __getitem__(self, index: int) -> Result: ...

    @overload
    def __getitem__(self, index: slice) -> list[Result]: ...

    def __getitem__(self, index: int | slice) -> Result | list[Result]:
        return self.results[index]

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    @property
    def failed(self) -> list[Result]:
        """The results without a picture."""
        return [result for result in self if not result.ok]

    def table(self) -> list[dict[str, Any]]:
        """One dict for each result, all with the same keys."""
        rows = [result.row() for result in self]
        names = dict.fromkeys(name for one in rows for name in one)
        return [{name: one.get(name) for name in names} for one in rows]

    def to_pandas(self) -> Any:
        """The table as a DataFrame. Raises JoyeditError where pandas is missing."""
        try:
            import pandas as pd
        except ImportError:
            raise JoyeditError("pandas is not installed: pip install pandas") from None
        return pd.DataFrame(self._columns())

    def to_arrow(self) -> Any:
        """The table as a `pyarrow.Table`. Raises JoyeditError where pyarrow is missing."""
        try:
            import pyarrow as pa
        except ImportError:
            raise JoyeditError('pyarrow is not installed: pip install "joyedit[parquet]"') from None
        return pa.table({name: _arrow_array(pa, values) for name, values in self._columns().items()})

    def _columns(self) -> dict[str, list[Any]]:
        rows = self.table()
        return {name: with_numbers([row[name] for row in rows]) for name in (rows[0] if rows else ())}

    @property
    def told(self) -> str:
        """The counts in one line."""
        report = self.report
        parts = [f"{report.ok} edited"]
        parts += [f"{report.skipped} of them by an earlier run"] if report.skipped else []
        parts += [f"{report.failed} failed"] if report.failed else []
        parts += [f"{report.left} left"] if report.left else []
        parts += [{"interrupted": "interrupted", "out_of_time": "out of time"}.get(report.state, "")]
        parts += [str(self.error)] if self.error is not None else []
        return ", ".join(part for part in parts if part)

    def __repr__(self) -> str:
        return f"Outcome({self.told}; {self.folder})"

    def _repr_html_(self) -> str:
        shown = self.results[:_SHOWN]
        rows = [
            row(
                thumbnail_of(one.path, one._opened),
                one.id,
                one.instruction,
                one.status,
                str((one.error or {}).get("message", "")),
            )
            for one in shown
        ]
        return table(f"{self.told} (in {self.folder})", rows, len(self) - len(shown))


def _arrow_array(pa: Any, values: list[Any]) -> Any:
    """The values as a column of Arrow: as they are, or else in the forms that an export gives them."""
    flat_values = [whole(one) if isinstance(one, str) else one for one in map(flat, values)]
    for form in (values, flat_values):
        try:
            return pa.array(form)
        except (pa.ArrowException, UnicodeEncodeError, OverflowError):
            continue  # values of several kinds, or a byte of a file name that is no UTF-8
    return pa.array([cell(one, "text") for one in flat_values])


class RunInterrupted(KeyboardInterrupt):
    """Somebody interrupted a run. `outcome` holds what is finished; None where the run had not begun."""

    def __init__(self, outcome: Outcome | None) -> None:
        self.outcome = outcome
        told = "before the first item" if outcome is None else outcome.told
        super().__init__(f"{told}; the same call goes on")


_last: list[Outcome] = []


def last_outcome() -> Outcome | None:
    """The outcome of the last run or stream of this process that ended, also of one that was interrupted."""
    return _last[0] if _last else None


def remember(outcome: Outcome) -> Outcome:
    """Make this the last outcome."""
    _last[:] = [outcome]
    return outcome
