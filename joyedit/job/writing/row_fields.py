"""What a record lacks of the row of its item: a run that wrote loose pictures needed less of it than a dataset does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joyedit.job.results.records import row_record, without_replaced
from joyedit.job.spec import EditItem


def with_row(record: Mapping[str, Any], item: EditItem) -> dict[str, Any] | None:
    """The record with the columns and the row that the item has now; None where it has all their names already."""
    columns = item.columns or {}
    row = {} if item.row is None else row_record(item.row)
    then = _table(record.get("row"))
    has_all = columns.keys() <= _table(record.get("columns")).keys() and all(
        row[part].keys() <= _table(then.get(part)).keys() for part in ("values", "pictures") if row
    )
    if has_all and (not row or then):
        return None
    return without_replaced(record) | {"columns": columns} | ({"row": row} if row else {})


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
