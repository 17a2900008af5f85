"""Warnings of Pillow become notes of the picture that is read, in each thread for itself."""

from __future__ import annotations

import logging
import threading
import warnings
from pathlib import Path

import pytest
from PIL import Image

from joyedit.job.pictures import python_warnings
from joyedit.job.pictures.decode import header_size, load_picture
from joyedit.job.pictures.python_warnings import gathered_warnings, is_hooked, set_warning_hook
from support.png import chunk, with_chunks

BROKEN_EXIF = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x05")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """As a module of Pillow would."""
    warnings.warn_explicit(message, category, "/x/PIL/Plugin.py", 1, module="PIL.Plugin")


@pytest.mark.usefixtures("warnings_are_notes")
def test_a_warning_is_a_note_each_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.png"):  # Python itself shows a warning once for each place in the code
        (tmp_path / name).write_bytes(with_chunks(Image.new("RGB", (4, 4)), BROKEN_EXIF))
        assert header_size(tmp_path / name) == (4, 4)
        notes = load_picture(tmp_path / name).notes
        assert [note for note in notes if note.startswith("the decoder warns: Corrupt EXIF data")] == list(notes)
        assert len(notes) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("warnings_are_notes")
def test_each_thread_has_its_own() -> None:
    found: dict[int, list[str]] = {}
    together = threading.Barrier(4)

    def read(number: int) -> None:
        with gathered_warnings() as texts:
            together.wait(60)
            for _ in range(50):
                warn(f"picture {number}")
            together.wait(60)
        found[number] = texts

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {number: [f"picture {number}"] for number in range(4)}


@pytest.mark.usefixtures("warnings_are_notes")
def test_they_are_few_short_and_printable(capfd: pytest.CaptureFixture[str]) -> None:
    with gathered_warnings() as texts:
        warn("a\n  b\x1b[31m. ")
        warn("x" * 1000)
        warn("huge", Image.DecompressionBombWarning)
        logging.getLogger("PIL.Any").warning("logged %s", "too")
        logging.getLogger("PIL.Any").debug("but not this")
        for number in range(100):
            warn(str(number))
    assert texts[:3] == ["a b\\x1b[31m", "x" * python_warnings.MOST_CHARACTERS, "logged too"]
    assert len(texts) == python_warnings.MOST_WARNINGS
    assert capfd.readouterr().err == ""


def test_outside_of_a_picture_only_pillow_is_silent() -> None:
    with warnings.catch_warnings(record=True) as shown:
        set_warning_hook(True)
        warnings.simplefilter("always")
        warn("of Pillow")
        warnings.warn_explicit("of somebody else", UserWarning, "other.py", 3)
        set_warning_hook(False)
    assert [str(warning.message) for warning in shown] == ["of somebody else"]


def test_the_hook_goes_away_again() -> None:
    before = warnings.showwarning
    with warnings.catch_warnings():
        for _ in range(2):
            set_warning_hook(True)
            assert is_hooked()
        set_warning_hook(False)
        set_warning_hook(False)
        assert not is_hooked()
    assert warnings.showwarning is before


def test_without_the_hook_warnings_are_pythons() -> None:
    with gathered_warnings() as texts, pytest.warns(UserWarning, match="for all"):
        warn("for all")
    assert texts == []
