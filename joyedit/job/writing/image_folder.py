"""`metadata.jsonl` of an image folder: `datasets` of Hugging Face reads the folder back by it.

Each line has `original_image_file_name`, `edit_prompt` and `edited_image_file_name`, so the columns are those of
InstructPix2Pix, and all fields of the row. Where the row has one of these, joyedit's is `joyedit_...`, as in shards.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from joyedit.errors import OutputError, UsageError
from joyedit.job.number_table import NumberTable
from joyedit.job.own_files import METADATA
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import beside_of, mask_path, output_of
from joyedit.job.results.safe_open import open_to_read
from joyedit.job.writing.beside import MASKS, ORIGINALS, ROW_PICTURES
from joyedit.job.writing.samples import ABOUT, EDITED, MASK, ORIGINAL, PROMPT, Columns, Sample, about_in

_FILE = "_file_name"
_TEXT = "_text"
_PICTURE = re.compile("(?:.*_)?file_names?", re.DOTALL)
"""Names of columns that every reader of image folders takes for the path of a picture, whatever the values are."""
_OWN_PICTURE = re.compile(f"(?:joyedit_)*{EDITED}{_FILE}")
_MOST_LINE = 64 << 20


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
    """Raises UsageError for a `metadata.jsonl` that joyedit did not write."""
    if os.path.lexists(folder / METADATA) and not _is_own_list(folder / METADATA):
        raise UsageError(
            f"{folder / METADATA}: this file is not from joyedit, and --write imagefolder would replace it (move it "
            "away, or choose another output folder with -o)"
        )


def _is_own_list(path: Path) -> bool:
    """Whether the first line of this list is one of `write_metadata`."""
    try:
        with open(open_to_read(path), "rb") as file:
            line = json.loads(file.readline(_MOST_LINE))
    except (OSError, OutputError, ValueError, RecursionError):
        return False
    return isinstance(line, dict) and about_in(line) is not None and any(map(_OWN_PICTURE.fullmatch, line))


def _samples(folder: OutputFolder, journal: Journal, ids: Iterable[str]) -> Iterator[Sample]:
    for name in ids:
        record = journal.final(name)
        if record is not None and output_of(record) is not None:
            yield Sample.of(folder.path, record, journal.finished)


def _line(columns: Columns, sample: Sample) -> dict[str, Any]:
    """The row under its own names. Where joyedit has one of these too, it has another one, as in `Columns`."""
    files = {_column_of(one.file, columns, sample): one.file for one in beside_of(sample.record)}
    values = columns.values_of(sample)
    prompt, original = columns.own.get(PROMPT, PROMPT), _original(columns, sample)
    line: dict[str, Any] = {f"{original}{_FILE}": files.pop(original, None), prompt: values.pop(prompt)}
    line |= {f"{columns.own[EDITED]}{_FILE}": output_of(sample.record)}
    line |= {f"{column}{_FILE}": file for column, file in files.items()}
    line |= {f"{name}{_TEXT}" if _PICTURE.fullmatch(name) else name: value for name, value in values.items()}
    return line | {columns.own[ABOUT]: json.dumps(sample.about())}


def _column_of(file: str, columns: Columns, sample: Sample) -> str:
    """The column of a file beside a picture, by the folder where it lies."""
    folder, _, rest = file.partition("/")
    stem, own = rest.rpartition(".")[0], sample.name.rpartition(".")[0]
    if folder == ROW_PICTURES:
        told = re.fullmatch(f"(.+)/{re.escape(own)}((?:_[0-9]+)?)", stem, re.DOTALL)
        return stem if told is None else told[1] + told[2]
    if folder == MASKS:
        return MASK if mask_path(sample.record) in sample.row_pictures.get(MASK, ()) else columns.own[MASK]
    return _original(columns, sample) + folder.removeprefix(ORIGINALS)


def _original(columns: Columns, sample: Sample) -> str:
    """The column of the first picture that was edited: `original_image`, if no other picture has that name."""
    return ORIGINAL if sample.edited_column == ORIGINAL else columns.own[ORIGINAL]
