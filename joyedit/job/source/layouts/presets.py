"""Published datasets: which of their columns joyedit reads as which key, and by which columns they are known."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

IMAGE = ("image", "images", "input_image", "source_image", "source_img", "src_img", "original_image", "source", "input")
INSTRUCTION = ("instruction", "edit_prompt", "edit_instruction", "prompt", "edit")
CAPTIONS = ("txt", "text", "caption")
"""Texts that are instructions only where nothing else gives one: most datasets of pictures have captions."""
PLAIN = ("seed", "steps", "guidance_scale", "negative_prompt")
"""Settings that are read from columns of these names. Others (width, size, output) mean something else in datasets."""
PLACE = "__place__"
"""Stands for the place of a row in `--map id=__place__`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """`keys` gives the column of each key; `id` the columns that make the id, with `/` between them.

    A dataset that has all of `known_by` is this one. `turn` is the column, last of `id`, that counts the turns of one
    picture from 1. `note` is for the user.
    """

    name: str
    keys: Mapping[str, str] = field(default_factory=dict)
    id: tuple[str, ...] = ()
    known_by: tuple[str, ...] = ()
    turn: str | None = None
    note: str = ""


GENERIC = Preset(name="")

PRESETS = (
    Preset(
        name="gedit-bench",
        keys={"image": "input_image", "instruction": "instruction"},
        id=("task_type", "instruction_language", "key"),
        known_by=("task_type", "key", "instruction", "instruction_language", "input_image"),
    ),
    Preset(
        name="magicbrush",
        keys={"image": "source_img", "instruction": "instruction"},
        id=("img_id", "turn_index"),
        known_by=("img_id", "turn_index", "source_img", "instruction"),
        turn="turn_index",
        note="from turn 2 on, the source picture is the one that the dataset holds (--chain-turns edits results)",
    ),
    Preset(
        name="omniedit",
        keys={"image": "src_img", "instruction": "edited_prompt_list"},
        id=("omni_edit_id",),
        known_by=("omni_edit_id", "src_img", "edited_prompt_list"),
        note="the first prompt of edited_prompt_list is the instruction",
    ),
    Preset(
        name="hq-edit",
        keys={"image": "input_image", "instruction": "edit"},
        known_by=("input_image", "edit", "inverse_edit", "output_image"),
    ),
    Preset(
        name="instructpix2pix",
        keys={"image": "original_image", "instruction": "edit_prompt"},
        known_by=("original_image", "edit_prompt", "edited_image"),
    ),
    Preset(
        name="instructpix2pix",
        keys={"image": "input_image", "instruction": "edit_prompt"},
        known_by=("input_image", "edit_prompt", "edited_image"),
    ),
)


def preset_of(columns: Collection[str]) -> Preset:
    """The published dataset that has these columns, or the preset of any other."""
    return next((one for one in PRESETS if set(one.known_by) <= set(columns)), GENERIC)


def presets_named(name: str) -> list[Preset]:
    """The presets of a layout; none for a layout that is a file format."""
    return [one for one in PRESETS if one.name == name]
