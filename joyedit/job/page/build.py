"""Builds the page of an output folder: streams its records, writes data, scripts and small pictures, the HTML last.

In memory are about 300 bytes an item: where its last record stands, the sweep that it is in, the names of its small
pictures. What the page needs is in place before its HTML file is; so a kill at any instant leaves an older page whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import os
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib.resources import files as resources
from itertools import islice
from pathlib import Path
from typing import Any

from joyedit.errors import ItemError, OutputError
from joyedit.job.clock import utc_now
from joyedit.job.own_files import RESULTS, is_page_folder, is_temporary
from joyedit.job.page.data_files import DataFiles
from joyedit.job.page.entries import details_of, group_key, link_to, row_of, text_of
from joyedit.job.page.figures import counts_of, figures_of
from joyedit.job.page.in_lines import pictures_in_lines
from joyedit.job.page.pictures import VIEW, Look, Pictures
from joyedit.job.page.place import PAGE_BEGIN, PagePlace, is_own_page
from joyedit.job.page.private import Private
from joyedit.job.results.lock import holder
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import error_code, final_records, read_journal
from joyedit.job.results.status import state_of
from joyedit.job.results.verify import expected_items, read_report, require_journal
from joyedit.printable import brief

_GROUP, _AHEAD = 8, 16
"""Records that a thread looks at in one go, and groups of them that are looked at ahead."""
_AT_ONCE = 10
"""So many files of items come with the HTML file; a script loads the others when the page is there."""
_TELL_SECONDS = 10.0
_SCRIPTS = ("data", "choice", "marks", "sweeps", "grid", "compare", "details", "viewer", "figures", "filters", "main")
_STYLES = ("page.css", "viewer.css")
_HTML = "page.html"
_HEAD = 4096
_OWN = re.compile(r"(?:items|more|run)-[0-9a-f]{12}-\d+\.js|page-[0-9a-f]{12}\.(?:js|css)|[tsv]-[0-9a-f]{24}\.jpg")


class StoppedPage(Exception):  # noqa: N818 - no error: nobody waits for the page any more
    """The building was stopped; the page is as it was before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltPage:
    """A page that was built: the HTML file, how many items it shows, and how many small pictures were made now.

    `left` counts small pictures that are still to be made, `error` is what stopped the making of them.
    """

    path: Path
    items: int
    made: int
    left: int
    error: OutputError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Building:
    """How a page is to be built.

    `hurry` says whether the time for small pictures is over: the page then comes without those that are missing.
    `stopped` says whether nobody waits for the page any more. `told` hears from time to time how many items are done.
    """

    place: PagePlace = field(default_factory=PagePlace)
    hurry: Callable[[], bool] = lambda: False
    stopped: Callable[[], bool] = lambda: False
    told: Callable[[int], None] = lambda done: None
    workers: int | None = None


def build_page(out: Path, building: Building | None = None) -> BuiltPage:
    """Build the page of the output folder `out`, or build it anew. Needs no lock: a run may be going on there.

    Raises `UsageError` if it is no output folder or if files of somebody else stand in the page's place, `OutputError`
    if they cannot be written, `StoppedPage`.
    """
    building = building or Building()
    require_journal(out)
    building.place.refuse_strangers(out)
    folder = OutputFolder(out)
    folder.prepare()
    try:
        with building.place.locked(folder):
            return _Builder(folder, building).build()
    except ItemError as error:  # a link, or a name that is no folder, in the place of a part
        raise OutputError(f"cannot make the page: {error}") from error
    finally:
        folder.close()


def is_current(out: Path, place: PagePlace | None = None) -> bool:
    """Whether the page of `out` is whole and shows the records as they are, so that nothing is to be built."""
    place = place or PagePlace()
    path = out / place.name
    if not is_own_page(path) or not is_page_folder(out / place.files):
        return False
    try:
        head = path.read_bytes()[:_HEAD]
        return b'content="%s"' % _state_of(out).encode() in head
    except OSError:
        return False


def _state_of(out: Path) -> str:
    """What a page depends on besides the pictures: the records, and the scripts. Raises OSError."""
    status = os.stat(out / RESULTS)
    parts = hashlib.sha256(b"".join(map(_part, (*_script_names(), *_STYLES, _HTML)))).hexdigest()[:12]
    return f"{status.st_size}-{status.st_mtime_ns}-{parts}"


