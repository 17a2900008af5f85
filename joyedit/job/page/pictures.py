"""Small copies of pictures for a page: what of an item can be shown, and JPEG files of two sizes, made in threads.

A copy is named after the content of its picture, so one that is there already is not made again, and a picture of many
items has one copy. Whatever is wrong with a picture, the page goes on without it.
"""

from __future__ import annotations

import hashlib
import io
import os
import queue
import re
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from joyedit.errors import ItemError, OutputError, first_line
from joyedit.job.contained import ContainedPicture
from joyedit.job.containers.pictures import contained_at
from joyedit.job.data_picture import DataPicture, is_in_a_line
from joyedit.job.hashing import HashCache
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.given import Given
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.placed import packed_state
from joyedit.job.results.records import output_of, packed_in
from joyedit.printable import brief

TINY, SMALL, VIEW = 112, 288, 1280
"""The longer side of the copies in pixels: in a corner of the grid, in the grid, and of an input that is looked at."""
_LETTER = {TINY: "t", SMALL: "s", VIEW: "v"}
MOST_VIEWS = 5000
"""So many pictures get a copy to look at; what comes later is shown from its own place, or by its small copy."""
_QUALITY = {TINY: 75, SMALL: 80, VIEW: 82}
_GONE, _CHANGED, _PACKED = "it is gone", "it has changed since", "it is packed"
_NO_LIMIT = 1 << 62
_LINK_PATH = 1000
_UNSHOWN = (".tif", ".tiff", ".heic", ".heif")
"""Endings of results that browsers do not show."""
_SHA = re.compile("[0-9a-f]{64}")
_DATA_SHA = re.compile("sha256=([0-9a-f]{64})$")
_COMMENT = b"software: joyedit page"
GRACE = 5.0
"""Seconds in all for pictures that are being read when the page may not wait any longer."""
_POLL = 0.1
_LAST = 1.0
"""Seconds for threads that are still at work when the page ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputLook:
    """An input of an item: its name, a link to it, its copy (a file below the folder of the page), what is off."""

    name: str
    link: str = ""
    view: str = ""
    off: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What of an item can be shown: the link to its picture, small copies of that and of its last input, what is off.

    `before` is the name of the small copy; the tiny one has the same name with another letter (`TINY`). `view` is a
    copy to look at, of a result that browsers do not show (`is_unshown`). `left` counts the copies that are to be made
    another time.
    """

    link: str = ""
    after: str = ""
    view: str = ""
    is_unshown: bool = False
    before: str = ""
    inputs: tuple[InputLook, ...] = ()
    off: str = ""
    left: int = 0


