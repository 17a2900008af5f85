"""`joyedit export OUT`: the records of a run as a table."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from joyedit.cli import console

if TYPE_CHECKING:
    from joyedit.job.export.export import Export

Folder = Annotated[Path, typer.Argument(metavar="OUT", help="An output folder of joyedit run.", show_default=False)]
To = Annotated[
    Literal["csv", "parquet", "jsonl"] | None,
    typer.Option("--to", help="The format. [default: that of the file's name]", show_default=False),
]
Output = Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="The file to write; - is standard output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is no export of joyedit.")]
Exact = Annotated[
    bool, typer.Option("--exact-text", help="CSV: leave texts as they are that a spreadsheet takes for formulas.")
]
Bom = Annotated[bool, typer.Option("--bom", help="CSV: begin with the mark by which Excel knows UTF-8.")]
_ENDINGS: dict[str, Literal["csv", "parquet", "jsonl"]] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl"}
_DRAIN = 500
"""After so many rows on standard output its reader is waited for, so that rows do not pile up in memory."""


def export_command(
    ctx: typer.Context,
    folder: Folder,
    to: To = None,
    output: Output = "-",
    *,
    overwrite: Overwrite = False,
    exact_text: Exact = False,
    bom: Bom = False,
) -> None:
    """Write the final records of OUT as a table: one row an item, nested keys as columns.

    joyedit export edited --to csv -o edited.csv

    joyedit export edited --to jsonl | jq -r .error_code

    Shards need not be merged, and a run may be going on: then the rows are those of the beginning of the export.
    Columns that a dataset brought (--keep-columns) keep their names. Parquet needs an extra (joyedit[parquet]).
    Exit codes: 0 the table is written, 1 it cannot be written, 2 OUT is no output folder of joyedit, or the file stays.
    """
    from joyedit.errors import UsageError
    from joyedit.job.export.export import Export, refuse_path
    from joyedit.job.results.objects.address import refuse_address
    from joyedit.printable import printable

    refuse_address(folder, "export", "copy its results.jsonl and report.json to a folder, and give that")
    refuse_address(output, "export -o", "copy the file there afterwards", taken="a file")
    path = None if output == "-" else Path(output).expanduser()
    format = to or (None if path is None else _ENDINGS.get(path.suffix.lower()))
    if format is None:
        raise UsageError("the format is not known: add --to csv, --to parquet or --to jsonl")
    if format != "csv" and (exact_text or bom):
        raise UsageError("--exact-text and --bom are for CSV (leave them out)")
    if path is not None:
        refuse_path(path, format, overwrite=overwrite)
    elif format == "parquet" and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal (give a file with -o, or a pipe)")

    def told(rows: int) -> None:
        console.message(f"{rows:,} rows so far", "progress", done=rows)

    export = Export(folder, format, guard=not exact_text, bom=bom, told=told)
    if path is None:
        _print(export, ctx.obj.pump)
        console.all_written(ctx.obj, "the table")
        return
    export.save(path, overwrite=overwrite)
    console.message(f"{export.rows:,} rows, {len(export.columns.kinds)} columns")
    console.result(printable(str(path)))


def _print(export: Export, pump: Any) -> None:
    """The table on standard output; its reader sets the speed."""
    rows = 0

    def written() -> None:
        nonlocal rows
        rows += 1
        if pump is not None and rows % _DRAIN == 0:
            pump.drain()

    file: Any = _Unclosed(sys.stdout)
    try:
        export.write(file, written)
    except KeyboardInterrupt:
        if pump is not None:
            pump.stopped = lambda: True  # a reader that does not read is not waited for
        raise


class _Unclosed(io.RawIOBase):
    """Standard output as a file of bytes, on a terminal without control characters; closing it does nothing."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, data: Any) -> int:
        """All of it."""
        taken = bytes(data)
        if self._stream.isatty():
            from joyedit.printable import printable_lines

            self._stream.write(printable_lines(taken.decode("utf-8", "replace")))
        else:
            self._stream.flush()
            self._stream.buffer.write(taken)
        return len(taken)

    def flush(self) -> None:
        """To the reader."""
        self._stream.flush()

    def close(self) -> None:
        """Nothing: the command writes on."""

    def writable(self) -> bool:
        """Always."""
        return True
