"""The columns of a dataset -> joyedit's keys, and what the record of an item carries of them.

What the user says (`--map`) is first, then the preset of a published dataset, then the usual names. A column that is no
key is no fault: the record carries it, but for pictures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from joyedit.errors import Problem, UsageError
from joyedit.job.contained import ContainedPicture
from joyedit.job.data_picture import DataPicture, Reference
from joyedit.job.source.columns import ALL, MAX_KEPT, Columns
from joyedit.job.source.layouts.presets import CAPTIONS, IMAGE, INSTRUCTION, PLACE, PLAIN, Preset
from joyedit.job.source.layouts.rows import Row
from joyedit.job.source.names import safe_name
from joyedit.job.source.problems import OfDataset, Record, shown
from joyedit.job.source.schema import ITEM_KEYS
from joyedit.job.spec import SourceRow
from joyedit.job.turns import MARK, TURNS

_PICTURES = ("image", "images", "mask")
_HELD = (ContainedPicture, DataPicture)
"""Pictures that are no plain files."""
_SHOWN = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyColumns:
    """The column of each key, of the rows that have the same columns. `carried` are those that records carry."""

    keys: Mapping[str, str]
    carried: tuple[str, ...]


class ColumnMap:
    """Makes records of rows.

    `preset` is that of the dataset, `columns` what the user says, `parameters` are those of the recipe, and
    `reads_captions` says whether a caption may be an instruction. `has_keys`: rows have ids of their own or by place.
    `chains_turns`: from its second turn on, a row has the result of the turn before in place of its own picture.
    """

    def __init__(
        self,
        preset: Preset,
        columns: Columns,
        parameters: Collection[str],
        *,
        reads_captions: bool,
        has_keys: bool,
        has_turns: bool = False,
        keeps_row: bool = False,
        chains_turns: bool = False,
    ) -> None:
        self._preset = preset
        self._columns = columns
        self._parameters = parameters
        self._reads_captions = reads_captions
        self._has_keys = has_keys
        self._has_turns = has_turns
        self._keeps_row = keeps_row
        self._chains_turns = chains_turns
        self._maps_id = "id" in columns.mapped.values()
        self._of_pictures: frozenset[str] = frozenset()
        self._known: dict[tuple[tuple[str, ...], tuple[str, ...]], KeyColumns] = {}
        self.unmet = {*columns.mapped, *columns.kept} - {ALL, PLACE}
        """Columns that the user names and that no row had so far."""
        if chains_turns and (preset.turn is None or self._maps_id):
            what = "--map gives the rows other ids" if self._maps_id else "this dataset has no turns in rows"
            raise UsageError(f"--chain-turns needs the ids of a dataset with turns in rows, such as MagicBrush: {what}")
        unknown = sorted({key for key in columns.mapped.values() if key not in (*ITEM_KEYS, *parameters)})
        if unknown:
            raise UsageError(f"--map: joyedit has no key {shown(unknown[0])} (valid: {', '.join(ITEM_KEYS)})")

    def wanted(self, names: Collection[str], pictures: Collection[str]) -> list[str]:
        """The columns that have to be read, of a dataset with these columns."""
        self._of_pictures = frozenset(pictures)
        found = self.of(tuple(names), tuple(sorted(pictures)))
        kept = self._of_row(names) if self._keeps_row else ()
        return list(dict.fromkeys((*found.keys.values(), *found.carried, *self._preset.id, *kept)))

    def of(self, names: tuple[str, ...], pictures: tuple[str, ...]) -> KeyColumns:
        """The keys of rows with these columns, of which `pictures` hold pictures."""
        known = self._known.get((names, pictures))
        if known is None:
            known = self._known[names, pictures] = self._made(names, pictures)
            self.unmet.difference_update(names)
        return known

    def record(self, row: Row, number: int) -> Record:
        """The record of a row; `number` counts the rows from 1."""
        held = tuple(sorted(name for name, value in row.values.items() if _is_picture(value)))
        found = self.of(tuple(row.values), held)
        pictures: dict[str, Reference] = {}
        data: dict[str, Any] = {}
        for key, column in found.keys.items():
            value = row.stable if column == PLACE else row.values.get(column)
            if value is None or (key == "id" and row.key is not None and not self._maps_id):
                continue
            if key in _PICTURES:
                key, value = _pictures(key, value, row, pictures)
            else:
                value = _value(key, value)
            if value is not None:
                data[key] = value
        if "id" not in data and self._has_keys:
            data["id"] = safe_name(self._id(row))
        if self._chains_turns:
            earlier = self._earlier(row)
            if earlier is not None:
                data["image"] = earlier
        carried = _carried(row.values, found.carried)
        if not self._keeps_row:
            return Record(number, data, OfDataset(row.place, pictures, carried))
        kept, fields = self._row(row, found, carried or {}), {"key": row.key, **row.values}
        return Record(number, data, OfDataset(row.place, pictures, carried, kept, fields))

    def _row(self, row: Row, found: KeyColumns, carried: Collection[str]) -> SourceRow:
        """What else a row has: its pictures, and under their own names the values that no record carries."""
        held = {name for name, value in row.values.items() if _is_picture(value)}
        names = self._of_row(row.values)
        pictures = {name: _held(row.values[name]) for name in row.values if name in held and name in names}
        # A cell without a picture is no value: in other rows this column has pictures.
        pictures |= {name: () for name in names if name in self._of_pictures and not row.values.get(name)}
        used = found.keys.get("image") or found.keys.get("images") or ""
        values: dict[str, Any] = {}
        for name in names:
            own = row.own_names.get(name, name)
            if name not in pictures and own and (name not in carried or own != name):
                values[own] = plain_json(row.values.get(name))[0]
        return SourceRow(pictures=pictures, values=values, edited=used if used in pictures else None)

    def _of_row(self, names: Iterable[str]) -> list[str]:
        """The columns of a row that a dataset of results keeps: all that the user does not leave out."""
        kept, ignored = self._columns.kept, self._columns.ignored
        if kept and ALL not in kept:
            return [name for name in names if name in kept]
        return [] if ALL in ignored else [name for name in names if name not in ignored]

    def turn_problem(self, row: Row) -> Problem | None:
        """What is wrong with the number of the row's turn, where turns are chained."""
        turn = self._preset.turn if self._chains_turns else None
        value = None if turn is None else row.values.get(turn)
        if turn is None or (isinstance(value, int) and value > 0):
            return None
        return Problem(f"{turn} counts the turns from 1, and this row has {shown(value)}", "leave --chain-turns out")

    def _earlier(self, row: Row) -> str | None:
        """The name of the result that the row begins with; None for a first turn."""
        turn = row.values[self._preset.turn or ""]
        if turn == 1:
            return None
        before = row._replace(values=row.values | {str(self._preset.turn): turn - 1})
        return MARK + safe_name(self._id(before))

    def _id(self, row: Row) -> str:
        """The id of a row: of the columns that name it, of its key, or of its place."""
        parts = [row.values.get(name) for name in self._preset.id]
        if parts and all(isinstance(part, (str, int)) and str(part).strip() for part in parts):
            return "/".join(str(part).strip().replace("/", "_") for part in parts)
        return row.key if row.key is not None else row.stable

    def _made(self, names: tuple[str, ...], pictures: tuple[str, ...]) -> KeyColumns:
        free = [name for name in names if not self._is_ignored(name)]
        keys = {key: column for column, key in self._columns.mapped.items() if column in names or column == PLACE}
        for key, column in self._preset.keys.items():
            if column in free and not _has(keys, key):
                keys[key] = column
        if self._has_turns and TURNS in free:
            keys[TURNS] = TURNS
        taken = set(keys.values())
        if not _has(keys, "image"):
            picture = _image(free, [name for name in pictures if name in free and name not in taken])
            if picture is not None:
                keys["image"] = picture
        wishes = (*INSTRUCTION, *(CAPTIONS if self._reads_captions else ()))
        if "instruction" not in keys and TURNS not in keys:
            keys |= _first("instruction", wishes, [name for name in free if name not in pictures and name not in taken])
        taken = set(keys.values())
        for name in free:
            if name in taken or name in pictures:
                continue
            if name in (*PLAIN, *self._parameters) and name not in keys:
                keys[name] = name
            elif name == "id" and "id" not in keys and not self._preset.id and self._has_keys:
                keys["id"] = name
        if "mask" in free and "mask" in pictures and "mask" not in keys:
            keys["mask"] = "mask"
        return KeyColumns(keys=keys, carried=tuple(self._kept(names, pictures, keys)))

    def _is_ignored(self, name: str) -> bool:
        return name in self._columns.ignored and name not in self._columns.mapped

    def _kept(self, names: Iterable[str], pictures: Collection[str], keys: Mapping[str, str]) -> list[str]:
        """The columns that records carry: those of `--keep-columns`, else all that hold no pictures and no setting."""
        kept, ignored = self._columns.kept, self._columns.ignored
        if kept and ALL not in kept:
            return [name for name in names if name in kept]
        if ALL in ignored:
            return []
        used = {column for key, column in keys.items() if key != "id"}
        return [name for name in names if name not in pictures and name not in used and name not in ignored]