class Pictures:
    """Looks at the pictures of records, in threads. Close it at the end.

    `folder` is the output folder, `files` the folder of the copies below it. Where `hurry` says so, no copy is made
    any more; where `stopped` does, nothing is waited for. Each thread holds one decoded picture, within the memory that
    joyedit allows for decoding.
    """

    def __init__(
        self,
        folder: OutputFolder,
        files: str,
        link_to: Callable[[str], str],
        *,
        hurry: Callable[[], bool],
        stopped: Callable[[], bool] = lambda: False,
        workers: int | None = None,
    ) -> None:
        self.made = 0
        self.error: OutputError | None = None
        """What stopped the making of copies: the disk is full, for example."""
        self._folder = folder
        self._out = os.path.abspath(folder.path)
        self._files = files
        self._link_to = link_to
        self._hurry = hurry
        self._stopped = stopped
        self._hurried_at: float | None = None
        self._views: set[str] = set()
        self._data: dict[str, DataPicture] = {}
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Sequence[Mapping[str, Any]], Future[list[Look]]] | None]
        self._jobs = queue.SimpleQueue()
        self._is_closed = False
        # Daemons: one that hangs in a disk that does not answer must not keep the process.
        self._threads = [
            threading.Thread(target=self._work, name="joyedit-page", daemon=True)
            for _ in range(workers or max(2, min(16, os.cpu_count() or 2)))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads. One that hangs in a disk that does not answer is left alone, and writes nothing more."""
        self._is_closed = True
        for _ in self._threads:
            self._jobs.put(None)
        until = time.monotonic() + _LAST
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def give(self, pictures: Mapping[str, DataPicture]) -> None:
        """Pictures that stand in lines of the source, by sha256: no record holds these."""
        self._data = dict(pictures)

    def look(self, records: Sequence[Mapping[str, Any]]) -> Future[list[Look]]:
        """Look at the pictures of some records, one after the other. Ask `result` for what comes of it."""
        found: Future[list[Look]] = Future()
        self._jobs.put((records, found))
        return found

    def result(self, found: Future[list[Look]], count: int) -> list[Look]:
        """What was found for the `count` records; empty looks where a picture does not come in time."""
        while True:
            try:
                return found.result(_POLL if self._hurried_at is None else max(0.0, self._patience()))
            except NotYet:
                if self._stopped():
                    return [Look(left=1)] * count
                if self._hurried_at is None and self.is_over():
                    self._hurried_at = time.monotonic()
                elif self._hurried_at is not None and self._patience() <= 0:
                    return [Look(off="not looked at", left=1)] * count

    def _patience(self) -> float:
        assert self._hurried_at is not None
        return self._hurried_at + GRACE - time.monotonic()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            records, found = job
            if not self._is_closed:
                found.set_result([self._look(record) for record in records])

    def _look(self, record: Mapping[str, Any]) -> Look:
        copies = _Copies(self)
        try:
            inputs = self._inputs(record, copies)
            look = self._output(record, copies)
        except BaseException as error:  # the page goes on without the pictures of this item
            return Look(off=f"not shown: {first_line(error)}")
        return replace(look, before=copies.small_of_last, inputs=inputs, left=copies.left)

    def _output(self, record: Mapping[str, Any], copies: _Copies) -> Look:
        """The link to the finished picture, its copies, and what is off."""
        output = output_of(dict(record))
        if output is None:
            return Look()
        relative = PurePosixPath(output)
        if "\0" in output or relative.is_absolute() or ".." in relative.parts or not relative.parts:
            return Look(off="its record names no file of this folder")
        path = os.path.join(self._out, *relative.parts)
        is_unshown = relative.suffix.lower() in _UNSHOWN
        if packed_in(record) is not None:
            return self._packed(path, record, copies)
        try:
            status = os.stat(path, follow_symlinks=False)
        except OSError:
            return Look(off="its picture is gone")
        if not stat.S_ISREG(status.st_mode):
            return Look(off="its picture is no plain file")
        known = record.get("output_sha256")
        is_same = status.st_size == record.get("output_bytes")
        key = known if is_same and isinstance(known, str) and _SHA.fullmatch(known) else _key(path, status)
        off = "" if is_same else "its picture is another one than was recorded"
        small, view, fault = copies.of(path, key, small=True, view=is_unshown, is_result=True)
        link = self._link_to(str(relative))
        return Look(link=link, after=small, view=view, is_unshown=is_unshown, off=off or fault)

    def _packed(self, address: str, record: Mapping[str, Any], copies: _Copies) -> Look:
        """A finished picture in a shard: no browser opens it there, so it has a copy to look at and no link."""
        picture, sha256 = contained_at(address), record.get("output_sha256")
        if picture is None:
            return Look(off="its picture is gone")
        recorded = sha256 if isinstance(sha256, str) and _SHA.fullmatch(sha256) else ""
        is_same = recorded != "" and packed_state(address, record, trust=True) == "recorded"
        key = recorded if is_same else hashlib.sha256(f"{picture.address}\0{picture.stamp}".encode()).hexdigest()
        off = "" if is_same else "its picture is another one than was recorded"
        small, view, fault = copies.of(picture, key, small=True, view=True, is_result=True)
        return Look(after=small, view=view, is_unshown=True, off=off or fault)

    def _inputs(self, record: Mapping[str, Any], copies: _Copies) -> tuple[InputLook, ...]:
        given = record.get("inputs")
        paths = [one for one in given if isinstance(one, str)] if isinstance(given, list) else []
        seen = record.get("inputs_seen")
        stamps = seen if isinstance(seen, list) and len(seen) == len(paths) else [None] * len(paths)
        last = len(paths) - 1
        return tuple(
            self._input(path, stamp, copies, small=number == last)
            for number, (path, stamp) in enumerate(zip(paths, stamps, strict=True))
        )

    def _input(self, path: str, seen: object, copies: _Copies, *, small: bool) -> InputLook:
        if is_in_a_line(path):
            return self._in_line(path, copies, small=small)
        contained = contained_at(path)
        if contained is not None:
            return self._contained(contained, seen, copies, small=small)
        name = brief(os.path.basename(path), 200)
        link = self._link_to(os.path.relpath(path, self._out)) if len(path) < _LINK_PATH and path[:1] == "/" else ""
        off, key, can_be_read = self._state_of(path, _recorded(seen))
        _, view, fault = copies.of(path if can_be_read else None, key, small=small, view=True)
        if off == _PACKED:
            return InputLook(name=name, view=view)
        return InputLook(name=name, link="" if off == _GONE else link, view=view, off=off or fault)

    def _state_of(self, path: str, recorded: tuple[str, int, int] | None) -> tuple[str, str, bool]:
        """What is off with an input, the key of its copies, and whether these can be made of the file."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            status = None
        if status is None and recorded and path.startswith(os.path.join(self._out, "")):
            return _PACKED, recorded[0], False  # the result of an earlier turn, which has a row of its own
        if status is None or not stat.S_ISREG(status.st_mode):
            return _GONE, recorded[0] if recorded else "", False
        if recorded is None:
            return "", _key(path, status), True
        sha256, size, mtime = recorded
        if status.st_size == size and (status.st_mtime_ns == mtime or _sha256_of(path) == sha256):
            return "", sha256, True
        if self.has(self.name_of(sha256, VIEW)):  # better what was edited than what is there now
            return _CHANGED, sha256, False
        return _CHANGED, _key(path, status), True

    def _in_line(self, address: str, copies: _Copies, *, small: bool) -> InputLook:
        found = _DATA_SHA.search(address)
        key = found[1] if found else ""
        picture = self._data.get(key)
        _, view, fault = copies.of(picture, key, small=small, view=True)
        name = f"data-{key[:12]}"
        return InputLook(name=name, view=view, off=fault or ("" if view else "it stands in its line of the source"))

    def _contained(self, picture: ContainedPicture, seen: object, copies: _Copies, *, small: bool) -> InputLook:
        """A picture in a larger file: no browser can open it there, so there is no link."""
        recorded, off = _recorded(seen), ""
        key = hashlib.sha256(f"{picture.address}\0{picture.stamp}".encode("utf-8", "surrogateescape")).hexdigest()
        if recorded is not None:
            key, size, mtime = recorded
            is_same = picture.stamp is not None and picture.stamp[:2] == (size, mtime)
            off = "" if is_same or _sha256_of(picture) == key else _CHANGED
        _, view, fault = copies.of(picture if not off else None, key, small=small, view=True)
        return InputLook(name=brief(picture.name, 200), view=view, off=off or fault)

    # What `_Copies` asks for.

    def name_of(self, key: str, side: int) -> str:
        """The copy's name below the folder of the page."""
        return f"pictures/{_LETTER[side]}-{key[:24]}.jpg"

    def has(self, name: str) -> bool:
        """Whether this copy is there. One without content comes from a power cut."""
        try:
            return os.stat(os.path.join(self._out, self._files, name), follow_symlinks=False).st_size > 0
        except OSError:
            return False

    def may_view(self, key: str, *, is_there: bool) -> bool:
        """Whether this input is among those that have a copy to look at. One that is there counts."""
        with self._lock:
            if is_there or len(self._views) < MOST_VIEWS:
                self._views.add(key)
            return key in self._views

    def is_over(self) -> bool:
        """Whether no more copies are made."""
        return self._is_closed or self.error is not None or self._hurry() or self._stopped()

    def write(self, name: str, image: Image.Image, side: int) -> bool:
        """Write a copy; says whether it is there now."""
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_QUALITY[side], comment=_COMMENT)
        if self._is_closed:
            return False
        try:
            self._folder.write_bytes(f"{self._files}/{name}", file.getvalue(), flush=False)
        except (OutputError, ItemError) as error:
            self.error = error if isinstance(error, OutputError) else OutputError(str(error))
            return False
        with self._lock:
            self.made += 1
        return True


