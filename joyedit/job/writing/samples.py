"""What a dataset says of one finished item: its pictures, its texts, and all fields of the row that it comes from.

A sample is made of the record alone, so it can be made at any time. Its pictures are read when they are needed, and
must be those that the record saw.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from joyedit.errors import ItemError, os_reason, system_limit
from joyedit.job.containers.pictures import contained_at, read_contained
from joyedit.job.data_picture import Reference, is_in_a_line
from joyedit.job.results.placed import picture_at
from joyedit.job.results.records import mask_path, mask_seen, name_of
from joyedit.job.writing.earlier_shard import picture_in_shard
from joyedit.job.writing.kept_inputs import kept_input
from joyedit.job.writing.picture_endings import ending_of

EDITED, ORIGINAL, PROMPT, MASK, ID, ABOUT = "edited_image", "original_image", "edit_prompt", "mask", "id", "joyedit"
"""The columns of joyedit. The first three are those of InstructPix2Pix."""
Finished = Callable[[str], Mapping[str, Any] | None]
_PREFIX = "joyedit_"
_SETTINGS_OF_FILES = ("model",)


class PictureBytes(NamedTuple):
    """A picture as its file holds it, with the ending of its name (`.png`)."""

    data: bytes
    ending: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One finished item. `folder` is the output folder, `record` its record of a finished picture.

    `values` are the cells of its row, `row_pictures` the addresses of the pictures there, by column (a cell may have
    none); a cell of the columns `lists` is a list. `edited_column` is that of the pictures that were edited; None if
    they are in none. `results` are the addresses of those inputs that are results of other items, by their place
    among the inputs.
    """

    folder: Path
    record: Mapping[str, Any]
    values: Mapping[str, Any]
    row_pictures: Mapping[str, Sequence[str]]
    lists: frozenset[str]
    edited_column: str | None
    results: Mapping[int, str]

    @classmethod
    def of(cls, folder: Path, record: Mapping[str, Any], finished: Finished) -> Sample:
        """The sample of a record. `finished` gives the record of the finished picture of an id."""
        told, columns = _table(record.get("row")), _table(record.get("columns"))
        held = {name: one for name, one in _table(told.get("pictures")).items() if isinstance(one, (str, list))}
        pictures = {name: list(map(str, one)) if isinstance(one, list) else [one] for name, one in held.items()}
        edited = told.get("edited")
        is_row = isinstance(edited, str) and pictures.get(edited) == list(record.get("inputs") or ())
        return cls(
            folder=folder,
            record=record,
            values={**_table(told.get("values")), **columns},
            row_pictures=pictures,
            lists=frozenset(name for name, one in held.items() if isinstance(one, list) and one),
            edited_column=edited if is_row else None,
            results={place: str(one) for place, one in _results(folder, record, finished)},
        )

    @property
    def id(self) -> str:
        """The id of the item."""
        return str(self.record["id"])

    @property
    def instruction(self) -> str:
        """The instruction as it went to the model."""
        return str(self.record.get("instruction") or "")

    @property
    def name(self) -> str:
        """The name of the picture's file, before it was packed."""
        return str(name_of(self.record))

    @property
    def inputs(self) -> list[str]:
        """The addresses of the pictures that were edited."""
        given = self.record.get("inputs")
        return [str(one) for one in given] if isinstance(given, list) else []

    @property
    def mask(self) -> str | None:
        """The address of the mask, where no column of the row holds it."""
        mask = mask_path(self.record)
        is_held = any(mask in held for held in self.row_pictures.values())
        return None if is_held else mask

    def about(self) -> dict[str, Any]:
        """How the picture was made: settings, size, and the hashes of what it was made of. No path of a machine."""
        record, settings = self.record, dict(_table(self.record.get("settings")))
        for name in _SETTINGS_OF_FILES:
            if isinstance(settings.get(name), str) and os.path.isabs(settings[name]):
                settings[name] = os.path.basename(settings[name].rstrip("/"))
        seen = record.get("inputs_seen")
        hashes = [one[0] if isinstance(one, list) and one else None for one in seen] if isinstance(seen, list) else []
        told = {"id": self.id, "output": self.name, "settings": settings, "inputs_sha256": hashes}
        told |= {key: record[key] for key in ("size", "bucket", "fit", "notes", "fingerprint") if record.get(key)}
        return told | {"output_sha256": record.get("output_sha256")}

    def edited(self) -> PictureBytes:
        """The finished picture. Raises ItemError where it is not the recorded one."""
        picture = picture_at(self.folder, self.record)
        data = _read(str(picture), f"the edited picture of {self.id}")
        if hashlib.sha256(data).hexdigest() != self.record.get("output_sha256"):
            raise ItemError(
                "picture_changed", f"the edited picture of {self.id} changed since (--update edits it again)"
            )
        return PictureBytes(data, PurePosixPath(self.name).suffix.lower())

    def original(self, number: int) -> PictureBytes:
        """One of the pictures that were edited. Raises ItemError where it is not the one that was seen."""
        seen = self.record.get("inputs_seen")
        told = seen[number] if isinstance(seen, list) and number < len(seen) else None
        more = "" if not number else f"_{number + 1}"
        columns = [f"{_PREFIX * count}{ORIGINAL}{more}" for count in range(3)]
        columns = columns if self.edited_column is None else [self.edited_column]
        return self._seen(self.results.get(number, self.inputs[number]), told, columns)

    def mask_picture(self) -> PictureBytes:
        """The mask. Errors as in `original`."""
        mask = str(mask_path(self.record))
        held = [column for column, held in self.row_pictures.items() if mask in held]
        return self._seen(mask, mask_seen(self.record), held or [_PREFIX * count + MASK for count in range(3)])

    def row_picture(self, column: str, number: int) -> PictureBytes:
        """A picture of the row. Errors as in `original`."""
        address = self.row_pictures[column][number]
        if address in self.inputs:
            return self.original(self.inputs.index(address))
        return self.mask_picture() if address == mask_path(self.record) else self._seen(address, None, ())

    def _seen(self, address: str, seen: object, columns: Iterable[str]) -> PictureBytes:
        """The picture at this address, or as an earlier file of the shard holds it in one of these columns."""
        sha256 = seen[0] if isinstance(seen, list) and seen else None
        try:
            data = self._at(address, sha256)
        except ItemError:
            found = picture_in_shard(self.folder, self.record, columns, sha256) if isinstance(sha256, str) else None
            if found is None:
                raise
            data = found
        return PictureBytes(data, ending_of(data, address))

    def _at(self, address: str, sha256: object) -> bytes:
        is_kept = is_in_a_line(address)
        data = kept_input(self.folder, address) if is_kept else _read(address, f"a picture of {self.id}")
        if isinstance(sha256, str) and hashlib.sha256(data).hexdigest() != sha256:
            raise ItemError("picture_changed", f"{address[:500]} changed since {self.id} was edited")
        return data


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The columns of the samples of one shard. `own` gives the name of each of joyedit's columns.

    A column of the row keeps its name: where joyedit's is the same, joyedit's becomes `joyedit_...` (`own_name`). Id
    and instruction are left out where the row says the same. `originals` is how many pictures that were edited lie in
    no column of the row, at most.
    """

    own: Mapping[str, str]
    originals: int
    has_masks: bool
    lists: frozenset[str]
    rows: tuple[str, ...]

    @classmethod
    def of(cls, samples: Iterable[Sample], *, always: bool = False) -> Columns:
        """The columns that these samples need. Goes through them once.

        With `always` id and instruction have columns also where the rows say the same.
        """
        rows: dict[str, None] = {}
        values: dict[str, None] = {}
        lists: set[str] = set()
        originals, has_masks = 0, False
        differ = {ID: always, PROMPT: always}
        for one in samples:
            rows |= dict.fromkeys(one.row_pictures)
            values |= dict.fromkeys(one.values)
            lists |= one.lists
            originals = max(originals, 0 if one.edited_column is not None else len(one.inputs))
            has_masks = has_masks or one.mask is not None
            differ[ID] |= str(one.values.get(ID)) != one.id  # tables have numbers for ids
            differ[PROMPT] |= one.values.get(PROMPT) != one.instruction
        taken = {**rows, **values}
        own = {name: own_name(name, taken) for name in (EDITED, ORIGINAL, MASK, ABOUT)}
        own |= {name: own_name(name, taken) for name in differ if name not in taken or differ[name]}
        return cls(
            own=own,
            originals=originals,
            has_masks=has_masks,
            lists=frozenset(lists),
            rows=tuple(rows),
        )

    def original(self, number: int) -> str:
        """The column of a picture that was edited: `original_image`, then `original_image_2`."""
        return self.own[ORIGINAL] + ("" if not number else f"_{number + 1}")

    def pictures_of(self, sample: Sample) -> Iterator[tuple[str, list[PictureBytes]]]:
        """The pictures of a sample by column, the edited one first. Raises ItemError."""
        yield self.own[EDITED], [sample.edited()]
        if sample.edited_column is None:
            for number in range(len(sample.inputs)):
                yield self.original(number), [sample.original(number)]
        if sample.mask is not None:
            yield self.own[MASK], [sample.mask_picture()]
        for column, held in sample.row_pictures.items():
            yield column, [sample.row_picture(column, number) for number in range(len(held))]

    def values_of(self, sample: Sample) -> dict[str, Any]:
        """The texts and numbers of a sample by column, without what says how it was made."""
        made: dict[str, Any] = {}
        if ID in self.own:
            made[self.own[ID]] = sample.id
        if PROMPT in self.own:
            made[self.own[PROMPT]] = sample.instruction
        return made | {name: value for name, value in sample.values.items() if name not in self.rows}


def own_name(name: str, taken: Iterable[str]) -> str:
    """What a column of joyedit is called beside columns `taken` of a row: `joyedit_edited_image` for `edited_image`.

    A row that joyedit wrote may have that too. Of all names that are made so, joyedit's is the longest.
    """
    of_several = "(?:_[0-9]+)?" if name == ORIGINAL else ""
    pattern = re.compile(f"((?:{_PREFIX})*){name}{of_several}")
    found = [len(told[1]) for one in taken if (told := pattern.fullmatch(one)) is not None]
    return _PREFIX * (max(found) // len(_PREFIX) + 1) + name if found else name


def about_in(columns: Iterable[str]) -> str | None:
    """Which of these columns of a sample says how joyedit made it; None if none does."""
    return max((one for one in columns if re.fullmatch(f"(?:{_PREFIX})*{ABOUT}", one)), key=len, default=None)


def _results(folder: Path, record: Mapping[str, Any], finished: Finished) -> Iterator[tuple[int, Reference]]:
    """Where the results of other items lie now that the item began with: they may be packed since."""
    earlier = record.get("earlier")
    for place, name in enumerate(earlier if isinstance(earlier, list) else ()):
        before = finished(name) if isinstance(name, str) else None
        picture = None if before is None else picture_at(folder, before)
        if picture is not None:
            yield place, picture


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read(address: str, what: str) -> bytes:
    """The bytes of a picture. Raises ItemError, and JoyeditError where the system has no file handle left."""
    try:
        contained = contained_at(address)
        if contained is not None:
            return read_contained(contained)
        return Path(address).read_bytes()
    except (OSError, ValueError) as error:
        limit = system_limit(error)
        if limit is not None:
            raise limit from error
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        raise ItemError("missing_picture", f"{what} cannot be read: {address[:500]}: {reason}") from error


def sample_keys(samples: Iterable[Sample]) -> list[str]:
    """The keys of samples in an archive: the names of their pictures without an ending, and without dots."""
    made: list[str] = []
    taken: set[str] = set()
    for one in samples:
        root = str(PurePosixPath(one.name).with_suffix(""))
        folder, slash, base = root.rpartition("/")
        key = wish = folder + slash + re.sub(r"^\.|\.", "_", base)
        number = 2
        while key.lower() in taken:
            key, number = f"{wish}-{number}", number + 1
        taken.add(key.lower())
        made.append(key)
    return made
