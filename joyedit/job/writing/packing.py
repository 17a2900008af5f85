"""Puts finished pictures into a shard: the file in one step, then the records, then the loose pictures go.

Between these steps stands the file `.joyedit.packing`, which says what is on its way. A run that is killed in between
is brought to its end by the next one: either nothing has happened, or everything happens.

    temporary file -> .joyedit.packing -> final name -> records -> loose pictures are removed -> .joyedit.packing goes
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, cast

from joyedit.errors import ItemError, OutputError
from joyedit.job import failpoints
from joyedit.job.hashing import sha256_of
from joyedit.job.own_files import PACKING
from joyedit.job.results.hand_over import leave_filled, take
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import name_of, output_of, packed_in, without_replaced
from joyedit.job.results.safe_open import read_own
from joyedit.job.writing.samples import Sample
from joyedit.job.writing.shard_names import kind_of

_MOST = 256 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A shard on its way: its file, what that holds, and what goes afterwards.

    `pictures` are [id, inner name] of its items, `loose` are [file, bytes, sha256] of pictures that it takes the place
    of, and `older` names shards that it takes the place of.
    """

    file: str
    bytes: int
    sha256: str
    shard: int
    pictures: list[list[str]]
    loose: list[list[Any]]
    older: list[str]


class Packing:
    """Writes shards of one kind. One thread uses it at a time; the lock of the output folder is held."""

    def __init__(self, folder: OutputFolder, journal: Journal) -> None:
        self._folder = folder
        self._journal = journal

    def recover(self) -> str | None:
        """Bring the step of a killed run to its end, before anything else happens. Says which shard it was of.

        Raises `OutputError`.
        """
        data = read_own(self._folder.path, PACKING, _MOST)
        if data is None:
            return None
        step = _step_in(data)
        if step is not None and self._is_in_place(step):
            self._complete(step)
            return step.file
        self._folder.remove(PACKING)
        return None

    def pack(
        self,
        number: int,
        ids: Sequence[str],
        write: Callable[[BinaryIO, Sequence[Sample]], list[str]],
        *,
        file: str,
        is_ours: bool,
        older: Sequence[str] = (),
    ) -> None:
        """Pack the finished pictures of these items as `file`, also in place of one that is there if that `is_ours`.

        Shards `older` go.

        Raises `ItemError` where a picture is not as its record says, `OutputError` where nothing can be written or a
        file of somebody else has this name.
        """
        records = [record for name in ids if (record := self._journal.finished(name)) is not None]
        samples = [Sample.of(self._folder.path, record, self._journal.finished) for record in records]
        inner: list[str] = []
        told = _Hashed()
        temporary = leave_filled(
            self._folder, file, lambda out: inner.extend(write(cast(BinaryIO, told.over(out)), samples))
        )
        failpoints.reached("pack.written")
        step = Step(
            file=file,
            bytes=told.count,
            sha256=told.sha256,
            shard=number,
            pictures=[[str(one["id"]), name] for one, name in zip(records, inner, strict=True)],
            loose=[
                [output_of(one), one.get("output_bytes"), one.get("output_sha256")]
                for one in records
                if packed_in(one) is None
            ],
            older=[one for one in older if one != file],
        )
        self._folder.write_bytes(PACKING, json.dumps(asdict(step)).encode())
        failpoints.reached("pack.noted")
        try:
            take(self._folder, temporary, file, lambda: is_ours)
        except ItemError as error:
            self._folder.remove(PACKING)
            raise OutputError(f"{self._folder.path / file}: {error}") from error
        failpoints.reached("pack.placed")
        self._complete(step)

    def _is_in_place(self, step: Step) -> bool:
        """Whether the shard has its final name."""
        path = self._folder.path / step.file
        try:
            if os.stat(path, follow_symlinks=False).st_size != step.bytes or kind_of(step.file) is None:
                return False
            with open(path, "rb", buffering=0) as file:
                return sha256_of(file) == step.sha256
        except OSError:
            return False

    def _complete(self, step: Step) -> None:
        """All that follows when the shard has its final name; once more does no harm."""
        for name, inner in step.pictures:
            self._record(name, f"{step.file}#{inner}", step.shard)
        self._journal.flush()
        failpoints.reached("pack.recorded")
        for file, size, sha256 in step.loose:
            self._folder.remove_picture(str(file), int(size), str(sha256))
        for file in step.older:
            if kind_of(file) is not None:
                self._folder.remove(file)
        failpoints.reached("pack.removed")
        self._folder.remove(PACKING)
        failpoints.reached("pack.done")

    def _record(self, name: str, output: str, shard: int) -> None:
        """The last record of the item says where its picture is now. A failure that came after the picture stays."""
        finished, final = self._journal.finished(name), self._journal.final(name)
        if finished is None or output_of(finished) == output:
            return
        packed = {"shard": shard, "name": name_of(finished)}
        self._journal.append_again(without_replaced(finished) | {"output": output, "packed": packed})
        if final is not None and final["status"] != "ok":
            self._journal.append_again(without_replaced(final))


def _step_in(data: bytes) -> Step | None:
    """The step that `pack` has noted; None for what somebody else wrote: that says nothing."""
    try:
        step = Step(**json.loads(data))
        is_whole = (
            _kinds([step.file, step.bytes, step.sha256, step.shard]) == (str, int, str, int)
            and {*map(_kinds, step.pictures)} <= {(str, str)}
            and {*map(_kinds, step.loose)} <= {(str, int, str)}
            and {*_kinds(step.older)} <= {str}
        )
    except (ValueError, TypeError, RecursionError):
        return None
    return step if is_whole else None


def _kinds(values: Iterable[Any]) -> tuple[type, ...]:
    return tuple(map(type, values))


class _Hashed:
    """Counts and hashes what goes through it into a file."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.count = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def over(self, file: BinaryIO) -> _HashedFile:
        """The file, with its writes counted."""
        return _HashedFile(file, self)

    def add(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self.count += memoryview(data).nbytes


class _HashedFile:
    """An open file that is only written, from its beginning to its end."""

    closed = False

    def __init__(self, file: BinaryIO, told: _Hashed) -> None:
        self._file = file
        self._told = told

    def write(self, data: Any) -> int:
        view = memoryview(data)
        if failpoints.armed():
            failpoints.reached("file.half")
        self._told.add(view)
        return self._file.write(view)

    def tell(self) -> int:
        return self._told.count

    def flush(self) -> None:
        self._file.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Who opened the file closes it."""
