"""What a page says of the whole run: counts from the records, and the figures of report.json in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from joyedit.job.page import loose
from joyedit.job.page.private import Private
from joyedit.job.results.report import seconds_text
from joyedit.printable import brief

_STAGES = ("load", "read", "encode", "denoise", "decode", "write")


def figures_of(report: Mapping[str, Any], left: int | None, private: Private) -> dict[str, Any]:
    """left, rows (label and text), stages (name and seconds) and waits of the last run. Knows nothing without report.

    A report of another version may have other keys, and a foreign one anything: what is not as expected is left out.
    """
    stages = _seconds(report.get("stages"))
    order = {name: place for place, name in enumerate(_STAGES)}
    return {
        "left": left,
        "error": private.text(_text(report.get("error"), 2000)),
        "started": _text(report.get("started"), 40),
        "ended": _text(report.get("ended"), 40),
        "seconds": loose.number(report.get("seconds")),
        "stages": sorted(([name, value] for name, value in stages.items()), key=lambda one: order.get(str(one[0]), 99)),
        "waited": [[name, value] for name, value in _seconds(report.get("waited")).items()],
        "rows": [[label, text] for label, text in _rows(report) if text],
        "notes": [private.text(_text(note, 500)) for note in loose.entries(report.get("notes"))[:20]],
    }


def _rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    rate = loose.number(report.get("images_per_second"))
    steady = loose.table(report.get("steady"))
    warm_up = loose.table(report.get("warm_up"))
    idle = loose.number(loose.table(report.get("device_idle")).get("share"))
    peak = loose.table(report.get("peak_memory"))
    settings = loose.table(report.get("settings"))
    median = loose.number(loose.table(steady.get("seconds_an_image")).get("median"))
    seconds = loose.number(report.get("seconds"))
    first = loose.number(warm_up.get("seconds"))
    memory = [f"{where} {_bytes(count)}" for where in ("device", "host") if (count := loose.number(peak.get(where)))]
    given = [f"{key} {value}" for key, value in settings.items() if value not in (None, "")]
    return [
        ("source", _text(report.get("source"), 200).rpartition("/")[2] or _text(report.get("source"), 200)),
        ("model", _text(report.get("model"), 200).rstrip("/").rpartition("/")[2]),
        ("device", ", ".join(_text(report.get(key), 100) for key in ("device", "dtype") if report.get(key))),
        ("attention", _text(report.get("attention"), 60)),
        ("weights", _text(report.get("placement"), 200)),
        ("schedule", _text(report.get("schedule"), 60)),
        ("settings", brief(", ".join(given), 300)),
        ("batches", _count(report.get("batches"))),
        ("total", seconds_text(seconds) if seconds is not None else ""),
        ("images a second", f"{rate:.3g}" if rate else ""),
        ("an image", f"{seconds_text(median)} (median)" if median is not None else ""),
        ("first batch", seconds_text(first) if first is not None else ""),
        ("device idle", f"{idle:.1%}" if idle is not None else ""),
        ("peak memory", ", ".join(memory)),
        ("done before", _count(report.get("skipped")) if report.get("skipped") else ""),
        ("missing", _count(report.get("missing")) if report.get("missing") else ""),
        ("passed over", _count(report.get("passed_over")) if report.get("passed_over") else ""),
        ("joyedit", _text(loose.table(report.get("versions")).get("joyedit"), 40)),
    ]


def counts_of(codes: Counter[str], done: int) -> dict[str, Any]:
    """How many items are done, and how many failed, by code."""
    return {
        "done": done,
        "failed": codes.total(),
        "codes": [[brief(code, 60), n] for code, n in codes.most_common(100)],
    }


def _seconds(table: object) -> dict[str, float]:
    found = {brief(str(name), 40): loose.number(value) for name, value in list(loose.table(table).items())[:20]}
    return {name: round(value, 4) for name, value in found.items() if value is not None and value >= 0}


def _bytes(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _text(value: object, limit: int) -> str:
    return brief(value, limit) if isinstance(value, str) else ""
