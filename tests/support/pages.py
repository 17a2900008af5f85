"""Output folders as runs leave them, made by hand, and the pages of them read back."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from PIL import Image

from joyedit.job.own_files import PAGE_FILES, REPORT, RESULTS

HOSTILE_TEXTS = (
    "</script><script>window.hurt = 1</script>",
    "<img src=x onerror='window.hurt = 1'>",
    "'); window.hurt = 1; ('",
    "\\'); window.hurt = 1; //",
    "a\nb\r\tc \u2028\u2029 \u202egnp.exe \u0000 \ud800 😀 שלום",
    "${window.hurt = 1} `x` {{title}} {{scripts}}",
    "javascript:window.hurt=1",
    "x" * 100_000,
)
HOSTILE_NAMES = (
    "a#b",
    "100%25",
    "what?",
    'it\'s "this"',
    "a&b=c",
    "ü ñ 漢字",
    "\u202egnp",
    "sub dir/a b",
    "<b>x</b>",
    "%2e%2e",
)


class MadeFolder:
    """An output folder to which items are added; `write` writes its journal."""

    def __init__(self, root: Path, name: str = "out") -> None:
        self.path = root / name
        self.inputs = root / "in"
        self.path.mkdir(parents=True)
        self.inputs.mkdir(exist_ok=True)
        self.records: list[dict[str, Any]] = []

    def add(self, name: str, *, size: tuple[int, int] = (48, 32), **more: Any) -> dict[str, Any]:
        """A finished item; `more` replaces keys of its record."""
        number = len(self.records)
        source, output = self.inputs / f"in{number}.png", f"{name}.png"
        Image.new("RGB", size, (number * 53 % 256, 120, 200)).save(source)
        (self.path / output).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (200, number * 31 % 256, 90)).save(self.path / output)
        record = {
            "id": name,
            "status": "ok",
            "instruction": f"edit {number}",
            "inputs": [str(source)],
            "output": output,
            "bucket": [size[1], size[0]],
            "settings": settings(seed=number),
            "seconds": {"read": 0.1, "denoise": 1.0 + number},
            "notes": [],
            "error": None,
            "source": {"file": str(self.inputs / "m.jsonl"), "line": number + 1},
            "fingerprint": "f" * 64,
            "output_bytes": (self.path / output).stat().st_size,
            "output_sha256": sha256(self.path / output),
            "inputs_seen": [seen(source)],
            "planned_output": None,
            "at": f"2026-01-01T00:00:{number % 60:02d}.000+00:00",
            **more,
        }
        self.records.append(record)
        return record

    def fail(self, name: str, code: str = "truncated_picture", **more: Any) -> dict[str, Any]:
        """A failed item."""
        record = self.add(name)
        (self.path / f"{name}.png").unlink()
        error = {"code": code, "message": f"{record['inputs'][0]}: it is broken"}
        record |= {
            "status": "failed", "output": None, "planned_output": f"{name}.png", "error": error,
            "output_bytes": None, "output_sha256": None, "inputs_seen": [], **more,
        }  # fmt: skip
        return record

    def write(self, report: dict[str, Any] | None = None) -> Path:
        """The journal, and the report if there is one; gives the folder."""
        lines = "".join(json.dumps(record) + "\n" for record in self.records)
        (self.path / RESULTS).write_text(lines)
        if report is not None:
            (self.path / REPORT).write_text(json.dumps(report))
        return self.path


def settings(**more: Any) -> dict[str, Any]:
    """The settings of a record."""
    return {
        "steps": 40, "guidance_scale": 4.0, "seed": 42, "negative_prompt": "", "basesize": 512, "width": None,
        "height": None, "schedule": "original", "model": "fake", "dtype": "fp32", "attention": "sdpa",
        "joyedit": "0.1.0", **more,
    }  # fmt: skip


def seen(path: Path) -> list[Any]:
    """An input as a record has it."""
    status = path.stat()
    return [sha256(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class ReadPage:
    """The data of a page, as a browser gets it."""

    def __init__(self, out: Path, files: str = PAGE_FILES, name: str = "index.html") -> None:
        self.html = (out / name).read_text()
        self.files = out / files
        names = sorted(path.name for path in self.files.glob("*.js") if not path.name.startswith("page-"))
        self.run: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.details: list[dict[str, Any]] = []
        for kind in ("run", "items", "more"):
            found = [name for name in names if name.startswith(f"{kind}-")]
            for file in sorted(found, key=lambda one: int(one.rpartition("-")[2][:-3])):
                self._take(kind, (self.files / file).read_bytes())

    def _take(self, kind: str, data: bytes) -> None:
        text = data.decode("ascii")
        match = re.fullmatch(r"joyedit\.take\('(\w+)',\d+,'((?:[^'\\\n]|\\[\\'])*)'\);\n", text)
        assert match is not None, text[:200]
        assert match[1] == kind
        value = json.loads(re.sub(r"\\([\\'])", r"\1", match[2]))
        if kind == "run":
            self.run = value
        elif kind == "items":
            self.rows += [{**row, "text": value["texts"][row["text"]]} for row in value["rows"]]
        else:
            self.details += value

    def row(self, name: str) -> dict[str, Any]:
        (row,) = (row for row in self.rows if row["id"] == name)
        return row

    def more(self, name: str) -> dict[str, Any]:
        (at,) = (at for at, row in enumerate(self.rows) if row["id"] == name)
        return self.details[at]

    def pictures(self) -> set[str]:
        return {path.name for path in (self.files / "pictures").glob("*")}
