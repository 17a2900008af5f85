"""What libtiff prints by itself: caught, put on one line, and given to the picture that it belongs to."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.pictures import decoder_messages
from joyedit.job.pictures.budget import NobodyWaits, PlainCaller
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.decoder_messages import caught_messages, one_line, set_catching, stderr_number


@pytest.fixture
def catching() -> Iterator[None]:
    with warnings.catch_warnings():
        set_catching(True)
        yield
        set_catching(False)


def damaged(path: Path, compression: str) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "TIFF", compression=compression)
    data = bytearray(file.getvalue())
    for place in range(300, 400):
        data[place] ^= 0x5A
    path.write_bytes(data)
    return path


@pytest.mark.usefixtures("catching")
@pytest.mark.parametrize(
    ("compression", "said"),
    [
        ("tiff_adobe_deflate", "ZIPDecode: Decoding error at scanline 0"),
        ("tiff_deflate", "ZIPDecode: Decoding error at scanline 0"),
        ("tiff_lzw", "LZWDecode|Using code not yet in table|Corrupted LZW table"),
    ],
)
def test_the_message_is_the_reason(
    tmp_path: Path, compression: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = damaged(tmp_path / "p.tif", compression)
    with pytest.raises(ItemError, match=said) as caught:
        load_picture(path)
    assert caught.value.code == "unreadable_picture"
    assert str(caught.value).startswith(f"{path}: ")
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("catching")
def test_the_message_of_a_picture_that_is_read_all_the_same_is_a_note(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    notes = load_picture(damaged(tmp_path / "p.tif", "jpeg")).notes
    assert [note for note in notes if note.startswith("libtiff says: JPEG")]
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("catching")
def test_a_sound_picture_has_no_note(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "p.tif", compression="tiff_lzw")
    assert load_picture(tmp_path / "p.tif").notes == ()


def test_only_a_command_that_asks_for_it_has_its_descriptor_redirected(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ItemError, match="decoder error -2"):
        load_picture(damaged(tmp_path / "p.tif", "tiff_adobe_deflate"))
    assert "ZIPDecode" in capfd.readouterr().err


@pytest.mark.usefixtures("catching")
def test_the_descriptor_comes_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        with caught_messages(PlainCaller()):
            os.write(2, b"inside")
            os.write(stderr_number(), b"at once ")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    os.write(2, b"outside")
    assert stderr_number() == 2
    assert capfd.readouterr().err == "at once outside"


@pytest.mark.usefixtures("catching")
def test_no_descriptor_is_lost() -> None:
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        with caught_messages(PlainCaller()) as messages:
            os.write(2, b"x")
        assert messages.text == "x"
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.usefixtures("catching")
def test_without_a_temporary_file_nothing_is_redirected(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full() -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoder_messages, "_temporary_file", full)
    with caught_messages(PlainCaller()) as messages:
        os.write(2, b"said")
    assert messages.text == ""
    assert capfd.readouterr().err == "said"


@pytest.mark.usefixtures("catching")
def test_a_temporary_file_serves_where_there_is_no_file_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with caught_messages(PlainCaller()) as messages:
        os.write(2, b"said")
    assert messages.text == "said"


def test_a_closed_descriptor_stays_closed(tmp_path: Path) -> None:
    path = damaged(tmp_path / "p.tif", "tiff_adobe_deflate")
    code = (
        "import os, sys; os.close(2)\n"
        "from joyedit.job.pictures.decode import load_picture\n"
        "from joyedit.job.pictures.decoder_messages import set_catching\n"
        "set_catching(True)\n"
        f"try: load_picture({str(path)!r})\n"
        "except Exception as error: print(type(error).__name__)\n"
        "try: os.fstat(2)\n"
        "except OSError: print('closed')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout == "ItemError\nclosed\n"


@pytest.mark.usefixtures("catching")
def test_one_thread_at_a_time_and_the_others_can_be_stopped() -> None:
    waits = threading.Event()

    class Stopped(PlainCaller):
        def check(self) -> None:
            waits.set()
            raise NobodyWaits

    def second() -> None:
        with pytest.raises(NobodyWaits), caught_messages(Stopped()):
            raise AssertionError("two at a time")
        done.set()

    done = threading.Event()
    with caught_messages(PlainCaller()):
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        assert done.wait(60)
    assert waits.is_set()
    thread.join(60)


@pytest.mark.usefixtures("catching")
def test_a_decoder_that_hangs_is_given_up_and_the_next_one_is_served() -> None:
    held = []

    class Hung(PlainCaller):
        def when_given_up(self, give_back: object) -> None:
            held.append(give_back)

    with caught_messages(Hung()):
        held[0]()
        assert stderr_number() == 2
        with caught_messages(PlainCaller()) as next_one:
            os.write(2, b"mine")
        assert next_one.text == "mine"
    with caught_messages(PlainCaller()):
        assert stderr_number() != 2


def test_messages_are_one_line_of_printable_text() -> None:
    assert one_line(b"") == ""
    assert one_line(b"a: bad.\na: bad.\n\nb: \x1b[31mred\x1b[0m\r\n") == "a: bad; b: \\x1b[31mred\\x1b[0m"
    assert one_line("x\u202ey\x9bz".encode()) == "x\\u202ey\\x9bz"
    assert one_line(b"\xff\xfe") == "\N{REPLACEMENT CHARACTER}" * 2
    long = one_line(b"y" * 5000)
    assert len(long) == decoder_messages.MOST_CHARACTERS
    assert long.endswith("…")
