"""Some hundred broken pictures of nine kinds: each ends in one record, and none of them stops the run."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from durability.harness import FAKE, check_decodes, environment, findings, pictures, program, records
from support.figures import FIGURES, SOAK

CODES = {
    "unreadable_picture", "truncated_picture", "empty_picture", "picture_too_large", "missing_picture",
}  # fmt: skip
EACH = 40


def whole() -> dict[str, bytes]:
    """A sound picture of each kind, with something in it that a decoder must work on."""
    noise = np.random.default_rng(3).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    options: dict[str, tuple[str, dict[str, object]]] = {
        "png": ("PNG", {"exif": image.getexif()}),
        "jpg": ("JPEG", {"quality": 80, "progressive": True}),
        "webp": ("WEBP", {"quality": 70}),
        "gif": ("GIF", {"save_all": True, "append_images": [image.rotate(90), image]}),
        "tif": ("TIFF", {}),
        "tiff": ("TIFF", {"compression": "tiff_lzw"}),
        "bmp": ("BMP", {}),
        "ppm": ("PPM", {}),
        "apng": ("PNG", {"save_all": True, "append_images": [image.rotate(180)]}),
    }
    made = {}
    for ending, (kind, more) in options.items():
        file = io.BytesIO()
        image.save(file, kind, **more)
        made[ending] = file.getvalue()
    return made


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def flip(data: bytes, dice: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(dice.choice((1, 3, 30))):
        made[dice.randrange(len(made))] ^= 1 << dice.randrange(8)
    return bytes(made)


def damage_the_head(data: bytes, dice: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(dice.randrange(1, 6)):
        made[dice.randrange(min(64, len(made)))] = dice.choice((0, 1, 0x7F, 0xFF, dice.randrange(256)))
    return bytes(made)


def drop(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + data[at + dice.randrange(1, 40) :]


def insert(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + dice.randbytes(dice.randrange(1, 60)) + data[at:]


def blank(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes(len(data) - at)


def double(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + data


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    cut, flip, damage_the_head, drop, insert, blank, double,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(SOAK))
def test_broken_pictures(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    folder = tmp_path / "in"
    folder.mkdir()
    for ending, data in whole().items():
        (folder / f"whole-{ending}.{ending}").write_bytes(data)
        for number in range(EACH):
            mutate = MUTATIONS[number % len(MUTATIONS)]
            (folder / f"{ending}-{number}.{ending}").write_bytes(mutate(data, dice))
    inputs = len(list(folder.iterdir()))
    ended = program("run", "in", "-p", "x", *FAKE, "-o", "out", "--format", "jpg", cwd=tmp_path, timeout=250)
    assert ended.code == 3, ended.message
    assert "Traceback" not in ended.message
    message = records(tmp_path / "out")
    assert len(message) == inputs
    codes = Counter(record["error"]["code"] for record in message.values() if record["error"])
    assert set(codes) <= CODES
    assert codes.total() > inputs // 10
    assert all("\n" not in record["error"]["message"] for record in message.values() if record["error"])
    assert all(message[f"whole-{ending}"]["status"] == "ok" for ending in whole())
    outputs = pictures(tmp_path / "out")
    assert set(outputs) == {record["output"] for record in message.values() if record["status"] == "ok"}
    for name in outputs:
        check_decodes(tmp_path / "out" / name)
    assert findings(tmp_path / "out") == []
    FIGURES["broken pictures tried"] += inputs - len(whole())


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    head = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in (head, *chunks, (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + body


def gif(width: int, height: int, across: int, down: int) -> bytes:
    """A canvas of `width` x `height`, with a frame of `across` x `down`."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, across, down, 0) + b"\2\2\x44\1\0"


