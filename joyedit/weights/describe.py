"""What a checkpoint holds and what it lacks, without loading it. No torch in here, and nothing is downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from joyedit.errors import CheckpointError
from joyedit.weights.defaults import local_folder
from joyedit.weights.find import Found, absent_lines, find, how_to_get
from joyedit.weights.hub import cached_snapshot, size_text
from joyedit.weights.part import Part
from joyedit.weights.prompt_sources import prompt_folders
from joyedit.weights.wanted import NETWORKS, ROLES, Wanted


@dataclass(frozen=True, kw_only=True, slots=True)
class PartDescription:
    """One network: its name, the kind of its files (`safetensors`, `gguf`, `pickle`), and each file with its bytes.

    `config` is None where the configuration is read off the shapes.
    """

    network: str
    kind: str
    files: tuple[tuple[Path, int], ...]
    config: Path | None

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A checkpoint as it lies on the disk.

    `absent` names what is missing, one line each, and `remedy` says how to get it. `problem` is the reason why nothing
    more can be said: no layout, two of them, an unreadable file; everything else is empty then. Without a folder of an
    image processor (`processor`) the published settings are in force.
    """

    label: str
    layout: str | None = None
    schedule: str | None = None
    edit_plus: bool = False
    parts: tuple[PartDescription, ...] = ()
    tokenizer: Path | None = None
    processor: Path | None = None
    absent: tuple[str, ...] = ()
    remedy: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether loading finds every file. It may still find other tensors in them than it should."""
        return self.problem is None and not self.absent

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def summary(self) -> str:
        """One line: `diffusers layout, 21 files of weights, 50.3 GB`."""
        if self.layout is None:
            return self.problem or ""
        count = sum(len(part.files) for part in self.parts)
        files = "1 file" if count == 1 else f"{count} files"
        lacking = f"; incomplete: {len(self.absent)} missing" if self.absent else ""
        kind = f"{self.layout} layout" + (" (Edit-Plus)" if self.edit_plus else "")
        return f"{kind}, {files} of weights, {size_text(self.bytes)}{lacking}"


def describe(wanted: Wanted) -> Description:
    """Look at the files of a checkpoint. Raises UsageError for names that lead nowhere."""
    label = wanted.label
    folder = None if wanted.model is None else local_folder(wanted.model) or cached_snapshot(wanted.model)
    if wanted.model is not None and folder is None:
        return Description(label=label, problem="it is not downloaded yet")
    try:
        found = find(wanted, folder)
        prompts = prompt_folders(found, may_fetch=False)
        absent = tuple(absent_lines(found, prompts.absent))
        return Description(
            label=label,
            layout=found.layout,
            schedule=found.schedule,
            edit_plus=found.edit_plus,
            parts=tuple(_part(part) for part in _in_order(found)),
            tokenizer=prompts.tokenizer,
            processor=prompts.processor,
            absent=absent,
            remedy=tuple(how_to_get(found)) if absent else (),
        )
    except CheckpointError as error:
        return Description(label=label, problem=str(error))


def _in_order(found: Found) -> list[Part]:
    return [found.parts[role] for role in ROLES if role in found.parts]


def _part(part: Part) -> PartDescription:
    files = tuple((path, os.stat(path).st_size) for path in (*part.files, *part.vision))
    return PartDescription(network=NETWORKS[part.role], kind=part.kind, files=files, config=part.config)
