"""joyedit against diffusers' JoyImageEditPipeline: the same weights, manifest, seeds and steps, in one process.

    python benchmarks/compare_diffusers.py --size small --rounds 5
    python benchmarks/compare_diffusers.py --size full --device cuda --compiled

Both sides work on the same tensors. They alternate, round by round, and the ratio of each round
counts, so that a busy machine slows both. Prints a table and, with --json FILE, writes everything.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from joyedit.job.buckets import bucket_table, choose_bucket
from joyedit.job.images import fit
from joyedit.job.spec import Batch, EditItem, Origin, RunConfig, Sampling, SizedItem
from joyedit.runtime.backend import BatchInput
from joyedit.runtime.bench import INSTRUCTIONS
from joyedit.runtime.ceiling import matmul_tflops
from joyedit.runtime.device import DTYPES
from joyedit.runtime.joyimage import JoyImageBackend, random_backend
from joyedit.weights.defaults import nano_folder
from joyedit.weights.export import dit_json, dit_tensors, vae_json, vae_tensors


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One stage on both sides: median seconds, and the ratio theirs / ours of each round."""

    stage: str
    ours: float
    theirs: float
    ratios: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def row(self) -> str:
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        return f"{self.stage:<42} {self.theirs:>10.4f} {self.ours:>10.4f} {self.ratio:>8.2f}   {spread}"


def main() -> None:
    args = parse()
    run = RunConfig(output=Path(), device=args.device, dtype=args.dtype, compile=args.compile)
    ours = random_backend(args.size, run)
    theirs = reference_pipeline(ours, args.basesize)
    if args.compiled:
        theirs.transformer.compile_repeated_blocks()
    work = Work(ours, theirs, args.basesize, args.steps, args.pictures, args.instructions)
    stages: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        ("conditioning, 4 instructions a picture", lambda: work.our_texts(4), lambda: work.their_texts(4)),
        ("conditioning, 1 instruction a picture", lambda: work.our_texts(1), lambda: work.their_texts(1)),
        ("VAE encode", work.our_vae_encode, work.their_vae_encode),
        ("VAE decode", work.our_vae_decode, work.their_vae_decode),
        ("DiT step with guidance", work.our_step, work.their_step),
        (
            f"end to end, {args.pictures} pictures x {args.instructions} instructions, {args.steps} steps",
            work.our_run,
            work.their_run,
        ),
    ]
    found = [compare(name, a, b, ours.synchronize, args.rounds) for name, a, b in stages]
    difference = work.difference()
    info, mode = ours.info, "compiled" if args.compiled else "eager"
    print(f"\n{date.today()}, {info.device}, {info.dtype}, attention {info.attention}, torch {torch.__version__}")
    print(f"random {args.size}, base {args.basesize}, {args.rounds} alternating rounds, diffusers {mode}")
    print(f"\n{'stage':<42} {'diffusers':>10} {'joyedit':>10} {'ratio':>8}   spread of the ratio")
    for comparison in found:
        print(comparison.row())
    print(f"\nlargest difference of the finished pictures: {difference} of 255 levels")
    if args.json:
        content = {
            "date": str(date.today()),
            "machine": platform.machine(),
            "device": ours.info.device,
            "dtype": ours.info.dtype,
            "attention": ours.info.attention,
            "torch": torch.__version__,
            "arguments": {k: str(v) for k, v in vars(args).items()},
            "matmul_tflops": matmul_tflops(ours.device, DTYPES[ours.info.dtype]),
            "stages": [asdict(c) | {"ratio": c.ratio} for c in found],
            "levels_apart": difference,
            "peak_memory": ours.peak_memory(),
        }
        args.json.write_text(json.dumps(content, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="small")
    parser.add_argument("--basesize", type=int, help="1024 for full, else 256")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--instructions", type=int, default=4)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--compile", action="store_true", help="joyedit with compiled blocks")
    parser.add_argument("--compiled", action="store_true", help="diffusers with compiled blocks")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.basesize = args.basesize or (1024 if args.size == "full" else 256)
    return args


