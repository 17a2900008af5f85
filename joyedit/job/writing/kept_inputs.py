"""Pictures that stand in lines of the source (`data:`), kept until they lie in a shard: no record holds them.

They are files of the folder `.joyedit.inputs`, named by their hashes.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from joyedit.errors import ItemError
from joyedit.job.data_picture import DataPicture
from joyedit.job.own_files import KEPT_INPUTS
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.safe_open import open_to_read
from joyedit.job.spec import EditItem

_ADDRESS = re.compile(r"data:.*;sha256=([0-9a-f]{64})")


def keep_inputs(folder: OutputFolder, item: EditItem) -> None:
    """Keep the pictures of the item that stand in its line. Raises `OutputError`."""
    for one in item.inputs:
        if isinstance(one, DataPicture) and not os.path.lexists(_path(folder.path, one.sha256)):
            folder.write_bytes(f"{KEPT_INPUTS}/{one.sha256}", one.data)


def kept_input(folder: Path, address: str) -> bytes:
    """The bytes of such a picture. Raises ItemError where they are not there."""
    told = _ADDRESS.fullmatch(address)
    try:
        with open(open_to_read(_path(folder, told[1] if told else "")), "rb") as file:
            return file.read()
    except OSError as error:
        message = f"{address} stands in its line of the source, and was not kept (--overwrite edits its item again)"
        raise ItemError("missing_picture", message) from error


def forget_inputs(folder: OutputFolder) -> None:
    """Remove what was kept."""
    if os.path.lexists(folder.path / KEPT_INPUTS):
        shutil.rmtree(folder.path / KEPT_INPUTS, ignore_errors=True)


def _path(folder: Path, sha256: str) -> Path:
    return folder / KEPT_INPUTS / sha256
