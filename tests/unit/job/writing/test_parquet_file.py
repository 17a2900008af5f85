"""The types of the columns of a table: those of the values, and the same in all shards of a run."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from joyedit.job.writing.parquet_file import ids_in_parquet, write_parquet
from joyedit.job.writing.samples import Sample
from support.datasets import encoded

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def samples(folder: Path, columns: Sequence[dict[str, Any]]) -> list[Sample]:
    (folder / "a.png").write_bytes(encoded(1))
    record = {"status": "ok", "instruction": "x", "inputs": [], "output": "a.png"}
    record |= {"output_sha256": hashlib.sha256(encoded(1)).hexdigest()}
    return [
        Sample.of(folder, {**record, "id": f"a{n}", "columns": one}, lambda name: None) for n, one in enumerate(columns)
    ]


def table(folder: Path, columns: Sequence[dict[str, Any]], like: Sequence[str] = ()) -> Any:
    file = io.BytesIO()
    inner = write_parquet(file, samples(folder, columns), like)
    assert inner == [f"row={number}.edited_image" for number in range(len(columns))]
    return pq.read_table(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize(
    ("values", "kind", "back"),
    [
        ([1, None], pa.int64(), [1, None]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([True, None], pa.bool_(), [True, None]),
        (["a", None], pa.string(), ["a", None]),
        ([None, None], pa.string(), [None, None]),
        ([[1], [2, 3]], pa.list_(pa.int64()), [[1], [2, 3]]),
        ([1, "a"], pa.string(), ["1", '"a"']),
        ([1 << 70, 1], pa.string(), ["1180591620717411303424", "1"]),
        ([{"a": 1}, [1]], pa.string(), ['{"a": 1}', "[1]"]),
    ],
)
def test_types_of_values(tmp_path: Path, values: list[Any], kind: Any, back: list[Any]) -> None:
    found = table(tmp_path, [{"x": value} for value in values])
    assert found.schema.field("x").type == kind
    assert found.column("x").to_pylist() == back


def test_all_shards_have_one_schema(tmp_path: Path) -> None:
    first = tmp_path / "edited-000000.parquet"
    with open(first, "wb") as file:
        write_parquet(file, samples(tmp_path, [{"x": 1.5, "y": "a"}, {"x": None, "y": "b"}]))
    later = table(tmp_path, [{"x": 1}], [str(tmp_path / "a.png"), str(first)])
    assert later.schema == pq.read_schema(first)
    assert (later.column("x").to_pylist(), later.column("y").to_pylist()) == ([1.0], [None])
    assert ids_in_parquet(str(first)) == ["a0", "a1"]


def test_more_rows_than_a_row_group(tmp_path: Path) -> None:
    file = io.BytesIO()
    write_parquet(file, samples(tmp_path, [{"n": n} for n in range(250)]))
    found = pq.ParquetFile(io.BytesIO(file.getvalue()))
    assert [found.metadata.row_group(n).num_rows for n in range(found.num_row_groups)] == [100, 100, 50]
    assert found.read().column("n").to_pylist() == list(range(250))
