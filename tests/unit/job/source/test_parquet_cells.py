"""The pictures of a Parquet file that stay in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from joyedit.job.contained import Cell
from joyedit.job.containers import parquet_cells
from joyedit.job.containers.parquet_cells import ParquetCells
from support import datasets


def test_tiny_pictures_count_with_what_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_cells, "MOST_KEPT", 1 << 14)
    rows = [{"image": {"bytes": bytes([number % 256, number >> 8]), "path": None}} for number in range(500)]
    file = tmp_path / "a.parquet"
    datasets.write_parquet(file, rows)
    cells = ParquetCells()
    for number in range(500):
        assert cells.read(str(file), Cell(number // 100, number % 100, "image")) == rows[number]["image"]["bytes"]
    assert 1 < len(cells._kept) <= (1 << 14) // 512
