"""The note of a shard that is on its way: what joyedit did not write there says nothing, and stops no run."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from joyedit.job.own_files import PACKING
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.writing.packing import Packing

EMPTY: dict[str, Any] = {
    "file": "edited-000000.tar", "bytes": 4, "sha256": "", "shard": 0, "pictures": [], "loose": [], "older": []
}  # fmt: skip


@pytest.mark.parametrize(
    "told",
    [
        b"\x00",
        [],
        {"file": "edited-000000.tar"},
        {**EMPTY, "file": 5},
        {**EMPTY, "file": "../edited-000000.tar"},
        {**EMPTY, "bytes": "4"},
        {**EMPTY, "pictures": [["a"]]},
        {**EMPTY, "pictures": 7},
        {**EMPTY, "loose": [["a.png", "4", 1]]},
        {**EMPTY, "older": [1]},
        EMPTY,
    ],
)
def test_a_note_of_somebody_else(tmp_path: Path, told: Any) -> None:
    (tmp_path / "edited-000000.tar").write_bytes(b"mine")
    (tmp_path / PACKING).write_bytes(told if isinstance(told, bytes) else json.dumps(told).encode())
    with closing(OutputFolder(tmp_path)) as folder:
        folder.prepare()
        with closing(Journal(tmp_path)) as journal:
            assert Packing(folder, journal).recover() is None
    assert not (tmp_path / PACKING).exists()
    assert (tmp_path / "edited-000000.tar").read_bytes() == b"mine"
