"""TIFF files that declare far more than they are: refused before they cost memory or time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.pictures.decode import header_size, load_picture
from support.tiff import Tag, tiff


def grey(width: int, height: int, *more: Tag, compression: int = 8) -> tuple[Tag, ...]:
    tags = ((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1), *more)
    return tuple(sorted(tags))


def tiled(width: int, height: int, across: int, down: int, compression: int = 8) -> tuple[Tag, ...]:
    tile = ((322, 4, 1, across), (323, 4, 1, down), (324, 4, 1, 8), (325, 4, 1, 8))
    return grey(width, height, *tile, compression=compression)


@pytest.mark.parametrize("read", [header_size, load_picture])
@pytest.mark.parametrize(
    ("width", "height", "across", "down"),
    [(100, 100, 32_768, 65_535), (16, 16, 2_000_000_000, 1), (9000, 16, 16, 500_000)],
)
def test_a_tile_far_larger_than_its_picture_is_refused(
    tmp_path: Path, read: object, width: int, height: int, across: int, down: int
) -> None:
    path = tmp_path / "p.tif"
    path.write_bytes(tiff(*tiled(width, height, across, down)))
    with pytest.raises(ItemError, match=f"its tiles of {across} x {down} pixels are far larger") as caught:
        read(path)  # type: ignore[operator]
    assert caught.value.code == "unreadable_picture"
    assert f"({width} x {height}); save it anew" in str(caught.value)


def test_tiles_of_a_sane_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    # libtiff is what fails here, at the data of the tile.
    for across, down in ((512, 512), (2048, 2048), (1024, 4096)):
        path.write_bytes(tiff(*tiled(100, 100, across, down)))
        assert header_size(path) == (100, 100)
    path.write_bytes(tiff(*tiled(5000, 5000, 5008, 5008)))
    assert header_size(path) == (5000, 5000)
    # Plain pixels need no memory for a tile.
    path.write_bytes(tiff(*tiled(10, 4, 60_000, 60_000, compression=1), more=bytes(70_000 * 5)))
    assert load_picture(path).image.size == (10, 4)


@pytest.mark.parametrize("read", [header_size, load_picture])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("tag", "kind", "count"), [(273, 4, 1_500_000), (324, 4, 1_500_000), (282, 5, 300_000), (258, 3, 300_000)]
)
def test_tags_of_millions_of_values_are_refused(
    tmp_path: Path, read: object, order: str, big: bool, tag: int, kind: int, count: int
) -> None:
    tags = [entry for entry in grey(8, 8, compression=1) if entry[0] != tag]
    path = tmp_path / "p.tif"
    path.write_bytes(tiff(*sorted([*tags, (tag, kind, count, 200)]), order=order, big=big))
    with open(path, "r+b") as file:
        file.truncate(20_000_000)  # with holes: such a file costs nothing
    with pytest.raises(ItemError, match=f"its tag {tag} claims {count} values") as caught:
        read(path)  # type: ignore[operator]
    assert caught.value.code == "unreadable_picture"


def test_a_private_tag_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    strip = ((273, 4, 1, 200), (278, 4, 1, 8), (279, 4, 1, 64), (60_000, 4, 300_000, 400))
    path.write_bytes(tiff(*grey(8, 8, *strip, compression=1), more=bytes(2_000_000)))
    assert load_picture(path).image.size == (8, 8)


@pytest.mark.parametrize(
    "data", [b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0", b"MM\0+" + b"\xff" * 12]
)
def test_a_directory_that_is_not_there(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p.tif").write_bytes(data)
    with pytest.raises(ItemError):
        header_size(tmp_path / "p.tif")


def test_a_strip_of_all_rows_is_read(tmp_path: Path) -> None:
    pixels = np.arange(60 * 40, dtype=np.uint8).reshape(60, 40)
    Image.fromarray(pixels).save(tmp_path / "p.tif", compression="tiff_lzw", tiffinfo={278: 2**32 - 1})
    assert np.array_equal(np.asarray(load_picture(tmp_path / "p.tif").image)[..., 0], pixels)
