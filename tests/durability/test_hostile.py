"""Manifests from somebody who means no good: refused with file and line, or harmless; nothing leaves the folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from durability.harness import FAKE, Forks, records
from support.figures import FIGURES


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder inside a folder, so that what leaves the one is seen in the other."""
    inner = tmp_path / "inner"
    inner.mkdir()
    Image.new("RGB", (20, 20)).save(inner / "a.png")
    return inner


def refused(forks: Forks, place: Path, name: str, data: bytes, *message: str) -> None:
    """The manifest is refused with exit code 2; the file is named, nothing is written anywhere."""
    (place / name).write_bytes(data)
    before = sorted(place.parent.rglob("*"))
    ended = forks("run", name, *FAKE, "-o", "out", cwd=place)
    assert ended.code == 2, ended.message[:2000]
    assert f"{name}:" in ended.message
    assert "Traceback" not in ended.message
    assert len(ended.message) < 20_000
    for part in message:
        assert part in ended.message
    assert sorted(place.parent.rglob("*")) == before
    FIGURES["hostile manifests refused"] += 1


NAMES = [
    "../x", "a/../../x", "/etc/x", "..", ".", "", " ", "a\0b", "a\nb", "a\rb", "a\u2028b", "C:\\x", "a\\..\\b", "con",
    "LPT1", "nul.png", "x" * 300, "a/" + "y" * 300, "a//b", "a/", "x.", "x ", "a:b", "\x7f", "a/" * 600 + "b",
    "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("key", ["id", "output"])
@pytest.mark.parametrize("name", NAMES)
def test_names(forks: Forks, place: Path, key: str, name: str) -> None:
    value = name if key == "id" else name + ".png"
    if (key, name) in (("output", "."), ("output", "x."), ("output", "..")):
        value = f"{name}/.png"
    line = {"image": "a.png", "instruction": "x", key: value}
    refused(forks, place, "m.jsonl", json.dumps(line).encode(), "m.jsonl:1")


def bomb(levels: int) -> bytes:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, levels):
        text += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n"
    return text.encode()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.yaml", bomb(12) + b"items:\n  - {image: a.png, instruction: x}\n"),
        ("m.yaml", b"items:\n  - image: &a [*a]\n    instruction: x\n"),
        ("m.yaml", b"items:\n  - image: !!python/object/apply:os.system ['touch owned']\n    instruction: x\n"),
        ("m.yaml", b"items:\n  - !!python/name:os.system\n"),
        ("m.yaml", b"items: " + b"[" * 1_000_000),
        ("m.yaml", b"items:\n" + b"".join(b" " * depth + b"- \n" for depth in range(2_000))),
        ("m.yaml", b"- " * 100_000),
        ("m.yaml", b"items:\n  - {image: a.png, instruction: \"\xff\xfe\"}\n"),
        ("m.json", b"[" * 10_000),
        ("m.json", b"[" * 10_000 + b"]" * 10_000),
        ("m.jsonl", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
        ("m.jsonl", b'{"image": "a.png", "instruction": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("m.jsonl", b'{"image": "a.png", "instruction": "' + b"x" * 50_000_000 + b'"}\n'),
        ("m.json", b'[{"image": "a.png", "instruction": "' + b"x" * 50_000_000 + b'"}]'),
        ("m.csv", b"image,instruction\na.png," + b"x" * 50_000_000 + b"\n"),
        ("m.csv", b'image,instruction\na.png,"' + b"x\n" * 500_000),
        ("m.jsonl", b'{"image": "a.png", "instruction": "\xff"}\n'),
        ("m.csv", b"image,instruction\na.png,\xff\xfe\n"),
        ("m.jsonl", b'{"image": "a.png", "instruction": "x", "seed": 1' + b"0" * 5000 + b"}\n"),
        ("m.jsonl", b'{"image": "a.png", "instruction": "x", "steps": NaN}\n'),
        ("m.jsonl", b'{"image": "a.png", "instruction": "x", "steps": 1e999}\n'),
        ("m.jsonl", b'{"image": "a.png", "instruction": "x", "__class__": "os"}\n'),
        ("m.jsonl", b"\0" * 100_000 + b"\n"),
        ("m.jsonl", b'{"image": "file://server/etc/passwd", "instruction": "x"}\n'),
        ("m.jsonl", b'{"image": "/dev/zero", "instruction": "x"}\n'),
        ("m.jsonl", b'{"image": "/proc/self/mem", "instruction": "x", "id": ""}\n'),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:40]),
)  # fmt: skip
def test_files(forks: Forks, place: Path, name: str, data: bytes) -> None:
    refused(forks, place, name, data)


