"""`joyedit view OUT`: the page that shows a run, and a contact sheet of it, without a model."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from joyedit.cli import console

Folder = Annotated[Path, typer.Argument(metavar="OUT", help="An output folder of joyedit run.", show_default=False)]
Page = Annotated[
    str, typer.Option("--page", metavar="NAME", help="The name of the page in OUT, where another file has that one.")
]
Sheet = Annotated[
    Path | None,
    typer.Option("--sheet", metavar="FILE", help="Write a contact sheet (PNG) and no page.", show_default=False),
]
Only = Annotated[Literal["all", "done", "failed"], typer.Option("--only", help="The items on the contact sheet.")]
NoOpen = Annotated[bool, typer.Option("--no-open", help="Do not open the page in a browser.")]


def view_command(
    folder: Folder, page: Page = "index.html", sheet: Sheet = None, only: Only = "all", no_open: NoOpen = False
) -> None:
    """Make a page of an output folder: before and after of every item, figures, filters. Prints its path.

    The page needs no server and no network. It is made anew each time; small pictures that are there stay. Works while
    a run goes on, too. On a desktop the browser opens. Exit codes: 0 the page is made, 1 it cannot be written, 2 the
    folder is not an output folder of joyedit.
    """
    from joyedit.errors import UsageError
    from joyedit.job.results.objects.address import refuse_address

    refuse_address(folder, "view", "copy it to a folder with the store's own tool, and give that")
    if sheet is not None:
        _write_sheet(folder, sheet, only)
        return
    if only != "all":
        raise UsageError("--only is for the contact sheet: give --sheet FILE too (the page has its own filters)")
    from joyedit.job.page.build import Building, build_page
    from joyedit.job.page.place import PagePlace
    from joyedit.printable import printable

    place = PagePlace.named(page)
    built = build_page(folder, Building(place=place, told=lambda done: console.message(f"{done} items so far")))
    if built.error is not None:
        console.note(f"the page lacks {built.left} small pictures: {built.error}")
    console.result(printable(str(built.path)))
    if not no_open:
        _open(built.path)


def _write_sheet(folder: Path, path: Path, only: Literal["all", "done", "failed"]) -> None:
    from joyedit.job.page.sheet import write_sheet
    from joyedit.printable import printable

    shown, items = write_sheet(folder, path, only)
    if shown < items:
        console.note(f"the sheet shows the first {shown} of {items} items")
    console.result(printable(str(path)))


def _open(path: Path) -> None:
    """Show the page where somebody sits at a desktop; whatever comes of that."""
    if not _is_desktop():
        return
    import webbrowser
    from contextlib import suppress

    with suppress(Exception):
        webbrowser.open(path.absolute().as_uri())


def _is_desktop() -> bool:
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stdout.isatty() and (sys.platform == "darwin" or bool(has_display))
