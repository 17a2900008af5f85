"""The records that the parts of joyedit pass to each other. They are frozen, and free of torch.

Vocabulary: an *item* is one edit; its *bucket* is the (height, width) of its target; a *batch* is a tuple
of items that go through the networks together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from joyedit.job.data_picture import Reference
from joyedit.job.fit import Fit, PixelBox
from joyedit.job.parts import Parts
from joyedit.job.sizes import FitName, Size
from joyedit.job.speed.settings import BlockSteps

Box = tuple[float, float, float, float]
"""left, top, right, bottom: in pixels, or in fractions of the sides if none of them is larger than 1."""

AttentionName = Literal["auto", "fa4", "fa3", "fa2", "varlen", "cudnn", "flash-sdpa", "flash", "sdpa"]
"""`flash` is the first of fa4, fa3, fa2 and varlen that is installed and works."""

SwitchName = Literal["auto", "on", "off"]

FormatName = Literal["png", "jpg", "webp", "tiff", "avif", "heic", "same"]
"""The format of the results; `same` is that of each item's picture, or what comes nearest to it."""

MetadataName = Literal["keep", "no-gps", "strip"]
"""What a result keeps of its picture's EXIF and XMP: all, all but where it was taken, or nothing."""

WriteName = Literal["folder", "webdataset", "parquet", "imagefolder", "gedit", "imgedit", "kris", "spatialedit"]
"""What a run writes: loose pictures, shards of a format for training, an image folder of Hugging Face, or the tree of a
benchmark's scorer."""

PanoramaName = Literal["whole", "parts"]
"""How a picture beyond 4:1 goes through: as a whole, small and padded, or in parts that overlap."""

ScheduleKind = Literal["original", "diffusers"]
"""The two spacings of noise levels that are in use for the same weights."""

SpeedName = Literal["exact", "high", "max"]
"""How much a run leaves out to be faster: nothing, or what costs little, or more."""

PrecisionName = Literal["exact", "fp8", "int8"]
"""What the products of the DiT's blocks take: numbers of the run's dtype, or of 8 bits with scales."""

OffloadName = Literal["auto", "none", "encoder", "blocks"]
"""What passes through the device instead of staying there: as the plan says, nothing, the text encoder's layers, or
those and the DiT's blocks."""

BASE_SIZES = (256, 512, 768, 1024)
MAX_STEPS, MAX_GUIDANCE = 1000, 100
"""The limits of manifests and checkpoints."""
LORA_STEMS = ("adapter_model", "pytorch_lora_weights")
"""What PEFT and diffusers call the file of every LoRA, without the ending."""
MAX_PIXELS = 178_000_000
"""joyedit refuses larger pictures before it decodes a pixel, unless the run allows more."""
READ_TIMEOUT = 120.0
"""joyedit gives up a picture that it could not read within so many seconds."""


Owns = Literal["none", "same line", "same pictures"]


class Stamp(NamedTuple):
    """What the file system says about a file: bytes, and times in nanoseconds. A changed file has another stamp."""

    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Seen(NamedTuple):
    """An input as joyedit read it: the hash of its content, and its stamp at that time."""

    sha256: str
    stamp: Stamp


