"""`joyedit compare A B`: how far the pictures of two output folders differ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joyedit.cli import console
from joyedit.errors import EXIT_OK, EXIT_SOME_FAILED

if TYPE_CHECKING:
    from joyedit.job.compare.compare import Comparison
    from joyedit.job.compare.pairs import Distance
    from joyedit.job.compare.summary import Spread, Summary

A = Annotated[Path, typer.Argument(metavar="A", help="An output folder of joyedit run.", show_default=False)]
B = Annotated[Path, typer.Argument(metavar="B", help="Another one, with the same ids.", show_default=False)]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write all figures, also of each item; - is standard output."),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--page",
        metavar="FILE|FOLDER",
        help="Make an HTML page with input, A, B and difference of every item, the worst first.",
        show_default=False,
    ),
]
FailBelow = Annotated[
    float | None,
    typer.Option(
        "--fail-below", metavar="PSNR", help="End with exit code 3 if an item is below this (dB), or not comparable."
    ),
]
Lpips = Annotated[bool, typer.Option("--lpips", help="Measure LPIPS too (needs joyedit[lpips] and its weights).")]
_WORST = 5
_NAMES = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}


def compare_command(
    a: A, b: B, json: Json = None, page: Page = None, fail_below: FailBelow = None, lpips: Lpips = False
) -> None:
    """Compare the pictures of A and B, item by item: PSNR, SSIM, what is identical, and which settings differ.

    joyedit compare exact fast

    joyedit compare exact fast --page compare.html --fail-below 40

    Figures are of 8-bit pixels, in sRGB, with transparency where a picture has it. Pictures of different sizes are
    counted and not measured. Exit codes: 0 compared, also where pictures differ, 1 a file cannot be written, 2 A or B
    is no output folder of joyedit, or a file stays, 3 with --fail-below: an item is below it or not comparable.
    """
    from joyedit.errors import UsageError
    from joyedit.job.compare.compare import compare, refuse_json, save_json
    from joyedit.job.compare.page import open_page, refuse_page
    from joyedit.job.compare.pairs import Folders
    from joyedit.job.results.objects.address import refuse_address
    from joyedit.printable import printable

    for one in (a, b):
        refuse_address(one, "compare", "copy it to a folder with the store's own tool, and give that")
    if fail_below is not None and not (math.isfinite(fail_below) and fail_below > 0):
        raise UsageError(f"--fail-below must be a number of dB above 0, not {fail_below}")
    if json not in (None, "-"):
        refuse_json(Path(json).expanduser())
    if page is not None:
        refuse_page(page.expanduser())
    folders = Folders(a, b)
    distance = _lpips() if lpips else None

    def told(done: int) -> None:
        console.message(f"{done:,} items so far", "progress", done=done)

    if page is None:
        found = compare(folders, distance=distance, fail_below=fail_below, told=told)
        path = None
    else:
        with open_page(page.expanduser(), folders) as made:
            shown = made.pictures.look
            found = compare(folders, distance=distance, fail_below=fail_below, shown=shown, told=told)
            path = made.build(found)
        if made.pictures.error is not None:
            console.note(f"the page lacks pictures: {made.pictures.error}")
    if json == "-":
        _print_json(found)
    else:
        _table(found, path)
    if json not in (None, "-"):
        save_json(found, Path(json).expanduser())
        console.result(printable(json))
    if found.summary.below:
        count = found.summary.below
        what = "1 item is" if count == 1 else f"{count:,} items are"
        console.message(f"{what} below {fail_below:g} dB, or not comparable")
    raise typer.Exit(EXIT_SOME_FAILED if found.summary.below else EXIT_OK)


def _lpips() -> Distance | None:
    from joyedit.runtime.perceptual import lpips_distance

    distance, why = lpips_distance()
    if distance is None:
        console.note(why)
    return distance


def _print_json(found: Comparison) -> None:
    from io import BytesIO

    from joyedit.job.compare.compare import write_json

    class Lines(BytesIO):
        def write(self, data: object) -> int:
            text = bytes(data).decode()  # type: ignore[call-overload]
            console.result(text.removeprefix("\n").removesuffix("\n"))
            return len(text)

    write_json(found, Lines())


def _table(found: Comparison, page: Path | None) -> None:
    from joyedit.printable import printable

    summary, folders = found.summary, found.folders
    states = summary.states
    rows = [
        ("A", f"{printable(str(folders.a.out))} ({len(folders.a):,} items)"),
        ("B", f"{printable(str(folders.b.out))} ({len(folders.b):,} items)"),
        ("in both", f"{summary.both:,}"),
        ("identical", f"{states['identical']:,}"),
        ("different", f"{states['different']:,}"),
    ]
    for label, state, more in (
        ("other size", "other_size", " (not measured)"),
        ("not readable", "unreadable", ""),
        ("failed in A", "failed_a", ""),
        ("failed in B", "failed_b", ""),
        ("failed in both", "failed_both", ""),
        ("only in A", "only_a", ""),
        ("only in B", "only_b", ""),
    ):
        if states[state]:
            rows.append((label, f"{states[state]:,}{more}"))
    rows += [(_NAMES[name], _spread(name, spread)) for name, spread in summary.all.spreads().items()]
    rows += [(f"{name.replace('_', ' ')}", printable(summary.setting_text(name))) for name in summary.settings]
    rows += _groups(summary)
    rows += _worst(found)
    if page is not None:
        rows.append(("page", printable(str(page))))
    console.table(rows)


def _groups(summary: Summary) -> list[tuple[str, str]]:
    """Figures by the settings that differ, where that is not the same for all items."""
    if len(summary.groups) < 2:
        return []
    rows = []
    for names, group in summary.groups.items():
        what = ", ".join(name.replace("_", " ") for name in names) or "no setting"
        told = [f"{_NAMES[name]} {_spread(name, spread)}" for name, spread in group.spreads().items() if name != "ssim"]
        count = "1 item" if group.items == 1 else f"{group.items:,} items"
        rows.append((f"differ in {what}", f"{count}: {'; '.join(told)}"))
    return rows


def _worst(found: Comparison) -> list[tuple[str, str]]:
    from joyedit.job.compare.compare import id_of
    from joyedit.printable import brief

    rows: list[tuple[str, str]] = []
    for number in found.results.worst_first()[:_WORST]:
        one = found.results.found(number)
        if one.state == "different" and one.psnr is not None:
            label = "" if rows else "worst"
            rows.append((label, f"{one.psnr:.1f} dB  {brief(id_of(found, number), 80)}"))
    return rows


def _spread(name: str, spread: Spread) -> str:
    median, low = (_figure(name, value) for value in (spread.median, spread.worst_twentieth))
    return f"median {median}, worst 5% {low}"


def _figure(name: str, value: float) -> str:
    if math.isinf(value):
        return "identical"
    return f"{value:.1f} dB" if name == "psnr" else f"{value:.4f}"
