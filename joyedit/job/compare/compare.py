"""`joyedit compare`: all pairs of two folders, looked at in threads, and the figures of them as JSON."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from joyedit.errors import ItemError, OutputError, UsageError
from joyedit.job.compare.pairs import Distance, Folders, Found, Look, Pair, Results, look_at
from joyedit.job.compare.summary import Summary
from joyedit.job.own_files import RESULTS, is_own_file
from joyedit.job.results.output_folder import OutputFolder

_MOST_WORKERS = 8
_TELL_SECONDS = 10.0
_BEGIN = b'{"joyedit_compare": '
_FORM = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What was found of two folders."""

    folders: Folders
    summary: Summary
    results: Results


def compare(
    folders: Folders,
    *,
    distance: Distance | None = None,
    fail_below: float | None = None,
    shown: Look | None = None,
    told: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Compare all pairs. `distance` is measured too (LPIPS), `shown` gets the pictures, `told` hears how many are done.

    In memory are about 150 bytes an item and the pictures of a few pairs. Raises OutputError.
    """
    summary, results = Summary(), Results()
    at = time.monotonic()
    for pair, found in _looked_at(folders, distance, shown):
        summary.add(pair, found, fail_below)
        results.add((folders.a.place_of(pair.id), folders.b.place_of(pair.id)), found)
        if time.monotonic() - at >= _TELL_SECONDS:
            at = time.monotonic()
            told(len(results))
    return Comparison(folders=folders, summary=summary, results=results)


def _looked_at(folders: Folders, distance: Distance | None, shown: Look | None) -> Iterator[tuple[Pair, Found]]:
    workers = max(2, min(_MOST_WORKERS, os.cpu_count() or 2))
    waiting: deque[tuple[Pair, Future[Found]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="joyedit-compare") as pool:
        try:
            for pair in folders.pairs():
                waiting.append((pair, pool.submit(look_at, folders, pair, distance, shown)))
                if len(waiting) > 2 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def write_json(found: Comparison, file: BinaryIO) -> None:
    """One JSON object: the figures, then a line for each item, the worst first."""
    folders = found.folders
    head = {"joyedit_compare": _FORM, "a": str(folders.a.out), "b": str(folders.b.out), **found.summary.as_json()}
    file.write(json.dumps(head)[:-1].encode() + b', "items": [')
    for line, number in enumerate(found.results.worst_first()):
        one = found.results.found(number)
        told: dict[str, str | float | None] = {"id": id_of(found, number), "state": one.state}
        figures = {"psnr": one.psnr, "ssim": one.ssim, "lpips": one.lpips}
        told |= {
            name: round(value, 6) if math.isfinite(value) else None
            for name, value in figures.items()
            if value is not None
        }
        file.write((b",\n" if line else b"\n") + json.dumps(told).encode())
    file.write(b"\n]}\n")


def pair_of(found: Comparison, number: int) -> Pair:
    """The records of a pair, read again."""
    a, b = found.results.places(number)
    folders = found.folders
    return Pair(None if a is None else folders.a.at(a), None if b is None else folders.b.at(b))


def id_of(found: Comparison, number: int) -> str:
    """The id of a pair."""
    pair = pair_of(found, number)
    return "" if pair.a is None and pair.b is None else pair.id


def save_json(found: Comparison, path: Path) -> None:
    """Write the file at `path`; only one of its kind is replaced. Raises UsageError and OutputError."""
    refuse_json(path)
    folder = OutputFolder(path.parent)
    folder.prepare()
    try:
        folder.write(path.name, lambda file: write_json(found, file), may_replace=lambda: _is_own(path))
    except ItemError as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    finally:
        folder.close()


def refuse_json(path: Path) -> None:
    """Raises UsageError if another file stands here, which stays."""
    if path.is_dir():
        raise UsageError(f"--json {path}: this is a folder (give the name of a file)")
    is_of_run = is_own_file(path.name.lower()) and (path.parent / RESULTS).exists()
    if is_of_run or (os.path.lexists(path) and not _is_own(path)):
        raise UsageError(f"--json {path}: the file is there already, and is no comparison (give another name)")


def _is_own(path: Path) -> bool:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(len(_BEGIN)) in (b"", _BEGIN)
    except OSError:
        return False
