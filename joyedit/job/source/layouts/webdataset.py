"""WebDataset: tar archives in which the files of one basename are one sample.

An archive is read once, from its beginning to its end. Its texts become values, its pictures stay where they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from typing import Any, BinaryIO

from joyedit.errors import Problem, os_reason
from joyedit.job.contained import ContainedPicture
from joyedit.job.containers.files import absolute, joined, open_file, stamp_of
from joyedit.job.containers.tar_members import Member, TornTarError, members_of
from joyedit.job.pictures.decode import SUPPORTED_SUFFIXES
from joyedit.job.source.layouts.rows import BrokenDatasetError, Reader, Row, Rows
from joyedit.job.source.text import MAX_ITEM
from joyedit.job.spec import Stamp

_REMEDY = "download or write this archive again, or leave it out with --exclude"
_TEXTS = frozenset((".txt", ".text", ".caption", ".id", ".cls"))


class WebDatasetReader(Reader):
    """Tar archives, in order."""

    format = "WebDataset"

    def rows(self, wanted: Collection[str] | None = None) -> Rows:
        for name in self.files:
            path = joined(self.root, name)
            try:
                with open_file(path) as file:
                    yield from _samples(file, name, path, stamp_of(path))
            except TornTarError as error:
                raise BrokenDatasetError(Problem(f"this tar archive: {error}", _REMEDY).at(path)) from error
            except OSError as error:
                raise BrokenDatasetError(Problem(f"cannot read this archive: {os_reason(error)}").at(path)) from error


def _samples(file: BinaryIO, name: str, path: str, stamp: Stamp) -> Rows:
    sample = _Sample("", path, name)
    for member in members_of(file):
        key, ending = _split(member.name)
        if not ending:
            continue
        if key != sample.key:
            yield from sample.done()
            sample = _Sample(key, path, name)
        sample.add(member, ending, file, stamp)
    yield from sample.done()


def _split(name: str) -> tuple[str, str]:
    """The key and the ending of a member: `a/0001.input.png` is `a/0001` and `input.png`. Hidden files have none."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return (folder + slash + stem, ending.lower()) if stem else (name, "")


class _Sample:
    """The members of one key."""

    def __init__(self, key: str, path: str, name: str) -> None:
        self.key = key
        self._place = f"{path}#{key}"
        self._shard = os.path.splitext(name)[0]
        self._path = path
        self._values: dict[str, Any] = {}
        self._json: dict[str, Any] = {}
        self._problem: Problem | None = None

    def add(self, member: Member, ending: str, file: BinaryIO, stamp: Stamp) -> None:
        """One more file of the sample. What is wrong with it is wrong with the sample."""
        column, _, last = ending.rpartition(".")
        name, suffix = column or last, f".{last}"
        if suffix not in SUPPORTED_SUFFIXES and suffix not in _TEXTS and suffix != ".json":
            return
        if member.refused:
            self._fail(f"{member.name}: {member.refused}")
        elif suffix in SUPPORTED_SUFFIXES:
            if name in self._values:
                self._fail(f"{member.name} is there twice")
            self._values[name] = ContainedPicture(absolute(self._path), member.name, member.at, stamp)
        elif member.at.length > MAX_ITEM:
            self._fail(f"{member.name} has more than {MAX_ITEM >> 20} MiB")
        else:
            self._add_text(member, name, suffix, file)

    def _add_text(self, member: Member, name: str, suffix: str, file: BinaryIO) -> None:
        file.seek(member.at.offset)
        data = file.read(member.at.length)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            self._fail(f"{member.name} is not valid UTF-8")
            return
        if suffix != ".json":
            self._values[name] = text.strip()
            return
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            self._fail(f"{member.name} is broken JSON")
            return
        if isinstance(found, dict):
            self._json |= found
        else:
            self._values[name] = found

    def _fail(self, message: str) -> None:
        self._problem = self._problem or Problem(message)

    def done(self) -> Rows:
        """The sample as a row; nothing for a key without any file of interest."""
        if self._problem is not None or self._values or self._json:
            values = {**self._json, **self._values}  # a file is more than a key of the same name
            yield Row(self._place, f"{self._shard}/{self.key}", values, key=self.key, problem=self._problem)