class _Copies:
    """The copies that one item needs."""

    def __init__(self, pictures: Pictures) -> None:
        self.left = 0
        self.small_of_last = ""
        self._pictures = pictures

    def of(
        self, picture: Given | None, key: str, *, small: bool, view: bool = False, is_result: bool = False
    ) -> tuple[str, str, str]:
        """The small copy, that to look at, and what is wrong: each "" if there is none. Makes what is missing."""
        all_of = self._pictures
        sides = {SMALL: small, VIEW: view, TINY: small and view and not is_result}
        wanted = {side: all_of.name_of(key, side) for side in sides if key and sides[side]}
        there = {side: name for side, name in wanted.items() if all_of.has(name)}
        if VIEW in wanted and not all_of.may_view(key, is_there=VIEW in there):
            del wanted[VIEW]
        fault = ""
        missing = [side for side in wanted if side not in there]
        if missing and picture is not None:
            if all_of.is_over():
                self.left += len(missing)
            else:
                try:
                    made = self._make(picture, {side: wanted[side] for side in missing})
                    self.left += len(missing) - len(made)
                    there |= made
                except ItemError as error:
                    fault = f"it cannot be shown ({error.code})"
        if view and small and not is_result:
            self.small_of_last = there.get(SMALL, "")
        return there.get(SMALL, ""), there.get(VIEW, ""), fault

    def _make(self, picture: Given, names: Mapping[int, str]) -> dict[int, str]:
        """Decode once, and write the copies, the larger one first. Raises ItemError for what is no picture."""
        image = load_picture(picture, _NO_LIMIT).image
        made = {}
        for side in sorted(names, reverse=True):
            image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
            if self._pictures.write(names[side], image, side):
                made[side] = names[side]
        return made


def _recorded(seen: object) -> tuple[str, int, int] | None:
    """(sha256, bytes, mtime_ns) of an input as its record has them; None if it does not."""
    if not isinstance(seen, list) or len(seen) < 3:
        return None
    sha256, size, mtime = seen[:3]
    if not (isinstance(sha256, str) and _SHA.fullmatch(sha256) and isinstance(size, int) and isinstance(mtime, int)):
        return None
    return sha256, size, mtime


def _key(path: str, status: os.stat_result) -> str:
    """The name of a file that no record describes: by its path and stamp, without reading it."""
    text = f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _sha256_of(path: str | ContainedPicture) -> str:
    try:
        return HashCache().sha256(path).sha256
    except OSError:
        return ""
