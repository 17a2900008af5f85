"""The bytes of an input file -> text: line by line without a limit, or as a whole up to a limit.

Bytes that are not UTF-8 never raise an exception here: they become a problem, or lone surrogates
(`UNDECODED` finds them) where a reader wants to go on after them.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol, cast

from joyedit.errors import Problem

MAX_ITEM = 4 << 20
"""The most bytes that one item may have beside its pictures. One endless line must not fill the memory."""

MAX_LINE = 64 << 20
"""The most bytes of a line that holds pictures (`data:` URIs)."""

UNDECODED = re.compile("[\udc80-\udcff]")
"""A byte that is not UTF-8, decoded with `surrogateescape`."""

NOT_UTF8 = Problem("not valid UTF-8", "save the file as UTF-8")
BOM = codecs.BOM_UTF8
_DATA = b"data:"
_TO_FILES = "write its pictures to files, and give their paths"
_TOO_LONG_FOR_ALL = Problem(f"this line is longer than {MAX_LINE >> 20} MiB", _TO_FILES)
_TOO_LONG = Problem(f"this line is longer than {MAX_ITEM >> 20} MiB", "write each item on a line of its own")


class BrokenFileError(Exception):
    """The rest of the file cannot be read. `problem` says why, and its line; it does not name the file."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class LineReader(Protocol):
    """What gives lines of bytes: a binary stream, or something like it."""

    def readline(self, limit: int, /) -> bytes:
        """The next line with its end, at most `limit` bytes of it; empty at the end."""


class PartReader(Protocol):
    """What gives parts of bytes that end with any byte."""

    def readline(self, limit: int, end: bytes) -> bytes:
        """The next part with its end, at most `limit` bytes of it; empty at the end."""


def lines_of(stream: LineReader, file: str) -> Iterator[tuple[int, str] | Problem]:
    """Number and text of each line that is not blank, without its end; a Problem for a line that is no text."""
    number = 0
    while raw := stream.readline(MAX_ITEM + 1):
        number += 1
        if len(raw) > MAX_ITEM:
            raw, problem = _whole_line(raw, stream.readline, b"\n")
            if problem is not None:
                yield problem.at(file, number)
                continue
        if number == 1:
            raw = raw.removeprefix(BOM)
        if raw.isspace() or not raw:
            continue
        try:
            yield number, raw.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            message = f"{NOT_UTF8.message} (byte 0x{raw[error.start]:02x} at column {error.start + 1})"
            yield Problem(message, NOT_UTF8.remedy).at(file, number)


def _whole_line(raw: bytes, readline: Callable[[int], bytes], end: bytes) -> tuple[bytes, Problem | None]:
    """The line that begins with `raw`, which is long; or why it is too long, when the stream is behind it."""
    limit = MAX_LINE if _DATA in raw else 0
    parts, length, more = [raw], len(raw), raw
    while more and not more.endswith(end):
        more = readline(MAX_ITEM)
        length += len(more)
        if length > limit:
            parts = []
        else:
            parts.append(more)
    if length > limit:
        return b"", _TOO_LONG_FOR_ALL if limit else _TOO_LONG
    return b"".join(parts), None


def nul_texts_of(stream: PartReader, file: str) -> Iterator[tuple[int, str] | Problem]:
    """Number and text of each part that ends with a NUL; a Problem for one that is no text."""
    number = 0
    while raw := stream.readline(MAX_ITEM + 1, b"\0"):
        number += 1
        if len(raw) > MAX_ITEM:
            raw, problem = _whole_line(raw, lambda limit: stream.readline(limit, b"\0"), b"\0")
            if problem is not None:
                yield problem.at(file, number)
                continue
        try:
            text = raw.removesuffix(b"\0").decode()
        except UnicodeDecodeError:
            yield Problem(NOT_UTF8.message, NOT_UTF8.remedy).at(file, number)
            continue
        if text.strip():
            yield number, text