def no_picture(names: Iterable[str], pictures: Collection[str]) -> Problem:
    """The problem of a dataset in which no column is surely the picture to edit."""
    listed = sorted(pictures) or list(names)
    more = f", ... and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    what = "several columns of pictures" if len(pictures) > 1 else "no column that is surely the picture to edit"
    remedy = "name it: --map image=COLUMN"
    return Problem(f"this dataset has {what}: {', '.join(listed[:_SHOWN])}{more}", remedy, once="no picture column")


def row_record(columns: ColumnMap, row: Row, number: int, needs_picture: bool) -> Record | Problem:
    """The record of a row that can be read, or the problem of one in which no column is the picture to edit."""
    problem = columns.turn_problem(row)
    if problem is not None:
        return problem.at(row.place)
    record = columns.record(row, number)
    data = record.data if isinstance(record.data, dict) else {}
    if needs_picture and not {"image", "images"} & data.keys():
        held = [name for name, value in row.values.items() if not isinstance(value, (str, int, float))]
        return no_picture(row.values, held if len(held) > 1 else ()).at(row.place)
    return record


def _has(keys: Mapping[str, str], key: str) -> bool:
    """Whether a key is given, or `images` in place of `image`."""
    return key in keys or (key == "image" and "images" in keys)


def _image(names: Collection[str], pictures: list[str]) -> str | None:
    """The column of the picture to edit: of a usual name, else the only one that holds pictures."""
    named = next((name for name in IMAGE if name in pictures), None)
    if named is not None or pictures:
        return named if named is not None else pictures[0] if len(pictures) == 1 else None
    return next((name for name in ("file_name", "image_path", *IMAGE) if name in names), None)


