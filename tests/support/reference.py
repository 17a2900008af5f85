"""diffusers' own pipelines over a checkpoint folder, as the reference of the parity tests.

Two things are put in their place: Qwen's processor class needs torchvision, so a stand-in expands
the picture placeholders with the same tokenizer and the PIL image processor; and the Edit pipeline
samples the posterior without a seed, so its mean is taken instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from joyedit.models.qwen_loading import load_image_processor


class Processor:
    """What Qwen3VLProcessor does for pictures: repeat each placeholder once a merged patch."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        self.images = load_image_processor(folder / "processor")

    def __call__(self, text: list[str], images: Any = None, padding: bool = True, return_tensors: str = "pt") -> Any:
        from transformers import BatchFeature

        out: dict[str, Any] = {}
        if images:
            seen = self.images(images=images, return_tensors="pt")
            counts = iter((seen["image_grid_thw"].prod(-1) // 4).tolist())
            text = ["".join(self._expand(part, counts) for part in self._split(line)) for line in text]
            out |= dict(seen)
        tokens = self.tokenizer(text, padding=padding, return_tensors="pt")
        out |= dict(tokens)
        if images:
            out["mm_token_type_ids"] = (
                tokens["input_ids"] == self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
            ).int()
        return BatchFeature(out)

    @staticmethod
    def _split(line: str) -> list[str]:
        parts = line.split("<|image_pad|>")
        return [piece for part in parts[:-1] for piece in (part, "<|image_pad|>")] + [parts[-1]]

    @staticmethod
    def _expand(part: str, counts: Any) -> str:
        return part * next(counts) if part == "<|image_pad|>" else part


def pipeline(folder: Path, edit_plus: bool = False, basesize: int = 256) -> Any:
    """The reference pipeline, fp32 on the CPU, choosing buckets of `basesize`."""
    import diffusers
    from diffusers.pipelines.joyimage import image_processor as reference_buckets
    from transformers import Qwen3VLForConditionalGeneration

    from joyedit.job.buckets import bucket_table

    kind = "JoyImageEditPlus" if edit_plus else "JoyImageEdit"
    processor = Processor(folder)
    vae = diffusers.AutoencoderKLWan.from_pretrained(folder / "vae")
    pipe = getattr(diffusers, f"{kind}Pipeline")(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        vae=vae,
        text_encoder=Qwen3VLForConditionalGeneration.from_pretrained(folder / "text_encoder").eval(),
        tokenizer=processor.tokenizer,
        transformer=getattr(diffusers, f"{kind}Transformer3DModel").from_pretrained(folder / "transformer"),
        processor=processor,
    )
    pipe.set_progress_bar_config(disable=True)
    # diffusers has a table for 1024 alone; a test on a CPU needs smaller pictures.
    reference_buckets.BUCKETS[basesize] = list(bucket_table(basesize))
    for name in ("vae_image_processor", "image_processor"):
        found = getattr(pipe, name, None)
        if found is not None and hasattr(found.config, "basesize"):
            found.register_to_config(basesize=basesize)
    encode = vae.encode

    def encode_mean(pixels: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        out = encode(pixels, *args, **kwargs)
        out.latent_dist.sample = out.latent_dist.mode
        return out

    vae.encode = encode_mean
    return pipe


def edit(pipe: Any, image: Image.Image | list[Image.Image] | None, prompt: str, **settings: Any) -> Image.Image:
    """One picture from the reference, seeded as joyedit seeds an item."""
    seed = settings.pop("seed", 42)
    settings.setdefault("generator", torch.Generator("cpu").manual_seed(seed))
    if type(pipe).__name__.startswith("JoyImageEditPlus"):
        settings["images"] = [image] if isinstance(image, list) else image
    else:
        settings["image"] = image
    out: Image.Image = pipe(prompt=prompt, **settings).images[0]
    return out
