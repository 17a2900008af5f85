"""Short ways to one edit through the real backend, and to the difference of two pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from joyedit.job.buckets import choose_bucket
from joyedit.job.pictures.fitted import cropped_to
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import EditItem, Lora, Origin, Sampling, SizedItem
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.runtime.protocol import ReadyBatch

BASE = 256


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One edit as a test writes it down."""

    text: str
    images: Sequence[Image.Image] = ()
    steps: int = 3
    guidance: float = 4.0
    seed: int = 42
    negative: str = ""
    loras: tuple[Lora, ...] = ()
    sampling: Sampling = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "sampling",
            Sampling(steps=self.steps, guidance_scale=self.guidance, seed=self.seed, negative_prompt=self.negative),
        )


def backend(folder: Path, **options: Any) -> JoyImageBackend:
    return load_backend(RunConfig(output=Path("unused"), model=str(folder), **options))


def batch_of(edits: Sequence[Edit]) -> ReadyBatch:
    items, pictures = [], []
    for number, edit in enumerate(edits):
        references = tuple(choose_bucket((image.height, image.width), BASE) for image in edit.images)
        item = EditItem(
            id=str(number), images=(), instruction=edit.text, sampling=edit.sampling, basesize=BASE, size=None,
            output=f"{number}.png", origin=Origin(file="test"), loras=edit.loras,
        )  # fmt: skip
        target = references[-1] if references else (BASE, BASE)
        items.append(SizedItem(item=item, target=target, references=references))
        pictures.append(tuple(cropped_to(i, bucket) for i, bucket in zip(edit.images, references, strict=True)))
    return ReadyBatch.of(items, pictures)


def run(model: JoyImageBackend, *edits: Edit) -> list[Image.Image]:
    model.ready()  # the DiT loads on in a thread
    encoded = model.encode(batch_of(edits))
    return model.decode(model.denoise(encoded, lambda done, total: None))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Soft random blotches: every pixel differs from its neighbours, no two seeds alike."""
    blotches = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(blotches).resize((width, height), Image.Resampling.BICUBIC)


def levels_apart(a: Image.Image, b: Image.Image) -> int:
    """The largest difference of two pictures in 8-bit levels."""
    assert a.size == b.size
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


def spread(image: Image.Image) -> float:
    """Standard deviation of the levels: a picture that is not flat has a large one."""
    return float(np.asarray(image).std())
