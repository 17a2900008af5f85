"""A picture of joyedit as SOURCE, made again: the item that it was, with what the user changes about it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from joyedit.errors import UsageError
from joyedit.job.containers.pictures import contained_at
from joyedit.job.hashing import HashCache
from joyedit.job.results.made_picture import MadeFrom, MadePicture, is_whole
from joyedit.job.source.matrix import slug
from joyedit.job.source.picture_sources import PictureSource
from joyedit.job.source.problems import Record, nearest, shown
from joyedit.job.source.schema import SETTINGS_KEYS, Line, Schema, from_cell
from joyedit.job.source.source import SourceSummary
from joyedit.job.source.source_options import SourceOptions
from joyedit.job.spec import Settings
from joyedit.printable import printable

CHANGEABLE = ("instruction", *SETTINGS_KEYS, "box")
"""What `--set` may change about a picture."""
AGAIN = "_again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """A picture that is to be made again. `line` is its item as a line of a manifest; `notes` are for the user."""

    made: MadePicture
    line: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The id of the item."""
        return str(self.line["id"])


def replay_of(
    made: MadePicture,
    *,
    flags: Settings,
    changes: Mapping[str, str],
    inputs: Sequence[str],
    own_loras: bool,
    own_mask: bool = False,
) -> Replay:
    """The item that this picture was. `flags` and `changes` take the place of what it was made with; so do the LoRAs
    of the command line where there are some (`own_loras`), and its mask (`own_mask`). `inputs` are the pictures that
    the user names.

    Raises UsageError with every fault, also for an input that is not there any more, or has another content.
    """
    faults: list[str] = []
    line: dict[str, Any] = {"instruction": made.instruction, **made.settings}
    if made.box is not None:
        line["box"] = made.box
    changed = _changes(changes, flags, faults)
    line |= changed
    if not is_whole(made) and "instruction" not in changed:
        faults.append(
            f"{_name(made)}: its metadata holds only the beginning of a long text (run it in its output folder, whose "
            "results.jsonl holds all of it, or give the text with --set instruction=...)"
        )
    if not own_loras and made.loras:
        line["lora"] = [{"file": one["path"], "scale": one["scale"]} for one in made.loras]
        faults += [
            f"{_name(made)} was made with the LoRA {shown(one['name'])} (name its file: --lora FILE:{one['scale']})"
            for one in made.loras
            if not isinstance(one["path"], str) or not os.path.exists(one["path"])
        ]
    paths, notes = _found(made, inputs, faults)
    if made.mask is not None and not own_mask:
        line["mask"] = _place_of(made.mask, made, faults, flag="--mask")
    if faults:
        raise UsageError("\n".join(faults))
    if paths:
        line |= {"image": paths[0]} if len(paths) == 1 else {"images": paths}
    values = ((key, value if isinstance(value, (int, float)) else str(value)) for key, value in changed.items())
    suffix = "".join(f"_{key}-{slug(value)}" for key, value in values)
    line["id"] = made.path.stem + (suffix or AGAIN)
    return Replay(made=made, line=line, notes=tuple(notes))


def _changes(changes: Mapping[str, str], flags: Settings, faults: list[str]) -> dict[str, Any]:
    """What is changed, as checked values. A flag for a setting is the same as `--set` with its key."""
    given: dict[str, Any] = {}
    for key, text in changes.items():
        if key not in CHANGEABLE:
            faults.append(f"--set cannot change {shown(key)} of a picture ({nearest(key, CHANGEABLE)})")
        elif getattr(flags, key, None) is not None:
            faults.append(f"--set {key} and --{key.replace('_', '-')} are the same (leave one of them out)")
        else:
            given[key] = text if text == "" else from_cell(key, text)
    _, _, problems = Schema(CHANGEABLE).read(Line, given)
    faults += [f"--set {problem.text}" for problem in problems]
    given |= {key: value for key in SETTINGS_KEYS if (value := getattr(flags, key)) is not None}
    return {key: given[key] for key in CHANGEABLE if key in given}