class CsvLines:
    """The lines for the csv module, with the number of the last one. A byte that is not UTF-8 is a lone surrogate."""

    def __init__(self, stream: LineReader) -> None:
        self.stream = stream
        self.number = 0
        self._next: bytes | None = None

    def __iter__(self) -> CsvLines:
        return self

    def __next__(self) -> str:
        raw = self.stream.readline(MAX_LINE) if self._next is None else self._next
        self._next = None
        if not raw:
            raise StopIteration
        if self.number == 0:
            raw = raw.removeprefix(BOM)
        self.number += raw.endswith(b"\n") or len(raw) < MAX_LINE
        if len(raw) > _CSV_FIELD and _DATA in raw:
            csv.field_size_limit(max(MAX_LINE, csv.field_size_limit()))  # of the process: tables without pictures
            # keep the short limit, which finds a quote that nobody closed
        return raw.decode("utf-8", "surrogateescape")

    def peek(self) -> str:
        """The next line, which stays the next one; an empty text at the end."""
        if self._next is None:
            self._next = self.stream.readline(MAX_LINE)
        return self._next.removeprefix(BOM).decode("utf-8", "surrogateescape")


_CSV_FIELD = 1 << 16
"""Shorter than any limit of the csv module."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the next but one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def as_utf8(file: BinaryIO) -> BinaryIO:
    """`file` with its text in UTF-8: UTF-16 and UTF-32, which spreadsheets and Windows write, begin with a mark."""
    encoding = encoding_of(file.read(4))
    file.seek(0)
    return file if encoding is None else cast(BinaryIO, _Utf8Stream(file, encoding))


def encoding_of(start: bytes) -> str | None:
    """The encoding whose mark a text begins with; None for UTF-8, and for no mark."""
    return next((name for mark, name in _MARKS if start.startswith(mark)), None)


def may_grow_to_mark(start: bytes) -> bool:
    """Whether more bytes may tell another encoding."""
    return len(start) < 4 and any(mark.startswith(start) for mark, _ in _MARKS)


def decoded(decoder: codecs.IncrementalDecoder, chunk: bytes) -> tuple[bytes, bool]:
    """The next part of a text as UTF-8, and whether it is broken here; an empty chunk is the end of it."""
    try:
        return decoder.decode(chunk, final=not chunk).encode("utf-8", "surrogatepass"), False
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(error.encoding, "surrogatepass")
        return before.encode("utf-8", "surrogatepass") + b"\xff", True


class _Utf8Stream:
    """A file in another encoding as a stream of UTF-8. Where it is broken there is a byte that is not UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._text = io.TextIOWrapper(file, encoding=encoding, errors="surrogatepass", newline="\n")
        self._rest = b""
        self._is_broken = False

    def __enter__(self) -> _Utf8Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self._text.close()

    def fileno(self) -> int:
        return self._text.fileno()

    def readline(self, limit: int = -1) -> bytes:
        return self._take(self._text.readline, limit)

    def read(self, limit: int = -1) -> bytes:
        return self._take(self._text.read, limit)

    def _take(self, read: Callable[[int], str], limit: int) -> bytes:
        """At most `limit` bytes of what `read` gives for so many characters; the rest comes with the next call."""
        data = self._rest
        if not data and not self._is_broken:
            try:
                data = read(limit).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                data, self._is_broken = b"\xff", True
        end = len(data) if limit < 0 else limit
        self._rest = data[end:]
        return data[:end]


def whole_text(stream: BinaryIO, *, limit: int, kind: str, remedy: str) -> str:
    """The whole file. A byte that is not UTF-8 is a lone surrogate in it.

    Raises BrokenFileError for a file of more than `limit` bytes; `kind` names such files in the message.
    """
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise BrokenFileError(Problem(f"{kind} can have {limit >> 20} MiB at most, and this file is larger", remedy))
    return data.removeprefix(BOM).decode("utf-8", "surrogateescape")


def line_at(text: str, position: int) -> int:
    """The number of the line at `position`, counted from 1."""
    return text.count("\n", 0, position) + 1
