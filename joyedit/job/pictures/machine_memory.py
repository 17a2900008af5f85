"""How much memory this process may take, or still take: of the machine, its control groups, and by its own limits."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 1 << 60
SPARE = 2_000_000_000
"""Bytes that are left to everything else on the machine where weights are put into its memory."""


def available_bytes(root: Path = Path("/")) -> int | None:
    """The least of all that limits this process; None where the system tells nothing. `root` is for tests."""
    found = [value for value in (_of_machine(root), *_of_groups(root), *_of_limits(root)) if value is not None]
    return max(0, min(found)) if found else None


def total_bytes(root: Path = Path("/")) -> int | None:
    """The memory of the machine, or of the control group that bounds this process; None where the system is silent."""
    limits = [limit for limit, _ in _groups(root)]
    machine = _of_machine(root, "MemTotal", "SC_PHYS_PAGES")
    found = limits if machine is None else [machine, *limits]
    return min(found) if found else None


def _of_machine(root: Path, name: str = "MemAvailable", pages: str = "SC_AVPHYS_PAGES") -> int | None:
    for line in _lines(root / "proc/meminfo"):
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    try:
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):  # the system does not know these names
        return None


def _of_groups(root: Path) -> Iterator[int]:
    """What is left of the limit of each control group that holds this process."""
    return (left for _, left in _groups(root))


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """The limit of each control group that holds this process, versions 1 and 2, and what is left of it."""
    paths = {}
    for line in _lines(root / "proc/self/cgroup"):
        controllers, _, path = line.partition(":")[2].partition(":")
        if not controllers or "memory" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = path
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if kind[:1] == ["cgroup"] and "memory" not in kind[-1].split(","):
            continue
        if kind and kind[0] in paths and len(fields) >= 5:
            # In a container the mount may begin at the container's own group.
            path = paths[kind[0]]
            inside = os.path.relpath(path, fields[3]) if path.startswith(fields[3]) else "."
            top = root / fields[4].lstrip("/")
            yield from _of_group_and_above(Path(os.path.normpath(top / inside)), top, kind[0])


def _of_group_and_above(group: Path, top: Path, kind: str) -> Iterator[tuple[int, int]]:
    is_new = kind == "cgroup2"
    limit_name, usage_name = (
        ("memory.max", "memory.current") if is_new else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    cache_name = "inactive_file" if is_new else "total_inactive_file"
    for folder in (group, *group.parents):
        limit, usage = _number(folder / limit_name), _number(folder / usage_name)
        if limit is not None and usage is not None and limit < _UNLIMITED:
            # The kernel drops what it only caches of files before it refuses memory.
            cached = (line.split() for line in _lines(folder / "memory.stat"))
            yield limit, limit - usage + sum(int(value) for name, value in cached if name == cache_name)
        if folder == top:
            return


def _of_limits(root: Path) -> Iterator[int]:
    """What is left of RLIMIT_AS and RLIMIT_DATA."""
    try:
        pages = [int(field) for field in (root / "proc/self/statm").read_text().split()]
    except (OSError, ValueError):
        return
    for limit, place in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY and len(pages) > place:
            yield most - pages[place] * os.sysconf("SC_PAGE_SIZE")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """The number in a file; None for "max" and where there is no such file."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
