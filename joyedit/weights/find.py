"""Where the parts of a checkpoint lie, from the names of its files and their headers. No torch in here, nothing loaded.

Three layouts are known: `diffusers` (model_index.json and a folder for each network), `original` (the authors':
transformer/transformer.pth, one file in vae/, JoyAI-Image-Und/), and `single files` as ComfyUI and GGUF have them, one
or two for each network. Where every part is named by itself, the layout is `named parts`. Only the folder that is given
is looked at, and in it the few places where these layouts keep files.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from joyedit.errors import CheckpointError
from joyedit.models.config_values import ConfigError, Values
from joyedit.printable import brief
from joyedit.weights.candidates import Listed, candidates_in
from joyedit.weights.defaults import EDIT_PIPELINE, HUB_EDIT, HUB_EDIT_PLUS, HUB_ORIGINAL, is_plus_file
from joyedit.weights.literals import PUBLISHED, read_literals
from joyedit.weights.part import Part, part_in, part_of_candidates, part_of_path
from joyedit.weights.regular_files import entries, is_there, printable_path, read_object
from joyedit.weights.wanted import NETWORKS, ROLES, Role, Wanted

Layout = Literal["diffusers", "original", "single files", "named parts"]
UNDERSTANDING = "JoyAI-Image-Und"
AUTHORS_DIT = Path("transformer", "transformer.pth")
SCHEDULER = Path("scheduler", "scheduler_config.json")
LITERALS = "infer_config.py"
PLACES: dict[Role, tuple[str, ...]] = {
    "dit": ("diffusion_models", "unet"),
    "encoder": ("text_encoders", "clip"),
    "vae": ("vae",),
}
"""Where ComfyUI keeps the files of each network: in its folder `models/`, and in repositories under `split_files/`."""
ROOTS = (".", "split_files", "models")
DIFFUSERS: dict[Role, tuple[str, str]] = {
    "dit": ("transformer", "diffusion_pytorch_model"),
    "vae": ("vae", "diffusion_pytorch_model"),
    "encoder": ("text_encoder", "model"),
}
"""The folder of each network, and the stem of its files."""
MOST_SHOWN = 100
"""The names of so many missing files are told, and the number of the others."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The parts of a checkpoint. `folder` is the one that --model leads to, None where each part is named by itself.

    `edit_plus` and `is_edit` say which of the two models it calls itself; both are False where nothing tells.
    `scheduler` and `literals` are files that say how to sample, where there are some. `faults`: files of tensors that
    could not be read, which may be what is missing.
    """

    wanted: Wanted
    folder: Path | None
    layout: Layout
    parts: dict[Role, Part]
    scheduler: Path | None = None
    literals: Path | None = None
    edit_plus: bool = False
    is_edit: bool = False
    faults: tuple[CheckpointError, ...] = field(default=(), repr=False)

    @property
    def lacking(self) -> list[Role]:
        """The networks of which nothing was found."""
        return [role for role in ROLES if role not in self.parts]

    @property
    def schedule(self) -> Literal["original", "diffusers"]:
        """The noise schedule that the checkpoint was made for."""
        return "original" if self.scheduler is None else "diffusers"

    def said(self) -> dict[str, Any]:
        """What the authors' `infer_config.py` says otherwise than the published one does. Raises CheckpointError."""
        said = {} if self.literals is None else read_literals(self.literals)
        return {key: value for key, value in said.items() if value != PUBLISHED.get(key)}

    def used(self) -> list[tuple[str, Path]]:
        """The files that make the pictures, but for the tokenizer, and what each is."""
        used = []
        for role in ROLES:
            part = self.parts.get(role)
            if part is not None:
                used += [(role, path) for path in part.files] + [(f"{role} vision", path) for path in part.vision]
                used += [(f"{role} config", part.config)] if part.config is not None else []
        for what, path in (("scheduler", self.scheduler), ("literals", self.literals)):
            used += [(what, path)] if path is not None else []
        return used

    @property
    def absent(self) -> list[Path]:
        """Files that ought to be there."""
        return [path for role in ROLES if role in self.parts for path in self.parts[role].absent]


