"""The types of the columns of a table: those of the values, and the same in all shards of a run."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import ItemError
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


def test_numbers_that_are_not_finite_are_numbers_again(tmp_path: Path) -> None:
    """Records hold them as texts. Where all values are such texts, an earlier shard says what they are."""
    inf, path = float("inf"), tmp_path / "edited-000000.parquet"
    with open(path, "wb") as file:
        write_parquet(file, samples(tmp_path, [{"x": 1.5, "y": [1.0, "-inf"]}, {"x": "inf", "y": None}]))
    first = pq.read_table(path)
    assert first.schema.field("x").type == pa.float64()
    assert first.column("x").to_pylist() == [1.5, inf]
    assert first.column("y").to_pylist() == [[1.0, -inf], None]
    later = table(tmp_path, [{"x": "nan"}], [str(path)])
    assert later.schema.field("x").type == pa.float64()
    assert math.isnan(later.column("x").to_pylist()[0])
    assert table(tmp_path, [{"x": "nan"}]).column("x").to_pylist() == ["nan"]
    assert table(tmp_path, [{"x": "nan"}, {"x": "a"}]).column("x").to_pylist() == ["nan", "a"]


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


@pytest.mark.parametrize(
    ("first", "later", "kind", "back"),
    [
        ([5, 6], [5.7, None], pa.float64(), [5.7, None]),
        ([{"a": 1}], [{"a": 1, "b": 2}], pa.struct([("a", pa.int64()), ("b", pa.int64())]), [{"a": 1, "b": 2}]),
        ([[1]], [[1.5]], pa.list_(pa.float64()), [[1.5]]),
        ([1.5], [1], pa.float64(), [1.0]),
        ([1.5], [(1 << 53) + 1], pa.int64(), [(1 << 53) + 1]),
        (["a"], [7], pa.int64(), [7]),
    ],
)
def test_no_value_is_cut_to_the_type_of_an_earlier_shard(
    tmp_path: Path, first: list[Any], later: list[Any], kind: Any, back: list[Any]
) -> None:
    path = tmp_path / "edited-000000.parquet"
    with open(path, "wb") as file:
        write_parquet(file, samples(tmp_path, [{"x": value} for value in first]))
    found = table(tmp_path, [{"x": value} for value in later], [str(path)])
    assert found.column("x").to_pylist() == back
    assert found.schema.field("x").type == kind


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ({}, "{}"),
        ({"a": {}}, '{"a": {}}'),
        ([{}], "[{}]"),
        ("half \ud800 é", "half \\ud800 é"),
        ({"\udcff": "\ud800"}, {"\\udcff": "\\ud800"}),
    ],
)
def test_values_that_parquet_does_not_take_as_they_are(tmp_path: Path, value: Any, back: Any) -> None:
    assert table(tmp_path, [{"x": value}]).column("x").to_pylist() == [back]


def test_rows_that_fit_into_no_table_are_told(tmp_path: Path) -> None:
    with pytest.raises(ItemError, match=r"these rows do not fit into a table: .*surrogates not allowed"):
        table(tmp_path, [{"\ud800": 1}])


def with_pictures(folder: Path, held: Sequence[str | None]) -> list[Sample]:
    rows = [{"row": {"values": {}, "pictures": {"depth": [] if one is None else one}, "edited": None}} for one in held]
    (folder / "d.png").write_bytes(encoded(2))
    plain = samples(folder, [{}] * len(rows))
    return [Sample.of(folder, {**one.record, **row}, lambda name: None) for one, row in zip(plain, rows, strict=True)]


def test_a_column_of_pictures_in_which_a_shard_has_none(tmp_path: Path) -> None:
    picture, schemas = str(tmp_path / "d.png"), []
    for number, held in enumerate(([None, None], [picture, None], [None, None])):
        path = tmp_path / f"edited-{number:06}.parquet"
        with open(path, "wb") as file:
            write_parquet(file, with_pictures(tmp_path, held), map(str, sorted(tmp_path.glob("*.parquet"))))
        schemas.append(pq.read_schema(path))
        cells = pq.read_table(path).column("depth").to_pylist()
        assert cells == [None if one is None else {"bytes": encoded(2), "path": "a.png"} for one in held]
    assert schemas[0] == schemas[1] == schemas[2]
    assert "depth" in json.loads(schemas[0].metadata[b"huggingface"])["info"]["features"]


def test_a_column_of_pictures_whose_rows_say_nothing(tmp_path: Path) -> None:
    """As of a list in which a picture is `null`."""
    first, second = tmp_path / "edited-000000.parquet", tmp_path / "edited-000001.parquet"
    with open(first, "wb") as file:
        write_parquet(file, with_pictures(tmp_path, [str(tmp_path / "d.png")]))
    with open(second, "wb") as file:
        write_parquet(file, samples(tmp_path, [{"depth": None}]), [str(first)])
    assert pq.read_schema(second) == pq.read_schema(first)


def test_id_and_instruction_have_columns_in_all_shards(tmp_path: Path) -> None:
    """Also where the rows say the same: those of the next shard may not."""
    same = [{"id": "a0", "edit_prompt": "x"}, {"id": "a1", "edit_prompt": "x"}]
    found = table(tmp_path, same)
    assert found.column("joyedit_edit_prompt").to_pylist() == ["x", "x"]
    assert found.column("joyedit_id").to_pylist() == ["a0", "a1"]
    other = table(tmp_path, [{**one, "edit_prompt": "x "} for one in same])
    assert other.schema.names == found.schema.names