class _Builder:
    def __init__(self, folder: OutputFolder, building: Building) -> None:
        self._folder = folder
        self._building = building
        self._place = building.place
        self._out = os.path.abspath(folder.path)
        self._private = Private(self._out)
        self._state = _state_of(folder.path)  # before the records are read: more of them make it an older one
        self._mark = secrets.token_hex(6)
        self._data = DataFiles(folder, self._place.files, self._mark)
        self._groups: dict[bytes, int] = {}
        self._pictures_kept: set[bytes] = set()
        self._codes: Counter[str] = Counter()
        self._done = 0
        self._left = 0

    def build(self) -> BuiltPage:
        page = {kind: self._write_parts(kind) for kind in ("css", "js")}
        pictures = Pictures(
            self._folder,
            self._place.files,
            link_to,
            hurry=self._building.hurry,
            stopped=self._building.stopped,
            workers=self._building.workers,
        )
        report = read_report(self._folder.path)
        try:
            in_lines = pictures_in_lines(
                self._folder.path,
                report,
                has_copy=lambda sha256: pictures.has(pictures.name_of(sha256, VIEW)),
                stopped=self._no_more_pictures,
            )
            pictures.give(in_lines)
            for record, look in self._looks(pictures):
                self._add(record, look)
        finally:
            pictures.close()
        self._check()
        self._data.end_file()
        run = self._data.run(self._figures(report))
        self._write_html(run, page, "" if self._left or pictures.error else self._state)
        self._prune({*page.values(), *self._data.names})
        items = sum(self._data.counts)
        path = self._folder.path / self._place.name
        return BuiltPage(path=path, items=items, made=pictures.made, left=self._left, error=pictures.error)

    def _no_more_pictures(self) -> bool:
        return self._building.hurry() or self._building.stopped()

    def _check(self) -> None:
        if self._building.stopped():
            raise StoppedPage

    def _looks(self, pictures: Pictures) -> Iterator[tuple[dict[str, Any], Look]]:
        """Each final record with what can be shown of it, in the order of the file; some are looked at ahead."""
        waiting: deque[tuple[list[dict[str, Any]], Future[list[Look]]]] = deque()
        told = time.monotonic()
        done = 0
        records = final_records(self._folder.path / RESULTS)
        while (group := list(islice(records, _GROUP))) or waiting:
            self._check()
            if group:
                waiting.append((group, pictures.look(group)))
            if not group or len(waiting) >= _AHEAD:
                first, found = waiting.popleft()
                yield from zip(first, pictures.result(found, len(first)), strict=True)
                done += len(first)
            if time.monotonic() - told >= _TELL_SECONDS:
                told = time.monotonic()
                self._building.told(done)

    def _add(self, record: dict[str, Any], look: Look) -> None:
        code = error_code(record)
        if code is None:
            self._done += 1
        else:
            self._codes[code] += 1
        self._left += look.left
        for name in (look.after, look.view, look.before, *(one.view for one in look.inputs)):
            if name:
                self._pictures_kept.add(_key_in(name))
        group = self._groups.setdefault(group_key(record), len(self._groups) + 1)
        row = row_of(record, look, group, self._private)
        self._data.add(row, text_of(record), details_of(record, look, self._out, self._private))

    def _figures(self, report: dict[str, Any]) -> dict[str, Any]:
        expected = expected_items(report)
        known = self._done + self._codes.total()
        return {
            "title": brief(os.path.basename(self._out) or "/", 200),
            "built": utc_now(),
            "key": _key_of(self._folder.path / RESULTS),
            "files": link_to(self._place.files),
            "mark": self._mark,
            "counts": self._data.counts,
            "left_pictures": self._left,
            "state": state_of(report, holder(self._folder.path)),
            **counts_of(self._codes, self._done),
            **figures_of(report, None if expected is None else max(0, expected - known), self._private),
        }

    def _write_parts(self, kind: str) -> str:
        """The script or the style of the page, under a name of its content; gives the name."""
        names = _script_names() if kind == "js" else _STYLES
        data = b"\n".join(_part(name) for name in names)
        name = f"page-{hashlib.sha256(data).hexdigest()[:12]}.{kind}"
        self._folder.write_bytes(f"{self._place.files}/{name}", data)
        return name

    def _write_html(self, run: str, page: Mapping[str, str], state: str) -> None:
        files = link_to(self._place.files)
        first = [name for name in self._data.names if name.startswith("items-")][:_AT_ONCE]
        scripts = [page["js"], run, *first]
        tags = "\n".join(f'<script src="{files}/{name}" defer></script>' for name in scripts)
        values = {
            "{{title}}": html.escape(brief(os.path.basename(self._out) or "/", 200)),
            "{{state}}": state,
            "{{style}}": f"{files}/{page['css']}",
            "{{scripts}}": tags,
        }
        text = _part(_HTML).decode()
        pattern = re.compile("|".join(map(re.escape, values)))
        text = pattern.sub(lambda found: values[found[0]], text)
        data = PAGE_BEGIN + text.encode("utf-8", "backslashreplace")
        path = self._folder.path / self._place.name
        self._folder.write_bytes(self._place.name, data, may_replace=lambda: is_own_page(path))

    def _prune(self, kept: set[str]) -> None:
        """Remove what older pages and killed builders left in the folder. Files of other names stay."""
        root = os.path.join(self._out, self._place.files)
        with contextlib.suppress(OSError):
            for name in os.listdir(root):
                if is_temporary(name) or (_OWN.fullmatch(name) and name not in kept):
                    self._folder.remove(f"{self._place.files}/{name}")
        with contextlib.suppress(OSError):
            for name in os.listdir(os.path.join(root, "pictures")):
                if is_temporary(name) or (_OWN.fullmatch(name) and _key_in(name) not in self._pictures_kept):
                    self._folder.remove(f"{self._place.files}/pictures/{name}")


def _key_in(name: str) -> bytes:
    """The picture that a copy is of: 12 bytes, the same for all its sizes."""
    return bytes.fromhex(os.path.basename(name)[2:26])


def _script_names() -> list[str]:
    return [f"{part}.js" for part in _SCRIPTS]


def _part(name: str) -> bytes:
    return (resources("joyedit.job.page") / "parts" / name).read_bytes()


def _key_of(journal: Path) -> str:
    """A name of the run that stays when it goes on: by its first record. Marks of a reader are kept under it."""
    first = next(iter(read_journal(journal)), {})
    text = f"{first.get('id')}\0{first.get('at')}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
