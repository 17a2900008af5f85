"""Standard input that stays silent: whoever waits for it can be told to stop, and no byte is lost."""

from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from PIL import Image

from joyedit.errors import EXIT_OUT_OF_TIME, ManifestError
from joyedit.job.source.source import SourceStoppedError
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.source.stoppable_stream import StoppableStream
from joyedit.job.source.text import lines_of


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, int]]:
    """The end to read from, and the descriptor to write to."""
    reading, writing = os.pipe()
    with open(reading, "rb") as file:
        yield file, writing
        os.close(writing)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("a.png")
    return tmp_path


def asked(times: int) -> Iterator[bool]:
    """Not yet, so many times; then stop."""
    yield from [False] * times
    while True:
        yield True


@pytest.mark.parametrize("before", [b"", b"\n \n", b"half a li", b"x" * 100_000])
def test_a_silent_stream_can_be_stopped(pipe: tuple[BinaryIO, int], before: bytes) -> None:
    reading, writing = pipe
    sender = threading.Thread(target=os.write, args=(writing, before))
    sender.start()
    answers = asked(2)
    lines = lines_of(StoppableStream(reading, lambda: next(answers)), "-")
    with pytest.raises(SourceStoppedError):
        next(lines)
    sender.join(timeout=60)
    assert not sender.is_alive()


def test_it_is_not_asked_while_lines_come(pipe: tuple[BinaryIO, int]) -> None:
    reading, writing = pipe
    os.write(writing, b"one\ntwo\n")
    lines = lines_of(StoppableStream(reading, lambda: True), "-")
    assert [next(lines), next(lines)] == [(1, "one"), (2, "two")]
    with pytest.raises(SourceStoppedError):
        next(lines)


def test_every_byte_comes_whatever_the_pieces(pipe: tuple[BinaryIO, int]) -> None:
    reading, writing = pipe
    chance = random.Random(7)
    sizes = [0, 1, 2, 65_535, 65_536, 65_537, 200_000, *(chance.randrange(5_000) for _ in range(40))]
    whole = b"".join(bytes(chance.choices(b"abc\r", k=size)) + b"\n" for size in sizes) + b"no end"

    def send() -> None:
        at = 0
        while at < len(whole):
            at += os.write(writing, whole[at : at + chance.choice([1, 100, 4_096, 70_000])])
        os.dup2(nothing, writing)  # the last copy of this end is closed

    nothing = os.open(os.devnull, os.O_WRONLY)
    sender = threading.Thread(target=send)
    sender.start()
    stream = StoppableStream(reading, lambda: False)
    wanted = io.BytesIO(whole)
    while line := wanted.readline(150_000):
        assert stream.readline(150_000) == line
    assert stream.readline(150_000) == b""
    sender.join(timeout=60)
    os.close(nothing)


def test_a_file_and_a_stream_without_a_descriptor(place: Path) -> None:
    Path("lines").write_bytes(b"one\n\ntwo")
    with open("lines", "rb") as file, open("lines", "rb", buffering=0) as raw:
        for stream in (file, raw, io.BytesIO(b"one\n\ntwo")):
            got = list(lines_of(StoppableStream(stream, lambda: True), "-"))  # type: ignore[arg-type]
            assert got == [(1, "one"), (3, "two")]


def test_the_first_line_is_waited_for_until_somebody_stops(pipe: tuple[BinaryIO, int]) -> None:
    reading, writing = pipe
    opened = open_source("-", SourceOptions(output=Path("out"), prompt="go"), reading)
    for _ in range(2):  # asked again, it is still no empty input
        answers = asked(1)
        opened.stopped = lambda: next(answers)  # noqa: B023
        with pytest.raises(SourceStoppedError) as error:
            opened.check()
        assert error.value.exit_code == EXIT_OUT_OF_TIME
    os.write(writing, b"a.png\n")
    opened.check()
    items = opened.items()
    assert next(items).id == "a"
    with pytest.raises(SourceStoppedError):
        next(items)


def test_an_empty_input_is_still_refused() -> None:
    opened = open_source("-", SourceOptions(output=Path("out"), prompt="go"), io.BytesIO(b"\n"))
    opened.stopped = lambda: True
    with pytest.raises(ManifestError, match="standard input is empty"):
        opened.check()
