"""`metadata.jsonl` of an image folder: `datasets` of Hugging Face reads the folder back by it.

Each line has `original_image_file_name`, `edit_prompt` and `edited_image_file_name`, so the columns are those of
InstructPix2Pix, and all fields of the row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from joyedit.errors import UsageError
from joyedit.job.number_table import NumberTable
from joyedit.job.own_files import METADATA, RESULTS
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import beside_of, output_of
from joyedit.job.writing.beside import MASKS, ORIGINALS, ROW_PICTURES
from joyedit.job.writing.samples import ABOUT, EDITED, MASK, ORIGINAL, PROMPT, Columns, Sample

_FILE = "_file_name"


def write_metadata(folder: OutputFolder, journal: Journal, order: NumberTable) -> None:
    """Write the list of all finished pictures, or remove it where there are none. Raises `OutputError`.

    `order` has the place of items in the source, by id. Those that are not there follow.
    """
    ids = sorted(journal.ids(), key=lambda name: len(order) if (place := order.get(name)) is None else place)
    columns = Columns.of(_samples(folder, journal, ids))
    names: dict[str, None] = {}
    for one in _samples(folder, journal, ids):
        names |= dict.fromkeys(_line(columns, one))
    if not names:
        folder.remove(METADATA)
        return

    def fill(file: BinaryIO) -> None:
        for sample in _samples(folder, journal, ids):
            line = _line(columns, sample)
            whole = {name: line.get(name) for name in names}  # a reader takes the columns from the first lines
            file.write(json.dumps(whole).encode() + b"\n")

    folder.write(METADATA, fill)


def refuse_foreign_list(folder: Path) -> None:
    """Raises UsageError for a `metadata.jsonl` in a folder where joyedit has written nothing."""
    if (folder / METADATA).exists() and not (folder / RESULTS).exists():
        raise UsageError(
            f"{folder / METADATA}: this file is not from joyedit, and --write imagefolder would replace it (choose "
            "another output folder with -o)"
        )


def _samples(folder: OutputFolder, journal: Journal, ids: Iterable[str]) -> Iterator[Sample]:
    for name in ids:
        record = journal.final(name)
        if record is not None and output_of(record) is not None:
            yield Sample.of(folder.path, record, journal.finished)


def _line(columns: Columns, sample: Sample) -> dict[str, Any]:
    files = {_column_of(one.file, sample): one.file for one in beside_of(sample.record)}
    line: dict[str, Any] = {f"{ORIGINAL}{_FILE}": files.pop(ORIGINAL, None), PROMPT: sample.instruction}
    line |= {f"{EDITED}{_FILE}": output_of(sample.record)}
    line |= {f"{column}{_FILE}": file for column, file in files.items()}
    taken = {name.removesuffix(_FILE) for name in line}
    values = {name if name not in taken else f"joyedit_{name}": value for name, value in _values(columns, sample)}
    return line | values | {columns.own[ABOUT]: json.dumps(sample.about())}


def _values(columns: Columns, sample: Sample) -> Iterator[tuple[str, Any]]:
    for name, value in columns.values_of(sample).items():
        if name != columns.own.get(PROMPT):
            yield name, value


def _column_of(file: str, sample: Sample) -> str:
    """The column of a file beside a picture, by the folder where it lies."""
    folder, _, rest = file.partition("/")
    stem = rest.rpartition(".")[0]
    own = sample.name.rpartition(".")[0]
    if folder == ROW_PICTURES:
        column, _, stem = rest.rpartition(".")[0].partition("/")
    else:
        column = {ORIGINALS: ORIGINAL, MASKS: MASK}.get(folder, folder)
    return column + stem.removeprefix(own)