def detect(folder: Path, *, given: Iterable[Role] = ()) -> Layout:
    """Tell the layout by what is in the folder. `given` are parts that are named by themselves.

    Raises CheckpointError for none, and for two.
    """
    found: dict[Layout, str] = {}
    for name in ("model_index.json", "transformer/config.json", "text_encoder/config.json"):
        if is_there(folder / name):
            found.setdefault("diffusers", name)
    if is_there(folder / AUTHORS_DIT):
        found["original"] = AUTHORS_DIT.as_posix()
    listed = Listed()
    if not found:
        listed = _single_files(folder, ROLES)
    elif "dit" not in given:  # other files may lie beside the folders of a layout; a second transformer may not
        listed = _single_files(folder, ("dit",))
        listed = replace(listed, candidates=tuple(one for one in listed.candidates if one.holds == "dit"))
    if listed.candidates:
        found["single files"] = listed.candidates[0].first.relative_to(folder).as_posix()
    if len(found) > 1:
        raise _two_layouts(folder, found)
    if not found:
        raise _no_layout(folder, listed)
    return next(iter(found))


def find(wanted: Wanted, folder: Path | None) -> Found:
    """Find every part. `folder` is where --model leads to.

    Raises CheckpointError for a folder of no layout or of two, for two candidates of one part, and for a named part
    that is none. What is missing is in the result.
    """
    named = {role: part_of_path(role, path) for role, path in wanted.parts.items()}
    if folder is None:
        plus = _is_plus_file(named)
        return Found(wanted=wanted, folder=None, layout="named parts", parts=named, edit_plus=plus)
    rest = [role for role in ROLES if role not in named]
    layout: Layout = detect(folder, given=named) if rest else "named parts"
    if layout == "named parts":
        found = Found(wanted=wanted, folder=folder, layout=layout, parts={}, scheduler=_file(folder / SCHEDULER))
    elif layout == "diffusers":
        found = _diffusers(wanted, folder, rest)
    elif layout == "original":
        found = _original(wanted, folder, rest)
    else:
        found = _single(wanted, folder, rest)
    parts = {role: part for role in ROLES if (part := named.get(role) or found.parts.get(role)) is not None}
    plus = found.edit_plus or _is_plus_file({role: part for role, part in parts.items() if part.config is None})
    return replace(found, parts=parts, edit_plus=plus, is_edit=found.is_edit and not plus and "dit" not in named)