def _found(made: MadePicture, given: Sequence[str], faults: list[str]) -> tuple[list[str], list[str]]:
    """The inputs as absolute paths, and notes about them."""
    if made.inputs is None:
        if not given:
            faults.append(f"{_name(made)} does not say which picture it was made of (name it with --input FILE)")
        return [os.path.abspath(path) for path in given], []
    if given and len(given) != len(made.inputs):
        needs = ", ".join(shown(one.name) for one in made.inputs) or "none: its instruction alone made it"
        faults.append(
            f"--input is given {len(given)} times, and {_name(made)} was made of {len(made.inputs)} ({needs})"
        )
        return [], []
    hashes = HashCache()
    paths, notes = [], []
    for place, one in enumerate(made.inputs):
        if given:
            paths.append(os.path.abspath(given[place]))
            if one.sha256 is not None and _sha256(given[place], hashes) not in (one.sha256, None):
                notes.append(f"{given[place]} is not the picture that {_name(made)} was made of, so the result differs")
            continue
        found = _place_of(one, made, faults, flag="--input")
        paths += [] if found is None else [found]
    return paths, notes


def _place_of(one: MadeFrom, made: MadePicture, faults: list[str], *, flag: str) -> str | None:
    """Where an input lies now; None, and a fault that names the flag for it, if it is not there as it was."""
    candidates, hashes = _candidates(one, made), HashCache()
    fitting = [path for path in candidates if one.sha256 is None or _sha256(path, hashes) == one.sha256]
    if fitting:
        return fitting[0]
    if candidates:
        path = printable(candidates[0])
        faults.append(
            f"{path} has changed since {_name(made)} was made of it (name the picture as it was with {flag} FILE, "
            f"or take it as it is now: {flag} {path})"
        )
    else:
        message = f"{printable(one.path or one.name)}, of which {_name(made)} was made, is not there"
        faults.append(f"{message} (name it with {flag} FILE)")
    return None


def _candidates(one: MadeFrom, made: MadePicture) -> list[str]:
    """The files that may be this input: where it lay, and files of its name near the picture."""
    folder = Path(os.path.abspath(made.path)).parent
    near = [folder, folder.parent, Path.cwd()] if os.path.basename(one.name) == one.name and one.name else []
    if made.folder is not None:
        near += [made.folder, made.folder.parent]
    paths = [*([one.path] if one.path else []), *(os.path.join(place, one.name) for place in near)]
    own = os.path.realpath(made.path)
    there = (path for path in dict.fromkeys(paths) if os.path.isfile(path) or contained_at(path) is not None)
    return [path for path in there if os.path.realpath(path) != own]


def _sha256(path: str, hashes: HashCache) -> str | None:
    """The hash of a file; None for one that cannot be read, of which the check of the source will tell."""
    try:
        return hashes.sha256(path).sha256
    except (OSError, ValueError):
        return None


def _name(made: MadePicture) -> str:
    return printable(str(made.path))


class ReplaySource(PictureSource):
    """One picture of joyedit, made again."""

    def __init__(self, name: str, options: SourceOptions, replay: Replay) -> None:
        super().__init__(name, options)
        line = dict(replay.line)
        if options.file_name is not None:
            line |= {"id": options.file_name, "output": options.file_name}
        self._settings = Settings(**{key: line[key] for key in SETTINGS_KEYS if key in line})
        self._record = Record(0, line)
        self._base = ""
        self._has_text = True
        self._id = replay.id
        self.defaults_name = "the picture"

    def asked(self) -> dict[str, Any]:
        """Everything that the id depends on."""
        return super().asked() | {"id": self._id}

    def check(self) -> SourceSummary:
        summary = super().check()
        return replace(summary, settings=self._settings.over(summary.settings))