def jpeg_with_exif(entry: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, "JPEG")
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    return file.getvalue()[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + file.getvalue()[2:]


def test_bombs(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    zeros = zlib.compress(bytes(100_000_000), 9)
    million = zlib.compress(b"x" * 1_000_000, 9)
    bombs = {
        "wide.png": png(60_000, 60_000, (b"IDAT", zeros)),
        "widest.png": png(2**31 - 1, 2**31 - 1, (b"IDAT", zeros)),
        "text.png": png(8, 8, (b"zTXt", b"k\0\0" + zeros), (b"IDAT", zlib.compress(bytes(25 * 8)))),
        "profile.png": png(8, 8, (b"iCCP", b"k\0\0" + zeros), (b"IDAT", zlib.compress(bytes(25 * 8)))),
        "long.png": png(8, 8, (b"IDAT", zeros)),
        "wide.tif": tiff((256, 4, 1, 65_000), (257, 4, 1, 65_000), (258, 3, 1, 8), (273, 4, 1, 8), (279, 4, 1, 1)),
        "tags.tif": tiff((256, 4, 2**31, 8), (257, 4, 1, 8), (273, 4, 2**32 - 1, 8)),
        "strips.tif": tiff((256, 4, 1, 8), (257, 4, 1, 8), (278, 4, 1, 0), (273, 4, 2**30, 8)),
        "circle.tif": b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8),
        "wide.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "wide.gif": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6) + b",",
        "wide.ppm": b"P6 100000 100000 255\n",
        "tile.tif": tiff(
            (256, 4, 1, 100), (257, 4, 1, 100), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1),
            (322, 4, 1, 32_768), (323, 4, 1, 65_535), (324, 4, 1, 8), (325, 4, 1, 2_000_000),
        ) + bytes(2_000_000),
        "values.tif": tiff((256, 4, 1, 8), (257, 4, 1, 8), (273, 4, 2_000_000, 100)) + bytes(9_000_000),
        "ratios.tif": tiff((256, 4, 1, 8), (257, 4, 1, 8), (282, 5, 1_000_000, 100)) + bytes(9_000_000),
        "itxt.png": png(8, 8, (b"iTXt", b"k\0\1\0\0\0" + zeros), (b"IDAT", zlib.compress(bytes(25 * 8)))),
        "texts.png": png(8, 8, *[(b"zTXt", b"k\0\0" + million)] * 80, (b"IDAT", zlib.compress(bytes(25 * 8)))),
        "late.png": png(8, 8, (b"IDAT", zlib.compress(bytes(25 * 8))), *[(b"zTXt", b"k\0\0" + million)] * 80),
        "frame.gif": gif(8, 8, 65_535, 65_535),
        "frames.gif": gif(8, 8, 8, 8) + b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\2\0;",
        "exif.jpg": jpeg_with_exif(struct.pack("<HHII", 0x0112, 4, 2**32 - 1, 8)),
        "exif-end.jpg": jpeg_with_exif(struct.pack("<HHII", 0x0112, 4, 4, 2**32 - 1)),
    }  # fmt: skip
    for name, data in bombs.items():
        (folder / name).write_bytes(data)
    Image.new("RGB", (20, 20)).save(folder / "good.png")
    # 2 GB of address space are more than the command needs, and far less than the bombs would.
    ended = program("run", "in", "-p", "x", *FAKE, "-o", "out", cwd=tmp_path)
    assert ended.code == 3, ended.message
    told = {name: record["error"] and record["error"]["code"] for name, record in records(tmp_path / "out").items()}
    assert len(told) == len(bombs) + 1
    assert told["good"] is None
    assert told["exif"] is told["exif-end"] is None
    # Texts are never unpacked beyond 1 MiB, so these bombs take nothing: the pictures beside them are read.
    assert {told[name] for name in ("text", "itxt", "texts", "late")} == {None}
    refused = ("tile", "values", "ratios", "frame")
    assert [name for name in refused if told[name] not in CODES] == []
    large = {"wide", "widest", "wide-2", "wide.tif", "wide.bmp", "wide.gif", "wide.ppm"}
    assert {name for name, code in told.items() if code == "picture_too_large"} <= large | set(told)
    assert told["widest"] == "picture_too_large"
    message = next(r["error"]["message"] for r in records(tmp_path / "out").values() if r["id"] == "widest")
    assert "--max-pixels" in message
    FIGURES["bombs defused"] += len(bombs)


def test_max_pixels(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (100, 100)).save(tmp_path / "in" / "a.png")
    Image.new("RGB", (101, 100)).save(tmp_path / "in" / "b.png")
    run = ("run", "in", "-p", "x", *FAKE, "-o", "out")
    ended = program(*run, "--max-pixels", "10000", cwd=tmp_path)
    assert ended.code == 3
    assert "b.png: 101 x 100 is more than 10000 pixels (--max-pixels allows more)" in ended.message
    assert records(tmp_path / "out")["a"]["status"] == "ok"
    assert program(*run, cwd=tmp_path).code == 0


def test_libtiff_prints_nothing_by_itself(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for number, compression in enumerate(("tiff_adobe_deflate", "tiff_lzw", "jpeg") * 3):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "TIFF", compression=compression)
        data = bytearray(file.getvalue())
        for place in range(300 + number, 400):
            data[place] ^= 0x5A
        (tmp_path / "in" / f"{compression}-{number}.tif").write_bytes(data)
    ended = program("run", "in", "-p", "x", *FAKE[:-1], "-o", "out", cwd=tmp_path)
    assert ended.code == 3, ended.message
    told = records(tmp_path / "out")
    assert len(told) == 9
    for name, record in told.items():
        if name.startswith("tiff_adobe_deflate"):
            assert "ZIPDecode: Decoding error" in record["error"]["message"]
    begins = ("ZIPDecode", "LZWDecode", "LZWPreDecode", "JPEG", "tempfile.tif", "TIFF")
    assert [line for line in ended.message.splitlines() if line.startswith(begins)] == []


def test_a_picture_that_the_memory_cannot_hold_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "huge.png").write_bytes(png(17_000, 10_000, (b"IDAT", zlib.compress(bytes(1000)))))
    deep = bytearray((tmp_path / "in" / "huge.png").read_bytes())
    deep[25] = 6  # with alpha: 13 bytes a pixel in all
    deep[29:33] = struct.pack(">I", zlib.crc32(deep[12:29]))
    (tmp_path / "in" / "huge.png").write_bytes(deep)
    for number in range(6):
        Image.new("RGB", (400, 300), (number, 0, 0)).save(tmp_path / "in" / f"good{number}.png")
    command = [sys.executable, "-m", "joyedit", "run", "in", "-p", "x", *FAKE, "-o", "out"]
    limited = ["sh", "-c", 'ulimit -v 2000000 && exec "$@"', "sh", *command]  # 2 GB of address space
    ended = subprocess.run(
        limited, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 3, ended.stderr
    told = records(tmp_path / "out")
    assert {name for name, record in told.items() if record["status"] == "ok"} == {f"good{n}" for n in range(6)}
    error = told["huge"]["error"]
    assert error["code"] == "picture_too_large"
    assert "bytes of memory, and" in error["message"]
