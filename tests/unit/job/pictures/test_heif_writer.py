"""AVIF and HEIC as they are written: colours, transparency, metadata; what is said where an encoder is missing."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from joyedit.job.pictures import heif_writer, icc
from joyedit.job.pictures.can_write import can_write, lost_format
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.encode import Beside, save_picture
from joyedit.job.pictures.metadata import Metadata

P3 = icc.profile(icc.PRIMARIES[12][1], icc.srgb_curve(np.linspace(0, 1, icc.ENTRIES)), name="Display P3")


@pytest.fixture
def asked_anew() -> Iterator[None]:
    can_write.cache_clear()
    yield
    can_write.cache_clear()


@pytest.mark.parametrize("form", ["avif", "heic"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_what_stands_beside_the_pixels(tmp_path: Path, form: str, mode: str) -> None:
    if form == "heic":
        pytest.importorskip("pillow_heif")
    image = Image.linear_gradient("L").resize((160, 120)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize((120, 160)).rotate(90, expand=True))
    exif = Image.Exif()
    exif[271], exif[274] = "Canon", 1
    beside = Beside(Metadata(exif.tobytes()[6:], b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>", (300.0, 300.0)), P3)
    with (tmp_path / "x").open("wb") as file:
        assert save_picture(image, file, form, None, {"instruction": "x", "software": "joyedit 1"}, beside) == ()
    held = load_picture(tmp_path / "x").properties
    assert held.colours["icc_profile"] == P3
    assert b"Canon" in held.exif
    assert held.xmp == b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    assert held.size == (120, 160)
    assert (held.alpha is None) == (mode == "RGB")


@pytest.mark.parametrize("form", ["avif", "heic"])
def test_without_a_profile_colours_are_srgb(tmp_path: Path, form: str) -> None:
    if form == "heic":
        pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 64), (200, 60, 30))
    with (tmp_path / "x").open("wb") as file:
        save_picture(image, file, form, 90, {})
    found = load_picture(tmp_path / "x")
    difference = np.abs(np.asarray(found.image).astype(int) - np.asarray(image).astype(int))
    assert difference.max() <= 4
    assert not any("converted" in note for note in found.notes)


@pytest.mark.usefixtures("asked_anew")
def test_a_pillow_without_avif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(Image.SAVE, "AVIF")
    with pytest.raises(OSError, match="this Pillow writes no AVIF"):
        heif_writer.write_avif(Image.new("RGB", (8, 8)), io.BytesIO(), quality=50)
    assert not can_write("avif")
    assert lost_format("AVIF") == "the picture is AVIF, and nothing here writes that"


@pytest.mark.usefixtures("asked_anew")
def test_no_pillow_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(OSError, match="pillow_heif"):
        heif_writer.write_heic(Image.new("RGB", (8, 8)), io.BytesIO(), quality=50)
    assert not can_write("heic")
    assert can_write("png")
    assert lost_format("TIFF") is None


def test_a_pillow_heif_without_its_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("No HEIF encoder found.")

    monkeypatch.setattr(heif.HeifFile, "save", fails)
    with pytest.raises(OSError, match=r"pillow-heif cannot write this picture: No HEIF encoder found\."):
        heif_writer.write_heic(Image.new("RGB", (8, 8)), io.BytesIO(), quality=50)