class SeenMask(NamedTuple):
    """A mask as joyedit read it. `share` is the part of its picture that may change, from 0 to 1."""

    seen: Seen
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """The settings in force for one item; each of them has a value.

    A `guidance_scale` of 1 or less turns off guidance, and the negative prompt with it.
    """

    steps: int = 40
    guidance_scale: float = 4.0
    seed: int = 42
    negative_prompt: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Settings that a person, a recipe, a manifest or a checkpoint may give; None leaves a setting open."""

    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    basesize: int | None = None
    width: int | None = None
    height: int | None = None
    size: str | None = None
    fit: FitName | None = None

    def over(self, lower: Settings) -> Settings:
        """These settings; `lower` gives the ones that they leave open."""
        names = self.__slots__
        return Settings(**{n: getattr(lower, n) if getattr(self, n) is None else getattr(self, n) for n in names})

    def sampling(self) -> Sampling:
        """The settings of the sampler. Raises ValueError that names each of them that is still open."""
        given = {name: getattr(self, name) for name in Sampling.__slots__}
        missing = [name for name, value in given.items() if value is None]
        if missing:
            raise ValueError(f"these settings have no value: {', '.join(missing)}")
        return Sampling(**given)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """A LoRA of an item: its file and the factor of its effect.

    `sha256` is the hash of all that its effect depends on; the file's name is no part of that. `sigmas` are noise
    levels, from 1 down: an item of so many steps takes them in place of the checkpoint's schedule.
    """

    file: Path = field(compare=False)
    scale: float = 1.0
    sha256: str = ""
    sigmas: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The file's name; with that of its folder where all LoRAs of one kind are called the same."""
        name = self.file.name
        return f"{self.file.parent.name}/{name}" if self.file.stem in LORA_STEMS else name


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where an item comes from: a file (or `-`, or a folder) and, if it has lines, the line."""

    file: str
    line: int | None = None


class Beside(NamedTuple):
    """A file that belongs to a finished picture: its place in the output folder, its bytes, and the sha256 of these."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRow:
    """The row of a dataset that an item comes from, as far as `columns` of the item do not hold it.

    `pictures` has the picture, or the list of pictures, of each column that holds some, and `edited` names the column
    of those that the item begins with (None: its pictures are in no column). `values` are the other cells, as JSON
    holds them.
    """

    pictures: Mapping[str, Reference | tuple[Reference, ...]]
    values: Mapping[str, Any]
    edited: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EditItem:
    """One edit as the source asks for it, with every setting in force.

    `images` are the references in order (none: text to image). `output` is relative to the output folder,
    with `/` between its parts and with its extension. `size` is the (height, width) that the item asks for,
    before the choice of a bucket; with None the last reference decides. `result_size` is the size of the picture that
    is written, as `fit.parse_size` reads it, and `fit` says how references are put into buckets. `loras` change the DiT
    for this item. `box` is drawn in red on the only reference. `mask` says by its greys what of the last reference
    may change (white) and must not (black). `has_default_id`: the id comes from the path of the
    first reference. `other_ids` are default ids that the item had if other lines were there: its picture may be
    finished under one of them. `earlier` has for each of `images` the id of the item whose result it is, and None for
    another picture; it is empty for an item without results of others. `chain` is the id by which its shard is
    chosen, where that is not its own. `owns` says which records under these ids are of this item: none, those of the
    same line, or all of the same pictures. `columns` are what its record carries from the source; they change no
    picture. `row` is what a run that writes datasets keeps of the row beside them.
    """

    id: str
    images: tuple[Reference, ...]
    instruction: str
    sampling: Sampling
    basesize: int
    size: Size | None
    output: str
    origin: Origin
    result_size: str = "bucket"
    fit: FitName = "crop"
    loras: tuple[Lora, ...] = ()
    box: Box | None = None
    mask: Reference | None = None
    earlier: tuple[str | None, ...] = ()
    chain: str | None = field(default=None, compare=False)
    has_default_id: bool = field(default=False, compare=False)
    other_ids: Iterable[str] = field(default=(), compare=False)
    owns: Owns = field(default="none", compare=False)
    columns: dict[str, Any] | None = field(default=None, hash=False)
    row: SourceRow | None = field(default=None, compare=False)

    @property
    def inputs(self) -> tuple[Reference, ...]:
        """All pictures that the item reads: the references, and behind them its mask."""
        return self.images if self.mask is None else (*self.images, self.mask)


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedItem:
    """An item that failed before it could join a batch, for example because a picture cannot be read.

    `item` is None if the line of the source is no item.
    """

    id: str
    images: tuple[Reference, ...]
    instruction: str
    origin: Origin
    code: str
    message: str
    item: EditItem | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SizedItem:
    """An item with its buckets: that of the target, and one for each reference.

    `fits` say how the references are put into their buckets; where there are none, they are cropped. `shown` is the
    box of the target's bucket that becomes the result, and `result` the result's size; None stands for all of it, as
    it is. Where the picture goes through in `parts`, `part` is the number of one of them, from 0; with None the target
    is the frame in which they are joined.
    """

    item: EditItem
    target: Size
    references: tuple[Size, ...]
    fits: tuple[Fit, ...] = ()
    shown: PixelBox | None = None
    result: Size | None = None
    parts: Parts | None = None
    part: int | None = None

    @property
    def key(self) -> str:
        """Tells it from all others of a run, also from the other parts of its picture."""
        return self.item.id if self.part is None else f"{self.item.id}\0{self.part}"

    @property
    def as_parts(self) -> tuple[SizedItem, ...]:
        """What goes through the networks: each part of the picture, or the item itself."""
        parts = self.parts
        if parts is None:
            return (self,)
        return tuple(
            replace(self, target=parts.bucket, references=(parts.bucket,), fits=(parts.fit(number),), part=number)
            for number in range(len(parts.begins))
        )

    @property
    def whole(self) -> SizedItem:
        """The item of which this is a part, or itself."""
        if self.parts is None or self.part is None:
            return self
        frame = self.parts.frame
        return replace(self, target=frame, references=(frame,), fits=(self.parts.whole(),), part=None)

    @property
    def batch_key(self) -> tuple[Any, ...]:
        """Items with equal keys can share a batch: they have the same shapes, schedule and LoRAs."""
        return (self.target, self.references, self.item.sampling.steps, self.item.loras)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Items that go through the networks together; all of one `batch_key`."""

    index: int
    items: tuple[SizedItem, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemResult:
    """The final state of one item; it becomes the item's line in results.jsonl.

    `seconds` has the item's share of each stage (read, encode, denoise, decode, write), `inputs_seen` the
    references that joyedit has read. `planned_output` is the output of an item that failed. `replaces` are other ids of
    the item whose records count no more, `loras` the paths of the LoRAs whose names and scales `settings` has. `result`
    is the (height, width) of the picture, `fit` says how the last reference was put into its bucket, and `drift` how
    far the model moved the picture. `parts` are those that were joined. `mask` is the address of the
    mask, `mask_seen` what was read there. `work` is what ran of its steps; None where nothing was left out. `earlier`,
    `chain` and `row` are those of the item. `beside` are files that belong to the picture.
    """

    id: str
    status: Literal["ok", "failed"]
    instruction: str
    inputs: tuple[str, ...]
    output: str | None
    bucket: Size | None
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: dict[str, str] | None = None
    origin: Origin | None = None
    fingerprint: str | None = None
    shared: str | None = None
    output_bytes: int | None = None
    output_sha256: str | None = None
    inputs_seen: tuple[Seen, ...] = ()
    planned_output: str | None = None
    replaces: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()
    result: Size | None = None
    fit: Fit | None = None
    parts: Parts | None = None
    drift: dict[str, float] | None = field(default=None, hash=False)
    mask: str | None = None
    mask_seen: SeenMask | None = None
    work: BlockSteps | None = None
    earlier: tuple[str | None, ...] = ()
    chain: str | None = None
    columns: dict[str, Any] | None = field(default=None, hash=False)
    row: SourceRow | None = field(default=None, hash=False)
    beside: tuple[Beside, ...] = ()
