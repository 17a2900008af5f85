"""What the user says about a dataset: its layout, the split, which rows, and where pictures lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from joyedit.errors import UsageError
from joyedit.job.source.problems import shown

LayoutName = Literal[
    "auto",
    "manifest",
    "folder",
    "parquet",
    "arrow",
    "webdataset",
    "imagefolder",
    "gedit-bench",
    "imgedit",
    "kris-bench",
    "spatialedit-bench",
    "magicbrush",
    "omniedit",
    "hq-edit",
    "instructpix2pix",
]
"""`auto` is what the files tell; `manifest` and `folder` read a source as if there were no datasets."""

LAYOUTS: tuple[str, ...] = get_args(LayoutName)
NO_DATASET = ("manifest", "folder")
ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetChoice:
    """`where` are columns and the values that rows must have there, as text. `image_root` is the folder of pictures.
    `chains_turns`: from its second turn on, a row edits the result of the turn before.

    `reads_captions` says whether texts that may be mere captions are instructions; None: where nothing else gives one.
    """

    layout: str = "auto"
    split: str | None = None
    where: tuple[tuple[str, str], ...] = ()
    image_root: str | None = None
    chains_turns: bool = False
    reads_captions: bool | None = None

    @classmethod
    def of(
        cls,
        layout: str,
        split: str | None,
        where: Iterable[str],
        image_root: str | None,
        *,
        chains_turns: bool = False,
    ) -> DatasetChoice:
        """From the values of the flags. Raises UsageError."""
        pairs: list[tuple[str, str]] = []
        faults = []
        for one in where:
            column, mark, value = one.partition("=")
            if not mark or not column.strip():
                faults.append(f"--where takes COLUMN=VALUE, for example instruction_language=en, not {shown(one)}")
            pairs.append((column.strip(), value.strip()))
        if layout not in LAYOUTS:
            faults.append(f"--layout is one of {', '.join(LAYOUTS)}, not {shown(layout)}")
        if faults:
            raise UsageError("\n".join(faults))
        return cls(layout=layout, split=split, where=tuple(pairs), image_root=image_root, chains_turns=chains_turns)

    @property
    def is_dataset(self) -> bool:
        """Whether the user says that the source is a dataset."""
        return self.layout not in ("auto", *NO_DATASET)

    def given(self) -> list[str]:
        """The flags that are about datasets alone, as far as they are given."""
        flags = {
            "--split": self.split,
            "--where": self.where,
            "--image-root": self.image_root,
            "--chain-turns": self.chains_turns,
        }
        return [flag for flag, value in flags.items() if value]

    def as_json(self) -> dict[str, Any]:
        """What the ids of the items depend on."""
        made = {
            "layout": self.layout,
            "split": self.split,
            "where": [list(pair) for pair in self.where],
            "image_root": self.image_root,
            "captions": self.reads_captions,
        }
        chained = {"chain_turns": True} if self.chains_turns else {}
        return {key: value for key, value in made.items() if value not in (None, [])} | chained

    @classmethod
    def read(cls, given: object) -> DatasetChoice:
        """From what `as_json` gave."""
        told = given if isinstance(given, dict) else {}
        layout, split, root, captions = (told.get(key) for key in ("layout", "split", "image_root", "captions"))
        pairs = told.get("where")
        return cls(
            layout=layout if isinstance(layout, str) and layout in LAYOUTS else "auto",
            split=split if isinstance(split, str) else None,
            where=tuple((str(one[0]), str(one[1])) for one in pairs if isinstance(one, list) and len(one) == 2)
            if isinstance(pairs, list)
            else (),
            image_root=root if isinstance(root, str) else None,
            chains_turns=told.get("chain_turns") is True,
            reads_captions=captions if isinstance(captions, bool) else None,
        )
