"""The records that the parts of joyedit hand to each other. Frozen, and free of torch.

Vocabulary: an *item* is one edit; its *bucket* is the (height, width) that its target takes; a
*batch* is a tuple of items that go through the networks together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Size = tuple[int, int]
"""(height, width) in pixels."""

BASE_SIZES = (256, 512, 768, 1024)
PICTURE_FORMATS = ("png", "jpg", "webp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """The effective settings of one item: nothing is left open here.

    `guidance_scale` of 1 or less turns guidance (and with it the negative prompt) off.
    """

    steps: int = 40
    guidance_scale: float = 4.0
    seed: int = 42
    negative_prompt: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Settings that a person, a recipe, a manifest or a checkpoint may give; None leaves one open."""

    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    basesize: int | None = None
    width: int | None = None
    height: int | None = None

    def over(self, lower: Settings) -> Settings:
        """These settings, with what they leave open taken from `lower`."""
        names = self.__slots__
        return Settings(**{n: getattr(lower, n) if getattr(self, n) is None else getattr(self, n) for n in names})


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where an item was written down: a file (or `-`, or a folder) and, if it has lines, the line."""

    file: str
    line: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EditItem:
    """One edit as the manifest asks for it, with every setting in force.

    `images` are the references in order (none: text to image). `output` is relative to the output
    folder, with `/` between its parts and its extension in place. `size` is the (height, width)
    asked for, before the choice of a bucket; None takes it from the last reference.
    """

    id: str
    images: tuple[Path, ...]
    instruction: str
    sampling: Sampling
    basesize: int
    size: Size | None
    output: str
    origin: Origin


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedItem:
    """An item that failed before it could join a batch (say, a picture that cannot be read)."""

    id: str
    images: tuple[Path, ...]
    instruction: str
    origin: Origin
    code: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SizedItem:
    """An item whose pictures were sized: `target` and one bucket for each reference."""

    item: EditItem
    target: Size
    references: tuple[Size, ...]

    @property
    def batch_key(self) -> tuple[Any, ...]:
        """Items with equal keys can share a batch: the same shapes and the same schedule."""
        return (self.target, self.references, self.item.sampling.steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Items that go through the networks together; all of one `batch_key`."""

    index: int
    items: tuple[SizedItem, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything about a run that is not about one item. `batch_size` None means auto."""

    output: Path
    model: str | None = None
    batch_size: int | None = None
    device: Literal["auto", "cuda", "cpu"] = "auto"
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    attention: Literal["auto", "flash", "sdpa"] = "auto"
    compile: bool = False
    schedule: Literal["auto", "original", "diffusers"] = "auto"
    format: Literal["png", "jpg", "webp"] = "png"
    quality: int | None = None
    limit: int | None = None
    window: int = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemResult:
    """The final state of one item: what becomes its line in results.jsonl.

    `seconds` holds the item's share of each stage (read, encode, denoise, decode, write).
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
