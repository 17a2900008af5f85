"""Samples -> a Parquet file whose pictures `datasets` of Hugging Face reads back as its `Image`.

A picture is a struct `{bytes, path}`; a cell of several pictures is a list of these. The schema names these columns in
its metadata `huggingface`. Texts and numbers have the types that their values have; of a column that an earlier shard
has, the type is the one there, so that all shards of a run are one table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from joyedit.errors import ItemError, first_line
from joyedit.job.not_finite import with_numbers
from joyedit.job.writing.samples import ABOUT, EDITED, MASK, Columns, PictureBytes, Sample, about_in

_ROWS = 100
"""Rows of a row group: a reader jumps to the beginning of one."""
_GROUP_BYTES = 64 << 20
_MOST_INT = 1 << 63


def write_parquet(file: BinaryIO, samples: Sequence[Sample], like: Iterable[str] = ()) -> list[str]:
    """Write the table; gives the inner name of each edited picture. `like` are other shards of the run.

    Raises ItemError, also for rows that Parquet cannot hold, and OSError.
    """
    import pyarrow as pa

    try:
        return _write(file, samples, like)
    except (pa.ArrowException, UnicodeError) as error:
        if isinstance(error, OSError):
            raise
        raise ItemError("write_failed", f"these rows do not fit into a table: {first_line(error)}") from error


def _write(file: BinaryIO, samples: Sequence[Sample], like: Iterable[str]) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = Columns.of(samples, always=True)
    has_originals = any(one.edited_column is None for one in samples)
    # All shards have these columns, also one whose items have no masks.
    columns = replace(columns, has_masks=True, originals=max(columns.originals, int(has_originals)))
    known = _known_types(like)
    values = _value_columns(columns, samples, known)
    schema = _schema(columns, values, known)
    with pq.ParquetWriter(file, schema) as writer:
        first = 0
        while first < len(samples):
            cells: list[dict[str, Any]] = []
            held = 0
            while first + len(cells) < len(samples) and len(cells) < _ROWS and held < _GROUP_BYTES:
                number = first + len(cells)
                found = dict(columns.pictures_of(samples[number]))
                held += sum(len(one.data) for several in found.values() for one in several)
                cells.append(_picture_cells(samples[number], found, schema))
            arrays = [
                values[name].slice(first, len(cells))
                if name in values
                else pa.array([cell.get(name) for cell in cells], type=schema.field(name).type)
                for name in schema.names
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=len(cells))
            first += len(cells)
    return [f"row={number}.{columns.own[EDITED]}" for number in range(len(samples))]


def _known_types(paths: Iterable[str]) -> dict[str, Any]:
    """The types of the columns of the first of these files that can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        try:
            return {field.name: field.type for field in pq.read_schema(path)}
        except (pa.ArrowException, OSError):  # damaged: it is written anew
            continue
    return {}


def ids_in_parquet(path: str) -> list[str]:
    """The ids of the items of such a table, in order. Raises OSError, and what pyarrow raises for a broken file."""
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names
    column = about_in(names)
    cells = pq.read_table(path, columns=[column]).column(0).to_pylist() if column is not None else []
    return [json.loads(cell)["id"] for cell in cells]


def _picture_cells(sample: Sample, found: Mapping[str, list[PictureBytes]], schema: Any) -> dict[str, Any]:
    import pyarrow as pa

    stem = PurePosixPath(sample.name).stem
    made: dict[str, Any] = {}
    for column, pictures in found.items():
        structs = [{"bytes": one.data, "path": f"{stem}{one.ending}"} for one in pictures]
        is_list = pa.types.is_list(schema.field(column).type)
        made[column] = structs if is_list else structs[0] if structs else None
    return made