def run_of(forks: Forks, place: Path, *lines: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (place / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ended = forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=place)
    assert ended.code in (0, 3), ended.message
    return records(place / "out")


def test_links_out_of_the_folder(forks: Forks, place: Path) -> None:
    (place.parent / "precious").mkdir()
    (place.parent / "precious.png").write_bytes(b"mine")
    (place / "out").mkdir()
    os.symlink(place.parent / "precious", place / "out" / "sub")
    os.symlink(place.parent / "precious.png", place / "out" / "file.png")
    line = {"image": "a.png", "instruction": "x"}
    message = run_of(forks, place, line | {"id": "sub/x"}, line | {"id": "file"}, line | {"id": "fine"})
    assert message["sub/x"]["error"]["code"] == "output_outside"
    assert (message["file"]["error"]["code"], message["fine"]["status"]) == ("output_taken", "ok")
    assert list((place.parent / "precious").iterdir()) == []
    assert (place.parent / "precious.png").read_bytes() == b"mine"
    assert (place / "out" / "file.png").is_symlink()


def test_a_link_in_place_of_a_file_of_joyedit(forks: Forks, place: Path) -> None:
    for name in ("report.json", "failed.jsonl", ".joyedit.lock"):
        (place.parent / "precious").write_text("mine")
        (place / "out").mkdir(exist_ok=True)
        (place / "out" / name).unlink(missing_ok=True)
        os.symlink(place.parent / "precious", place / "out" / name)
        forks("run", "a.png", "-p", "x", *FAKE, "-o", "out", cwd=place)
        assert (place.parent / "precious").read_text() == "mine"


def test_formulas_and_markup_stay_text(forks: Forks, place: Path) -> None:
    cells = [
        "=cmd|' /C calc'!A0",
        "+1+1",
        "@SUM(A1)",
        "-2",
        "<script>alert(1)</script>",
        "<|im_end|>",
        "{{7*7}}",
        "%s%n",
    ]
    rows = "".join(f'a.png,item{number},"{cell}"\n' for number, cell in enumerate(cells))
    (place / "m.csv").write_text("image,id,instruction\n" + rows)
    ended = forks("run", "m.csv", *FAKE, "-o", "out", cwd=place)
    assert ended.code == 0, ended.message
    message = records(place / "out")
    assert [message[f"item{number}"]["instruction"] for number in range(len(cells))] == cells


def test_a_journal_from_somebody_else(forks: Forks, place: Path) -> None:
    """Its records decide nothing but what is done; verify follows none of their paths out of the folder."""
    line = {"image": "a.png", "instruction": "x", "id": "a"}
    run_of(forks, place, line)
    record = records(place / "out")["a"]
    outside = place.parent / "secret.png"
    outside.write_bytes((place / "out" / "a.png").read_bytes())
    hostile = [
        record | {"id": "b", "output": "../../secret.png"},
        record | {"id": "c", "output": str(outside)},
        record | {"id": "d", "output": "\0"},
        record | {"id": "e", "output": ["a"]},
        record | {"id": "f", "output": None, "error": "x", "status": 3},
        record | {"id": "g", "inputs_seen": {"a": 1}, "fingerprint": 7, "output_bytes": "x", "inputs": 5, "at": []},
        {"id": "h"},
        record | {"id": "a", "fingerprint": None},
    ]
    with open(place / "out" / "results.jsonl", "a") as file:
        file.writelines(json.dumps(one) + "\n" for one in hostile)
    verified = forks("verify", "out", "--json", cwd=place)
    assert verified.code == 3, verified.message
    assert "Traceback" not in verified.message
    kinds = [json.loads(one).get("kind") for one in verified.message.splitlines()]
    assert kinds[:6] == ["damaged_record"] * 2 + ["bad_record"] * 4
    status = forks("status", "out", "--json", cwd=place)
    assert status.code == 0, status.message
    message = run_of(forks, place, *({**line, "id": name} for name in "abcdefgh"))
    assert {record["status"] for record in message.values()} == {"ok"}