def _first(key: str, wishes: Iterable[str], names: Collection[str]) -> dict[str, str]:
    return next(({key: name} for name in wishes if name in names), {})


def _is_picture(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(one, _HELD) for one in value)
    return isinstance(value, _HELD)


def _held(value: Any) -> ContainedPicture | tuple[ContainedPicture, ...]:
    """The pictures of a cell."""
    return tuple(one for one in value if isinstance(one, ContainedPicture)) if isinstance(value, list) else value


def _pictures(key: str, value: Any, row: Row, held: dict[str, Reference]) -> tuple[str, Any]:
    """A picture, or several, as a line has them. Those that are no plain files go to `held`."""
    values = value if isinstance(value, list) else [value]
    named: list[Any] = []
    for one in values:
        if isinstance(one, _HELD):
            held[one.address] = one
            named.append(one.address)
        elif isinstance(one, str):
            named.append(f"{row.base}/{one}" if row.base and one[:1] != "/" else one)
        elif one is not None:
            named.append(one)
    if key == "mask" or not isinstance(value, list):
        return key, named[0] if named else None
    return ("image", named[0]) if len(named) == 1 else ("images", named or None)


def _value(key: str, value: Any) -> Any:
    """A value as a line has it: datasets write ids as numbers, and lists of instructions."""
    if key == "instruction" and isinstance(value, list):
        return next((one for one in value if isinstance(one, str) and one.strip()), None)
    if key == "id":
        return safe_name(str(value).strip()) if isinstance(value, (str, int)) and str(value).strip() else None
    if key == "seed" and isinstance(value, str) and value.strip().isdigit():
        return int(value)
    return value


def _carried(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any] | None:
    """The columns for the record, as long as there is room: a column that is too large is left out."""
    made: dict[str, Any] = {}
    room = MAX_KEPT
    for name in names:
        if name not in values:
            continue
        value, size = plain_json(values[name])
        if size + len(name) <= room:
            made[name] = value
            room -= size + len(name)
    return made or None


def plain_json(value: Any, depth: int = 0) -> tuple[Any, int]:
    """The value as JSON holds it, and about how many characters it takes. Bytes and pictures become nothing."""
    if value is None or isinstance(value, bool):
        return value, 5
    if isinstance(value, str):
        return value, len(value) + 2
    if isinstance(value, int):
        return value, 4 + value.bit_length() // 3
    if isinstance(value, float):
        return (value, 20) if value - value == 0 else (str(value), 5)
    if depth < 20 and isinstance(value, dict):
        pairs = {str(key): plain_json(one, depth + 1) for key, one in value.items()}
        return {key: one for key, (one, _) in pairs.items()}, sum(len(key) + n + 4 for key, (_, n) in pairs.items())
    if depth < 20 and isinstance(value, (list, tuple)):
        found = [plain_json(one, depth + 1) for one in value]
        return [one for one, _ in found], sum(n + 2 for _, n in found)
    if isinstance(value, (datetime, date, time, Decimal)):
        return str(value), 30
    return None, 5