def _schema(columns: Columns, values: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    """The schema: what joyedit adds first, then the row as it was, then what an earlier shard has beside these."""
    import pyarrow as pa

    one = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    own = [columns.original(number) for number in range(columns.originals)]
    own += [columns.own[EDITED], *([columns.own[MASK]] if columns.has_masks else [])]
    pictures = {name: one for name in own}
    for name in columns.rows:
        is_list = name in columns.lists or (name in known and pa.types.is_list(known[name]))
        pictures[name] = pa.list_(one) if is_list else one
    pictures |= {
        name: kind for name, kind in known.items() if name not in (*pictures, *values) and kind in (one, pa.list_(one))
    }
    first = [name for name in values if name in columns.own.values() and name != columns.own[ABOUT]]
    rest = [name for name in values if name not in first]
    fields = [pa.field(name, values[name].type) for name in first]
    fields += [pa.field(name, kind) for name, kind in pictures.items()]
    fields += [pa.field(name, values[name].type) for name in rest]
    if known.keys() == {field.name for field in fields}:  # the order of the first shard
        fields = [next(field for field in fields if field.name == name) for name in known]
    features = {name: _feature(pa.types.is_list(kind)) for name, kind in pictures.items()}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _feature(is_list: bool) -> dict[str, Any]:
    image = {"_type": "Image"}
    return {"feature": image, "_type": "Sequence"} if is_list else image


def _value_columns(columns: Columns, samples: Sequence[Sample], known: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that hold no pictures, as arrays."""
    import pyarrow as pa

    rows = [columns.values_of(one) for one in samples]
    # A column of pictures in which this shard has none looks as one of values without a value.
    empty = {name for name, kind in known.items() if _holds_pictures(kind)}
    empty -= {name for row in rows for name, value in row.items() if value is not None}
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in empty]
    made = {name: _array([row.get(name) for row in rows], known.get(name)) for name in names}
    made[columns.own[ABOUT]] = pa.array([json.dumps(one.about()) for one in samples], type=pa.string())
    pictures = {columns.original(number) for number in range(columns.originals)} | {
        *columns.rows,
        *columns.own.values(),
    }
    for name, kind in known.items():
        if name not in made and name not in pictures and not _holds_pictures(kind):
            made[name] = pa.nulls(len(samples), kind)
    return made


def _holds_pictures(kind: Any) -> bool:
    """Whether a column of this type holds pictures, or lists of them."""
    import pyarrow as pa

    one = kind.value_type if pa.types.is_list(kind) else kind
    return pa.types.is_struct(one) and {"bytes", "path"} == {field.name for field in one}


def _array(values: list[Any], known: Any) -> Any:
    """The values as an array: of the known type if they have it, else of the type that fits them, else JSON texts."""
    import pyarrow as pa

    values = with_numbers(
        [_as_utf8(one) for one in values], are_numbers=known is not None and pa.types.is_floating(known)
    )
    kinds = [known, _kind(values), None]
    for kind in kinds if known is not None else kinds[1:]:
        try:
            found = pa.array(values, type=kind)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            continue
        if _holds(found, values):
            return found
    return pa.array([None if one is None else json.dumps(one, ensure_ascii=False) for one in values], type=pa.string())


def _as_utf8(value: Any) -> Any:
    """The value with an escape in place of what UTF-8 cannot hold: half of a surrogate pair."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_as_utf8(key): _as_utf8(one) for key, one in value.items()}
    return [_as_utf8(one) for one in value] if isinstance(value, list) else value


def _holds(found: Any, values: list[Any]) -> bool:
    """Whether Parquet can hold the array, and no value lost anything in it.

    Arrow drops keys that a known struct does not have, and what is behind the point where whole numbers are known.
    """
    import pyarrow as pa

    if pa.types.is_null(found.type) or _has_empty_struct(found.type):
        return False
    return bool(_without_none(found.to_pylist()) == _without_none(values))


def _has_empty_struct(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return not kind.num_fields or any(_has_empty_struct(field.type) for field in kind)
    return pa.types.is_list(kind) and _has_empty_struct(kind.value_type)


def _without_none(value: Any) -> Any:
    """The value without the keys that have no value: all values of a struct have the same keys. NaN equals itself."""
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, dict):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list) else value


def _kind(values: Sequence[Any]) -> Any:
    """The type of plain values; None where pyarrow is to find one."""
    import pyarrow as pa

    kinds = {type(one) for one in values if one is not None}
    if not kinds or kinds == {str}:
        return pa.string()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64() if all(abs(one) < _MOST_INT for one in values if one is not None) else None
    return pa.float64() if kinds <= {int, float} else None
