"""One hash of everything that an edit depends on: equal fingerprints mean equal pictures.

A resume skips an item whose fingerprint is the recorded one. The fingerprint is the sha256 of a JSON text with

    version       OUTPUT_VERSION, which rises with every change of joyedit that changes pictures
    model         the identity of the checkpoint
    schedule, dtype
    instruction   as the model gets it
    sampling      steps, guidance_scale, seed, negative_prompt
    basesize, size
    result        the size of the result, as asked for, how pictures are fitted, what metadata it keeps,
                  and "keep unedited", "register" and "parts" (of panoramas) where these are on
    box           the red box that is drawn; only where there is one
    precision     of the DiT's products; only where it is not "exact"
    quality       of JPEG and WebP; null for PNG, "source" where it is that of the picture
    inputs        the sha256 of each reference's file, in order
    loras         the sha256 and the scale of each LoRA, in order, and its noise levels; only where there are some
    mask          the sha256 of the mask's file; only where there is one

It leaves out the name of the output, which a resume compares separately, and everything that changes no
more than rounding: device, attention kernels, compilation, batch size, and over how many devices a picture is divided.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from joyedit.job.run_config import RunConfig
from joyedit.job.spec import EditItem, MetadataName, PrecisionName
from joyedit.job.speed.bundles import speed_of_run
from joyedit.job.speed.settings import EXACT, Speed

OUTPUT_VERSION = 2
"""Raise it with a change that makes other pictures of the same inputs. joyedit then edits all items again."""

_TEXT = json.JSONEncoder().encode


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprinter:
    """Makes the fingerprints of a run, from what all its items share. `quality` is that of JPEG and WebP; with None
    it is that of the picture.
    """

    model: str
    schedule: str
    dtype: str
    quality: int | None
    metadata: MetadataName
    keep_unedited: bool = False
    register: bool = False
    parts: bool = False
    precision: PrecisionName = "exact"
    speed: Speed = EXACT

    @classmethod
    def for_run(cls, config: RunConfig, model: str, schedule: str, dtype: str) -> Fingerprinter:
        """The fingerprints of a run. `model` is the identity of its checkpoint."""
        return cls(
            model=model,
            schedule=schedule,
            dtype=dtype,
            quality=config.quality,
            metadata=config.metadata,
            keep_unedited=config.keep_unedited,
            register=config.register,
            parts=config.panorama == "parts",
            precision=config.precision,
            speed=speed_of_run(config, schedule),
        )

    def _more(self, steps: int) -> str:
        told = {"keep unedited": self.keep_unedited, "register": self.register, "parts": self.parts}
        left_out = "" if self.speed.is_exact else f", {_TEXT(self.speed.at(steps).as_record())}"
        return "".join(f', "{name}"' for name, is_on in told.items() if is_on) + left_out

    def of(self, item: EditItem, inputs: Sequence[str]) -> str:
        """The fingerprint of `item`; `inputs` are the sha256 of its `inputs`: the references, then the mask."""
        sampling, text = item.sampling, _TEXT
        quality = "null" if item.output[-4:].lower() == ".png" else '"source"' if self.quality is None else self.quality
        loras = ""
        if item.loras:
            loras = f'"loras": {text([[lora.sha256, lora.scale, lora.sigmas] for lora in item.loras])}, '
        size = "null" if item.size is None else f"[{item.size[0]}, {item.size[1]}]"
        box = "" if item.box is None else f'"box": {text(list(item.box))}, '
        precision = "" if self.precision == "exact" else f'"precision": {text(self.precision)}, '
        mask = ""
        if item.mask is not None:
            *inputs, sha256_of_mask = inputs
            mask = f'"mask": {text(sha256_of_mask)}, '
        # This JSON is written by hand, with sorted keys, because a resume makes one for each item.
        message = (
            f'{{"basesize": {item.basesize}, {box}"dtype": {text(self.dtype)}, '
            f'"inputs": [{", ".join([text(sha256) for sha256 in inputs])}], '
            f'"instruction": {text(item.instruction)}, {loras}{mask}"model": {text(self.model)}, '
            f'{precision}"quality": {quality}, '
            f'"result": ["{item.result_size}", "{item.fit}", "{self.metadata}"{self._more(sampling.steps)}], '
            f'"sampling": [{sampling.steps}, {float(sampling.guidance_scale)!r}, {sampling.seed}, '
            f"{text(sampling.negative_prompt)}], "
            f'"schedule": {text(self.schedule)}, "size": {size}, "version": {OUTPUT_VERSION}}}'
        )
        return hashlib.sha256(message.encode()).hexdigest()