def refuse_absent(found: Found, more: Iterable[str] = ()) -> None:
    """Raises CheckpointError that names everything that is missing, and how to get it. `more`: other lines of the
    list."""
    lines = absent_lines(found, more)
    if not lines:
        return
    where = printable_path(found.folder) if found.folder is not None else "the model"
    what = "1 file is missing" if len(lines) == 1 else f"{len(lines)} files are missing"
    shown = lines[:MOST_SHOWN]
    shown += [f"... and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
    if found.faults and found.lacking:
        shown += ["these files could not be read:", *(str(fault) for fault in found.faults[:MOST_SHOWN])]
    text = "\n".join([f"{where}: {what}", *shown, *how_to_get(found)])
    raise CheckpointError(text)


def absent_lines(found: Found, more: Iterable[str] = ()) -> list[str]:
    """What is missing, one line each, `more` among it."""
    lines = [_name(path, found.folder) for path in found.absent] + list(more)
    return lines + [f"{NETWORKS[role]}: {_what(role)}" for role in found.lacking]


def how_to_get(found: Found) -> list[str]:
    """Lines that say how to get what is missing."""
    if found.layout in ("single files", "named parts") or found.folder is None:
        flags = ", ".join(f"--{role} FILE" for role in found.lacking)
        return [f"name what lies elsewhere with {flags}"] if flags else []
    published = HUB_ORIGINAL if found.layout == "original" else HUB_EDIT_PLUS if found.edit_plus else HUB_EDIT
    return [
        "if these are the published weights, this command fetches what is missing:",
        f"hf download {published} --local-dir {shlex.quote(printable_path(found.folder))}",
    ]


def _diffusers(wanted: Wanted, folder: Path, roles: list[Role]) -> Found:
    parts = {role: part_in(role, folder / DIFFUSERS[role][0], DIFFUSERS[role][1]) for role in roles}
    index = folder / "model_index.json"
    name = ""
    if is_there(index):
        try:
            name = Values(read_object(index)).text("_class_name", "")
        except ConfigError as error:
            raise CheckpointError(f"{printable_path(index)}: {error}") from error
    return Found(
        wanted=wanted,
        folder=folder,
        layout="diffusers",
        parts=parts,
        scheduler=_file(folder / SCHEDULER),
        edit_plus="EditPlus" in name,
        is_edit=name == EDIT_PIPELINE,
    )


def _original(wanted: Wanted, folder: Path, roles: list[Role]) -> Found:
    parts: dict[Role, Part] = {}
    if "dit" in roles:
        parts["dit"] = Part(role="dit", kind="pickle", files=(folder / AUTHORS_DIT,))
    if "vae" in roles:
        parts["vae"] = _authors_vae(folder / "vae")
    if "encoder" in roles:
        parts["encoder"] = part_in("encoder", folder / UNDERSTANDING, "model")
    return Found(
        wanted=wanted,
        folder=folder,
        layout="original",
        parts=parts,
        literals=_file(folder / LITERALS),
    )


def _file(path: Path) -> Path | None:
    return path if is_there(path) else None


def _authors_vae(folder: Path) -> Part:
    """The VAE of the authors' layout: one .pth file, or one of another kind."""
    if not os.path.isdir(folder):
        return Part(role="vae", kind="pickle", files=(), absent=(folder / "Wan2.1_VAE.pth",))
    files = [path for path in entries(folder) if path.suffix == ".pth"]
    if not files:
        files = [path for path in entries(folder) if path.suffix == ".safetensors"]
    if len(files) != 1:
        raise CheckpointError(f"{printable_path(folder)}: one .pth file is expected, found {len(files)}")
    return Part(role="vae", kind="pickle" if files[0].suffix == ".pth" else "safetensors", files=(files[0],))


def _single(wanted: Wanted, folder: Path, roles: list[Role]) -> Found:
    listed = _single_files(folder, ROLES)
    dits = [one for one in listed.candidates if one.holds == "dit"]
    width = dits[0].text_width if len(dits) == 1 else None
    parts: dict[Role, Part] = {}
    for role in roles:
        part = part_of_candidates(role, listed.candidates, printable_path(folder), width)
        if part is not None:
            parts[role] = part
    return Found(wanted=wanted, folder=folder, layout="single files", parts=parts, faults=listed.faults)


def _single_files(folder: Path, roles: Iterable[Role]) -> Listed:
    """The networks in the single files of a folder: in itself, and in the places of ComfyUI."""
    places = [folder, *(folder / root / name for root in ROOTS for role in roles for name in PLACES[role])]
    return candidates_in(dict.fromkeys(Path(os.path.normpath(place)) for place in places))


def _is_plus_file(parts: dict[Role, Part]) -> bool:
    """Edit-Plus has the tensors of Edit: the name of its file alone tells it."""
    files = parts["dit"].files if "dit" in parts else ()
    return any(is_plus_file(path.name) for path in files)


def _what(role: Role) -> str:
    return {
        "dit": "such as joyai_image_edit_bf16.safetensors, in the folder, diffusion_models/ or split_files/",
        "encoder": "such as qwen3vl_8b_joyimage_edit_bf16.safetensors, in the folder, text_encoders/ or split_files/",
        "vae": "such as wan_2.1_vae.safetensors, in the folder, vae/ or split_files/",
    }[role]


def _name(path: Path, folder: Path | None) -> str:
    if folder is not None and path.is_relative_to(folder):
        return brief(path.relative_to(folder).as_posix())
    return printable_path(path)


def _two_layouts(folder: Path, found: dict[Layout, str]) -> CheckpointError:
    listed = "\n".join(f"{layout}: {brief(mark)}" for layout, mark in found.items())
    return CheckpointError(
        f"{printable_path(folder)}: holds {len(found)} layouts\n{listed}\n"
        "give a folder that holds one of them, or name each part: --dit PATH --encoder PATH --vae PATH"
    )


def _no_layout(folder: Path, listed: Listed) -> CheckpointError:
    text = (
        f"{printable_path(folder)}: no known checkpoint layout. A diffusers folder holds model_index.json,"
        f" transformer/, vae/, text_encoder/; the authors' holds {AUTHORS_DIT.as_posix()}, vae/*.pth,"
        f" {UNDERSTANDING}/; a folder of single files holds those of ComfyUI or GGUF, also in diffusion_models/,"
        " text_encoders/ and vae/"
    )
    if listed.faults:
        text += "\nthese files could not be read:\n" + "\n".join(str(fault) for fault in listed.faults[:MOST_SHOWN])
    return CheckpointError(text)
