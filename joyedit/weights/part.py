"""One network of a checkpoint on the disk: which files hold it, and which file its configuration. No torch in here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from joyedit.errors import CheckpointError, UsageError
from joyedit.printable import brief
from joyedit.weights.candidates import Candidate, candidates_in, recognise, with_shards
from joyedit.weights.headers import Kind
from joyedit.weights.regular_files import is_there, printable_path
from joyedit.weights.roles import Holds
from joyedit.weights.shards import absent_files, index_of, shards_of
from joyedit.weights.wanted import NETWORKS, Role

STEMS: dict[Role, str] = {"dit": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "encoder": "model"}
"""How diffusers and transformers name the files of a network."""
_HOLDERS: dict[Role, tuple[Holds, ...]] = {"dit": ("dit",), "vae": ("vae",), "encoder": ("encoder", "text")}
_CALLED: dict[Holds, str] = {
    "dit": "a transformer (DiT)",
    "encoder": "a text encoder",
    "vae": "a VAE",
    "text": "a text encoder without its vision tower",
    "vision": "the vision tower of a text encoder",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """`files` hold the weights; with `vision`, the vision tower is in files of its own. `config` is the file with the
    configuration; without one it is read off the shapes. `index` names the shards. `absent`: files that ought to be
    there and are not.
    """

    role: Role
    kind: Kind
    files: tuple[Path, ...]
    vision: tuple[Path, ...] = ()
    index: Path | None = None
    config: Path | None = None
    absent: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path | None:
        """Where the files lie."""
        return next((path.parent for path in (*self.files, *self.absent)), None)


def part_in(role: Role, folder: Path, stem: str, *, needs_config: bool = True) -> Part:
    """The network in a folder of its own, as diffusers and transformers write it: a configuration and safetensors.

    Where no file has the usual name, the one network of this kind in the folder's files is taken.
    """
    config = folder / "config.json"
    absent = [] if is_there(config) or not needs_config else [config]
    lacking = absent_files(folder, stem)
    found: Part | None = None
    if lacking == [folder / f"{stem}.safetensors"]:
        found = part_of_candidates(role, candidates_in([folder]).candidates, printable_path(folder), None)
    if found is None:
        wanted = shards_of(folder, stem)
        found = Part(
            role=role,
            kind="safetensors",
            files=tuple(path for path in wanted if path not in lacking),
            index=None if wanted == [folder / f"{stem}.safetensors"] else index_of(folder, stem),
            absent=tuple(lacking),
        )
    return Part(
        role=role,
        kind=found.kind,
        files=found.files,
        vision=found.vision,
        index=found.index,
        config=config if is_there(config) else None,
        absent=(*absent, *found.absent),
    )


def part_of_path(role: Role, text: str) -> Part:
    """The network that --dit, --encoder or --vae names: a file, a folder, or for an encoder two files.

    Raises UsageError where nothing is there, and CheckpointError for files of another kind.
    """
    path = Path(os.path.expanduser(text))
    if role == "encoder" and "," in text and not os.path.lexists(path):
        return _of_files(role, [_there(role, Path(os.path.expanduser(one))) for one in text.split(",")])
    _there(role, path)
    if not os.path.isdir(path):
        return _of_files(role, [path])
    if is_there(path / "config.json"):
        return part_in(role, path, STEMS[role])
    part = part_of_candidates(role, candidates_in([path]).candidates, printable_path(path), None)
    if part is None:
        part = part_in(role, path, STEMS[role], needs_config=False)
    if not part.files:
        listed = candidates_in([path])
        reasons = "".join(f"\n{fault}" for fault in listed.faults)
        raise CheckpointError(
            f"--{role} {printable_path(path)}: holds no file of {_CALLED[_HOLDERS[role][0]]}{reasons}"
        )
    return part


def part_of_candidates(role: Role, candidates: Sequence[Candidate], where: str, width: int | None) -> Part | None:
    """The one network of this role among the files of a folder; None if there is none.

    `width`: how many channels of text the DiT takes; encoders of another width are left out if one of this is there.
    Raises CheckpointError for several, with the choice to make.
    """
    mine = [one for one in candidates if one.holds in _HOLDERS[role]]
    mine = [one for one in mine if one.is_readable] or mine
    mine = [one for one in mine if width is not None and one.text_width == width] or mine
    if not mine:
        return None
    if len(mine) > 1:
        raise _several(mine, f"--{role} ", where)
    chosen = mine[0]
    if chosen.holds != "text":
        return Part(role=role, kind=chosen.kind, files=chosen.files, absent=chosen.absent)
    visions = [one for one in candidates if one.holds == "vision"]
    if len(visions) > 1:
        raise _several(visions, f"--encoder {_shell(chosen.first)},", where)
    return _with_vision(chosen, visions[0] if visions else None)


def _with_vision(text: Candidate, vision: Candidate | None) -> Part:
    lacking = () if vision is not None else (text.first.with_name("mmproj-*.gguf (the vision tower)"),)
    return Part(
        role="encoder",
        kind=text.kind,
        files=text.files,
        vision=() if vision is None else vision.files,
        absent=(*text.absent, *(() if vision is None else vision.absent), *lacking),
    )


def _of_files(role: Role, paths: list[Path]) -> Part:
    """The network in these files. The vision tower of an encoder may lie beside it."""
    found = []
    for path in paths:
        one = recognise(with_shards(path))
        if one is None or (one.holds not in _HOLDERS[role] and not (role == "encoder" and one.holds == "vision")):
            held = "another network" if one is None else _CALLED[one.holds]
            raise CheckpointError(
                f"--{role} {printable_path(path)}: its tensors are those of {held}, not of {_CALLED[_HOLDERS[role][0]]}"
            )
        found.append(one)
    texts = [one for one in found if one.holds != "vision"]
    visions = [one for one in found if one.holds == "vision"]
    if len(texts) != 1 or len(visions) > 1 or (visions and texts[0].holds != "text"):
        raise CheckpointError(f"--{role}: give one file of {NETWORKS[role]}, and at most one of its vision tower")
    if texts[0].holds == "text" and not visions:
        beside = candidates_in([paths[0].parent]).candidates
        part = part_of_candidates(role, [texts[0], *(one for one in beside if one.holds == "vision")], "", None)
        assert part is not None
        return part
    if visions:
        return _with_vision(texts[0], visions[0])
    return Part(role=role, kind=texts[0].kind, files=texts[0].files, absent=texts[0].absent)


def _there(role: Role, path: Path) -> Path:
    if not os.path.lexists(path):
        raise UsageError(f"--{role} {printable_path(path)}: no such file or folder")
    return path


def _several(candidates: Sequence[Candidate], flag: str, where: str) -> CheckpointError:
    listed = "\n".join(printable_path(one.first) for one in candidates)
    held = _CALLED[candidates[0].holds]
    place = f"{where}: " if where else ""
    return CheckpointError(
        f"{place}{len(candidates)} files hold {held}\n{listed}\n"
        f"name the one to take: {flag}{_shell(candidates[0].first)}"
    )


def _shell(path: Path) -> str:
    return brief(str(path), 1000)
