"""The data of a page as script files: what a browser takes from a disk, where it may fetch nothing else.

Each file is one call of `joyedit.take` with JSON in ASCII, so no text in it can end a string or a script. Items are cut
into files of a few hundred, so neither the builder nor the browser holds all details at once.
"""

from __future__ import annotations

import json
from typing import Any

from joyedit.job.results.output_folder import OutputFolder

MOST_ITEMS = 500
MOST_BYTES = 2 << 20
"""A file of details ends after so many items, or behind the item that reaches so many bytes."""


class DataFiles:
    """Writes the data of one page into `folder`. `mark` is in all names: an older page keeps its own files."""

    def __init__(self, folder: OutputFolder, files: str, mark: str) -> None:
        self.names: list[str] = []
        """All files that were written, below the folder of the page."""
        self.counts: list[int] = []
        """How many items each file has."""
        self._folder = folder
        self._files = files
        self._mark = mark
        self._texts: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._details: list[str] = []
        self._bytes = 0

    def add(self, row: dict[str, Any], text: str, details: dict[str, Any]) -> None:
        """One more item. Its text is kept once for all items of a file that have it."""
        row["text"] = self._texts.setdefault(text, len(self._texts))
        self._rows.append(row)
        self._details.append(_json(details))
        self._bytes += len(self._details[-1])
        if len(self._rows) >= MOST_ITEMS or self._bytes >= MOST_BYTES:
            self.end_file()

    def end_file(self) -> None:
        """Write what has come since the last file."""
        if not self._rows:
            return
        number = len(self.counts)
        self._write("items", number, _json({"texts": list(self._texts), "rows": self._rows}))
        self._write("more", number, f"[{','.join(self._details)}]")
        self.counts.append(len(self._rows))
        self._texts, self._rows, self._details, self._bytes = {}, [], [], 0

    def run(self, figures: dict[str, Any]) -> str:
        """Write what is true of the whole run; gives the file's name. Comes last."""
        return self._write("run", 0, _json(figures))

    def _write(self, kind: str, number: int, text: str) -> str:
        name = f"{kind}-{self._mark}-{number}.js"
        quoted = text.replace("\\", "\\\\").replace("'", "\\'")
        data = f"joyedit.take('{kind}',{number},'{quoted}');\n".encode("ascii")
        self._folder.write_bytes(f"{self._files}/{name}", data)
        self.names.append(name)
        return name


def _json(value: Any) -> str:
    """JSON of ASCII characters alone; `<` too is an escape, so that no text looks like a tag."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