def compare(
    stage: str, ours: Callable[[], Any], theirs: Callable[[], Any], synchronize: Callable[[], None], rounds: int
) -> Comparison:
    """Both sides once to warm up, then `rounds` times in turn."""

    def seconds(call: Callable[[], Any]) -> float:
        synchronize()
        start = time.perf_counter()
        call()
        synchronize()
        return time.perf_counter() - start

    seconds(ours), seconds(theirs)
    gc.collect()
    mine, other = [], []
    for _ in range(rounds):
        mine.append(seconds(ours))
        other.append(seconds(theirs))
    print(f"{stage}: done", file=sys.stderr, flush=True)
    return Comparison(
        stage=stage,
        ours=statistics.median(mine),
        theirs=statistics.median(other),
        ratios=[b / a for a, b in zip(mine, other, strict=True)],
    )


def reference_pipeline(ours: JoyImageBackend, basesize: int) -> Any:
    """diffusers' pipeline over our weights. Only what the layouts shape otherwise is copied."""
    import diffusers
    from diffusers.pipelines.joyimage import image_processor as buckets
    from transformers import Qwen3VLForConditionalGeneration

    from support.reference import Processor

    device = ours.device
    with torch.device("meta"):
        transformer = diffusers.JoyImageEditTransformer3DModel(**plain(dit_json(ours.dit.cfg)))
        vae = diffusers.AutoencoderKLWan(**plain(vae_json(ours.vae.cfg)))
        encoder = Qwen3VLForConditionalGeneration._from_config(ours.text_encoder.config)
    transformer.load_state_dict(dit_tensors(ours.dit), assign=True)
    dtype = ours.vae.dtype
    kernels = {name: tensor.to(device, dtype) for name, tensor in vae_tensors(ours.vae).items()}
    vae.load_state_dict(kernels, assign=True)
    encoder.model = ours.text_encoder.model
    head = encoder.lm_head
    encoder.lm_head = torch.nn.Linear(head.in_features, head.out_features, bias=False, device=device, dtype=dtype)
    pipe = diffusers.JoyImageEditPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=ours.shift),
        vae=vae.eval(),
        text_encoder=encoder.eval(),
        tokenizer=ours.conditioner.builder.tokenizer,
        transformer=transformer.eval(),
        processor=Processor(nano_folder()),
    )
    pipe.set_progress_bar_config(disable=True)
    buckets.BUCKETS[basesize] = list(bucket_table(basesize))
    pipe.vae_image_processor.register_to_config(basesize=basesize)
    encode = vae.encode

    def encode_mean(pixels: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        out = encode(pixels, *args, **kwargs)
        out.latent_dist.sample = out.latent_dist.mode  # its own sample has no seed: no two runs agree
        return out

    vae.encode = encode_mean
    return pipe


def plain(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_")}


class Work:
    """The same work for both sides: random pictures, fixed instructions, seeds by item."""

    def __init__(
        self, ours: JoyImageBackend, theirs: Any, basesize: int, steps: int, pictures: int, instructions: int
    ) -> None:
        self.ours, self.theirs, self.steps = ours, theirs, steps
        self.basesize = basesize
        rng = np.random.default_rng(0)
        blotches = [rng.integers(0, 256, (basesize // 8, basesize // 8, 3), dtype=np.uint8) for _ in range(pictures)]
        self.pictures = [Image.fromarray(b).resize((basesize, basesize), Image.Resampling.BICUBIC) for b in blotches]
        self.texts = [INSTRUCTIONS[i % 4] for i in range(instructions)]
        self.bucket = choose_bucket((basesize, basesize), basesize)
        self.fitted = [fit(picture, self.bucket) for picture in self.pictures]
        with torch.inference_mode():
            self.encoded = ours.encode(self.batch([(0, self.texts[0])]))
        self.latent = self.encoded.conditioning.noise

    def batch(self, pairs: list[tuple[int, str]]) -> BatchInput:
        items = tuple(
            SizedItem(
                item=EditItem(
                    id=str(n), images=(Path(str(p)),), instruction=text, sampling=Sampling(steps=self.steps, seed=n),
                    basesize=self.basesize, size=None, output=f"{n}.png", origin=Origin(file="compare"),
                ),
                target=self.bucket,
                references=(self.bucket,),
            )
            for n, (p, text) in enumerate(pairs)
        )  # fmt: skip
        return BatchInput(batch=Batch(index=0, items=items), pictures=tuple((self.fitted[p],) for p, _ in pairs))

    # Each pair does what the side's own whole call does in that stage.

    @torch.inference_mode()
    def our_texts(self, count: int) -> None:
        conditioner = self.ours.conditioner
        opening = conditioner.open([conditioner.see(self.fitted[0])])
        conditioner.follow(opening, [*self.texts[:count], ""], True)

    @torch.inference_mode()
    def their_texts(self, count: int) -> None:
        for text in self.texts[:count]:
            for prompt in (text, ""):
                self.theirs.encode_prompt_multiple_images(
                    [prompt], device=self.ours.device, images=self.fitted[0], max_sequence_length=4096
                )

    @torch.inference_mode()
    def our_vae_encode(self) -> None:
        from joyedit.runtime.conditioning import pixels_of

        self.ours.vae.encode(pixels_of(self.fitted[0], self.ours.device))

    @torch.inference_mode()
    def their_vae_encode(self) -> None:
        height, width = self.bucket
        self.theirs.prepare_latents(
            1, 16, height, width, 1, self.ours.vae.dtype, self.ours.device, torch.Generator().manual_seed(0),
            image=[self.fitted[0]],
        )  # fmt: skip

    @torch.inference_mode()
    def our_vae_decode(self) -> None:
        self.ours.decode(self.latent)

    @torch.inference_mode()
    def their_vae_decode(self) -> None:
        both = torch.cat([self.latent, self.latent])[:, :, None].to(self.ours.vae.dtype)  # reference and target
        image = self.theirs.vae.decode(self.theirs.denormalize_latents(both), return_dict=False)[0]
        self.theirs.image_processor.postprocess(image[1:, :, 0].float(), output_type="pil")

    @torch.inference_mode()
    def our_step(self) -> None:
        one = type(self.encoded)(conditioning=self.encoded.conditioning, steps=1)
        self.ours.denoise(one, lambda done, total: None)

    @torch.inference_mode()
    def their_step(self) -> torch.Tensor:
        """The body of the pipeline's loop."""
        given, dtype = self.encoded.conditioning, self.ours.vae.dtype
        latents = torch.stack([given.references[0], given.noise], dim=1)[:, :, :, None].to(dtype)
        timestep = torch.full((1,), 1000.0, device=self.ours.device)
        outs = [
            self.theirs.transformer(
                hidden_states=latents, timestep=timestep, encoder_hidden_states=text[None], return_dict=False
            )[0]
            for text in (given.positive[0], given.negative[0])
        ]
        mixed = outs[1] + 4.0 * (outs[0] - outs[1])
        length = torch.norm(mixed, dim=2, keepdim=True).clamp_min(1e-6)
        return latents - 0.1 * mixed * (torch.norm(outs[0], dim=2, keepdim=True) / length)

    def our_run(self) -> list[Image.Image]:
        """As the run loop does it: item by item, with the cache that a run has."""
        self.ours.cache.clear()
        done = []
        for n, (p, text) in enumerate(self.pairs()):
            batch = self.batch([(p, text)])
            object.__setattr__(batch.batch.items[0].item, "sampling", Sampling(steps=self.steps, seed=n))
            latents = self.ours.denoise(self.ours.encode(batch), lambda done, total: None)
            done += self.ours.decode(latents)
        return done

    def their_run(self) -> list[Image.Image]:
        return [self.their_edit(n, p, text) for n, (p, text) in enumerate(self.pairs())]

    def their_edit(self, seed: int, picture: int, text: str) -> Image.Image:
        generator = torch.Generator("cpu").manual_seed(seed)
        out: Image.Image = self.theirs(
            image=self.pictures[picture], prompt=text, num_inference_steps=self.steps, guidance_scale=4.0,
            generator=generator,
        ).images[0]  # fmt: skip
        return out

    def pairs(self) -> list[tuple[int, str]]:
        return [(p, text) for p in range(len(self.pictures)) for text in self.texts]

    def difference(self) -> int:
        """Largest difference in 8-bit levels over the finished pictures of one picture's instructions."""
        pairs = self.pairs()[: len(self.texts)]
        ours = self.our_run()[: len(pairs)]
        theirs = [self.their_edit(n, p, text) for n, (p, text) in enumerate(pairs)]
        levels = [
            np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max()
            for a, b in zip(ours, theirs, strict=True)
        ]
        return int(max(levels))


if __name__ == "__main__":
    main()
