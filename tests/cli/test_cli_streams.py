"""The thread behind stdout and stderr: what it writes, what it drops, and when it gives up."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from joyedit.cli import streams
from joyedit.cli.streams import Pump, safe_streams, secure_descriptors


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for number in (reader, writer):
        try:
            os.close(number)
        except OSError:
            continue


def fill(writer: int) -> None:
    """Leave no room in a pipe."""
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)


def test_all_is_written_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    pump = Pump()
    for number in range(100):
        pump.write(writer, f"{number} ".encode())
    pump.drain()
    assert os.read(reader, 10_000).split() == [str(number).encode() for number in range(100)]


def test_more_than_a_pipe_holds_comes_through_piece_by_piece(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    pump = Pump()
    pump.write(writer, b"y" * 300_000)
    got = 0
    while got < 300_000:
        got += len(os.read(reader, 65_536))
    pump.drain()


def test_a_reader_that_left_stops_nothing(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    pump = Pump()
    pump.write(writer, b"x")
    pump.drain()
    pump.write(writer, b"dropped at once")
    pump.drain()


def test_a_pipe_that_nobody_reads_is_given_up_when_the_run_is_to_stop(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "GRACE", 0.1)
    monkeypatch.setattr(streams, "MOST_PENDING", 2)
    _, writer = pipe
    fill(writer)
    pump = Pump()
    stop = threading.Event()
    pump.stopped = stop.is_set
    done = threading.Event()

    def work() -> None:
        for _ in range(10):
            pump.write(writer, b"more than may be pending")
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert not done.wait(0.3), "it waits for the reader"
    stop.set()
    assert done.wait(30)
    pump.drain()


def test_last_words_long_after_the_others_are_written(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a reader that was slow is given up; a time in which there was nothing to write does not count."""
    monkeypatch.setattr(streams, "GRACE", 0.2)
    reader, writer = pipe
    pump = Pump()
    begun = threading.Event()
    go_on = threading.Event()
    write = pump._write

    def slow(number: int, data: bytes) -> None:
        begun.set()
        assert go_on.wait(30)
        write(number, data)

    pump.write(writer, b"first ")
    pump.drain()
    monkeypatch.setattr(pump, "_write", slow)
    pump._progress -= 60  # a minute of work without a word
    pump.stopped = lambda: True
    pump.write(writer, b"why it ends")
    assert begun.wait(30)
    pump._give_up_if_stuck()
    go_on.set()
    pump.drain()
    assert os.read(reader, 100) == b"first why it ends"


def test_no_memory_for_one_text_does_not_end_the_thread(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pipe
    pump = Pump()
    write = pump._write

    def without_memory(number: int, data: bytes) -> None:
        if data == b"too much":
            raise MemoryError
        write(number, data)

    monkeypatch.setattr(pump, "_write", without_memory)
    pump.write(writer, b"too much")
    pump.write(writer, b"why it ends")
    pump.drain()
    assert os.read(reader, 100) == b"why it ends"


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_without_a_thread_messages_are_written_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception
) -> None:
    def no_pump(own: object) -> Pump:
        raise error

    class Own:
        encoding = "utf-8"

        def __init__(self, number: int) -> None:
            self.fileno = lambda: number

        def flush(self) -> None:
            """Nothing is kept."""

    monkeypatch.setattr(streams, "Pump", no_pump)
    monkeypatch.setattr(sys, "stdout", Own(1))
    monkeypatch.setattr(sys, "stderr", Own(2))
    with safe_streams() as pump:
        assert pump is None
        sys.stderr.write("why it ends")
    assert capfd.readouterr().err == "why it ends"


def test_without_a_thread_a_full_pipe_is_waited_for(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    fill(writer)
    os.set_blocking(writer, False)
    text = b""
    thread = threading.Thread(target=streams._write_at_once, args=(writer, b"end"))
    thread.start()
    while not text.endswith(b"end"):
        text += os.read(reader, 65_536)
    thread.join()


def test_without_a_thread_a_pipe_that_nobody_reads_is_given_up(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "GRACE", 0.1)
    fill(pipe[1])
    streams._write_at_once(pipe[1], b"nobody reads this")


def test_a_pipe_that_somebody_made_non_blocking(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    fill(writer)
    os.set_blocking(writer, False)
    pump = Pump()
    pump.write(writer, b"end")
    text = b""
    while not text.endswith(b"end"):
        text += os.read(reader, 65_536)
    pump.drain()


def test_text_goes_through_with_escapes_for_what_the_encoding_lacks(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    pump = Pump()

    class Like:
        encoding = "ascii"

    text = streams._text(pump.write, writer, Like())
    text.write("caf\u00e9\n")
    pump.drain()
    assert os.read(reader, 100) == b"caf\\xe9\n"
    assert (text.fileno(), text.isatty(), text.writable()) == (writer, False, True)


def test_streams_of_somebody_else_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with safe_streams() as pump:
        assert pump is None
        assert (sys.stdout, sys.stderr) == before


def test_the_process_own_streams_are_replaced_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        encoding = "utf-8"

        def __init__(self, number: int) -> None:
            self.number = number

        def fileno(self) -> int:
            return self.number

        def flush(self) -> None:
            raise OSError("a terminal that is gone")

    own = Own(1), Own(2)
    monkeypatch.setattr(sys, "stdout", own[0])
    monkeypatch.setattr(sys, "stderr", own[1])
    with safe_streams() as pump:
        assert pump is not None
        assert sys.stdout is not own[0]
        assert sys.stderr.fileno() == 2
    assert (sys.stdout, sys.stderr) == own


def test_streams_that_are_missing_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    secure_descriptors()
    assert [stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)] == [0, 1, 2]


@pytest.mark.parametrize("free", [True, False])
def test_a_closed_descriptor_is_opened_on_nothing(monkeypatch: pytest.MonkeyPatch, free: bool) -> None:
    opened: list[int] = []
    moved: list[tuple[int, int]] = []
    real = os.fstat

    def fstat(number: int) -> os.stat_result:
        if number == 1:
            raise OSError("closed")
        return real(number)

    def open_null(path: str, flags: int) -> int:
        opened.append(flags)
        return 1 if free else 9

    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr(os, "open", open_null)
    monkeypatch.setattr(os, "dup2", lambda old, new: moved.append((old, new)))
    monkeypatch.setattr(os, "close", lambda number: None)
    secure_descriptors()
    assert opened == [os.O_WRONLY]
    assert moved == ([] if free else [(9, 1)])


def test_duplicates_are_written_in_place_of_their_descriptors_until_the_end(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    other_reader, other = os.pipe()
    pump = Pump({other: writer})
    pump.write(other, b"to the duplicate")
    pump.close()
    assert os.read(reader, 100) == b"to the duplicate"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writer)
    pump.write(other, b"to itself")
    pump.drain()
    assert os.read(other_reader, 100) == b"to itself"
    os.close(other)
    os.close(other_reader)
