"""`joyedit merge OUT`: the folders of shards become one output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from joyedit.cli import console
from joyedit.errors import EXIT_OK, EXIT_SOME_FAILED

Folder = Annotated[
    Path, typer.Argument(metavar="OUT", help="The folder that all shards were given with -o.", show_default=False)
]
NoPage = Annotated[bool, typer.Option("--no-page", help="Make no page (index.html); joyedit view makes it later.")]
SHOWN = 20


def merge_command(folder: Folder, no_page: NoPage = False) -> None:
    """Make one output folder of the shards that joyedit run --shard made in OUT.

    Each picture moves to its place in OUT, and its record into results.jsonl there. The same command ends a merge that
    was interrupted. A file in OUT that joyedit did not make is never replaced: its item stays in its shard. Exit codes:
    0 all items are done and in OUT, 1 a shard is still running or OUT cannot be written, 2 there are no shards, 3 items
    failed, are left, or stay in their shard.
    """
    from joyedit.job.results.merge import merge
    from joyedit.job.results.merged_report import rows
    from joyedit.job.results.objects.address import refuse_address
    from joyedit.job.results.shard_folders import ShardFolder
    from joyedit.job.shard import missing_text
    from joyedit.printable import printable

    refuse_address(folder, "merge", "nothing there is divided into shards")

    def tell(shard: ShardFolder, items: int) -> None:
        console.message(f"shard {shard.shard}: {'1 item' if items == 1 else f'{items:,} items'}")

    merged = merge(folder, tell)
    for note in merged.notes:
        console.note(note)
    if merged.older:
        what = "1 older picture" if merged.older == 1 else f"{merged.older} older pictures"
        console.note(f"{what} of items with a newer one were removed")
    for path in merged.left[:SHOWN]:
        console.note(f"{printable(path)} is not from joyedit and stays there")
    if len(merged.left) > SHOWN:
        console.note(f"so do {len(merged.left) - SHOWN} other files")
    for one in merged.staying[:SHOWN]:
        console.message(printable(f"stays in shard {one.folder.shard}: {one.id}: {one.message}"))
    if len(merged.staying) > SHOWN:
        console.message(f"so do {len(merged.staying) - SHOWN} other items")
    if merged.missing:
        told = missing_text(merged.missing, merged.shards[0].shard.of)
        console.note(f"{told} (run them, or run without --shard for all that is left)")
    if not merged.shards:
        console.message(f"{folder} is one output folder already: there is nothing to merge")
    if "shards" in merged.report:
        console.table([*rows(merged.report), *_staying(len(merged.staying)), *([] if no_page else _page(folder))])
    is_whole = not (merged.staying or merged.report.get("failed") or merged.report.get("left"))
    raise typer.Exit(EXIT_OK if is_whole else EXIT_SOME_FAILED)


def _staying(count: int) -> list[tuple[str, str]]:
    return [("stay", f"{count} in the folders of their shards")] if count else []


def _page(folder: Path) -> list[tuple[str, str]]:
    """The row of the page, which is made now. What goes wrong with it changes nothing about the merge."""
    from joyedit.errors import JoyeditError
    from joyedit.job.own_files import PAGE
    from joyedit.job.page.build import build_page, is_current
    from joyedit.printable import printable

    if is_current(folder):
        return [("page", printable(str(folder / PAGE)))]
    try:
        return [("page", printable(str(build_page(folder).path)))]
    except JoyeditError as error:
        console.note(f"no page was made: {error}")
        return []
