"""`joyedit show PICTURE`: how a picture was made."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joyedit.cli import console

if TYPE_CHECKING:
    from joyedit.job.results.made_picture import MadeFrom, MadePicture

PictureFile = Annotated[
    Path, typer.Argument(metavar="PICTURE", help="A picture that joyedit made.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON: what the picture holds, and its record.")]


def show_command(picture: PictureFile, json: Json = False) -> None:
    """Say how a picture was made: instruction, settings, model, and the pictures that it was made of.

    This stands in the picture itself, and in the results.jsonl of its output folder. joyedit run PICTURE makes it
    again.
    """
    from joyedit.job.results.made_picture import how_made

    made = how_made(picture)
    if json:
        told = {"picture": str(picture), "embedded": dict(made.embedded), "record": made.record}
        console.result(jsonlib.dumps(told, ensure_ascii=False))
        return
    console.table(_rows(made))


def _made_from(one: MadeFrom) -> str:
    from joyedit.printable import printable

    return printable(one.path or one.name) + (f" (sha256 {one.sha256[:12]}...)" if one.sha256 else "")


def _rows(made: MadePicture) -> Iterator[tuple[str, str]]:
    from joyedit.job.boxes import box_text, read_box
    from joyedit.job.results.made_picture import RUN_SETTINGS, SETTINGS
    from joyedit.job.results.records import mask_share, replaced_by
    from joyedit.printable import printable

    yield "picture", printable(str(made.path))
    yield "instruction", printable(made.instruction)
    if made.inputs is None:
        yield "made of", "unknown"
    else:
        for one in made.inputs:
            yield "made of", _made_from(one)
        if not made.inputs:
            yield "made of", "its instruction alone"
    if made.mask is not None:
        share = None if made.record is None else mask_share(made.record)
        more = "" if share is None else f", {share:.1%} of the picture may change"
        yield "mask", _made_from(made.mask) + more
    if made.box is not None:
        yield "red box", box_text(read_box(made.box) or (0, 0, 1, 1))
    for key in SETTINGS:
        if key in made.settings:
            value = made.settings[key]
            yield key.replace("_", " "), printable(repr(value) if isinstance(value, str) else str(value))
    for lora in made.loras:
        yield "LoRA", printable(f"{lora['path'] or lora['name']} (scale {lora['scale']})")
    for key in RUN_SETTINGS:
        if key in made.run:
            yield key.replace("_", " "), printable(made.run[key])
    record = made.record
    if record is not None:
        yield (
            "id",
            printable(record["id"]) + "".join(f", before {printable(name)}" for name in replaced_by(dict(record))),
        )
        yield "made at", printable(str(record.get("at")))
        yield "record in", printable(str(made.folder))
        for note in record.get("notes") or ():
            yield "note", printable(str(note))
    yield "again", printable(f"joyedit run {made.path}")
