"""joyedit against diffusers' JoyImageEditPipeline: the same weights, manifest, seeds and steps, in one process.

    python benchmarks/compare_diffusers.py --size small
    python benchmarks/compare_diffusers.py --size full --json compare.json

Both sides work on the same tensors. They alternate, round by round, and the ratios of each round
count, so that a busy machine slows all. On a GPU diffusers runs eager and with compiled blocks, joyedit as it
comes: with its fused kernels, or where those cannot serve, eager and compiled too. A stage that fails is told
and the next one goes on; --json FILE is written anew after each. Both edit from the same noise; how far
their networks and pictures are apart is told too (see differences.py).
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from differences import Difference, differences

from joyedit.job.buckets import bucket_table, choose_bucket
from joyedit.job.pictures.fitted import cropped_to
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import EditItem, Origin, Sampling, SizedItem
from joyedit.runtime.bench.batch import INSTRUCTIONS
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.denoise import initial_noise
from joyedit.runtime.joyimage.loading import random_backend
from joyedit.runtime.joyimage.pixels import pixels_of
from joyedit.runtime.protocol import ReadyBatch
from joyedit.runtime.tuning.compile import keep_compiled_code
from joyedit.runtime.tuning.device import DTYPES
from joyedit.runtime.tuning.matmul_peak import matmul_tflops
from joyedit.weights.defaults import nano_folder
from nano.export import dit_json, dit_tensors, vae_json, vae_tensors

OURS, THEIRS = "joyedit", "diffusers"
COMPILED = " compiled"
DIFFERENCES = "differences"

Side = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One stage: seconds of each side in each round, of its first pass, or why it failed."""

    stage: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    fault: str = ""

    def ratios(self) -> dict[str, list[float]]:
        """For each pair of sides: seconds of diffusers over seconds of joyedit, round by round."""
        return {
            f"{theirs} / {ours}": [b / a for a, b in zip(self.seconds[ours], self.seconds[theirs], strict=True)]
            for theirs in self.seconds
            for ours in self.seconds
            if theirs.startswith(THEIRS) and ours.startswith(OURS)
        }

    def rows(self) -> list[str]:
        if self.fault:
            return [f"{self.stage:<62} FAILED: {self.fault}"]
        rows = [f"{self.stage:<46} {name:<38} {statistics.median(s):>10.4f} s" for name, s in self.seconds.items()]
        for pair, found in self.ratios().items():
            spread = f"{min(found):.2f} to {max(found):.2f}"
            rows.append(f"{self.stage:<46} {pair:<38} {statistics.median(found):>10.2f}   {spread}")
        return rows

    def to_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "seconds": {name: statistics.median(s) for name, s in self.seconds.items()},
            "rounds": self.seconds,
            "first": self.first,
            "ratios": {p: {"median": statistics.median(r), "rounds": r} for p, r in self.ratios().items()},
            "fault": self.fault,
        }


def main() -> int:
    args = parse()
    run = RunConfig(output=Path(), device=args.device, dtype=args.dtype, attention=args.attention, compile="off")
    if args.compiled:  # the blocks are compiled when a stage asks for it
        keep_compiled_code(replace(run, compile="on"))
    ours = random_backend(args.size, run)
    work = Work(ours, reference_pipeline(ours, args.basesize), args)
    print(f"{ours.info.device}, {ours.info.dtype}, attention {ours.info.attention},"
          f" {'fused' if ours.info.fused else 'plain'} kernels, torch {torch.__version__}")  # fmt: skip
    print(f"random {args.size}, base {args.basesize}", *ours.info.notes, sep="\n", flush=True)
    content: dict[str, Any] = {
        "date": str(date.today()),
        "machine": platform.machine(),
        "device": ours.info.device,
        "dtype": ours.info.dtype,
        "attention": ours.info.attention,
        "fused": ours.info.fused,
        "attention_rates": dict(ours.attention.rates),
        "torch": torch.__version__,
        "arguments": {k: str(v) for k, v in vars(args).items()},
        "matmul_tflops": matmul_tflops(ours.device, DTYPES[ours.info.dtype]),
        "stages": [],
        DIFFERENCES: [],
    }
    done: list[Comparison] = []
    for name, sides, rounds, warm_up in work.stages():
        if args.only and not any(word in name for word in args.only):
            continue
        done.append(compare(name, sides, ours.synchronize, rounds, warm_up))
        print(*done[-1].rows(), sep="\n", flush=True)
        content["stages"].append(done[-1].to_dict())
        content["levels_apart"] = work.levels_apart()
        content["flat_pictures"] = work.flat_pictures()
        content["peak_memory"] = ours.peak_memory()
        write(content, args.json)
    if work.edited:
        print("finished pictures, levels apart:", content["levels_apart"])
        print("flat pictures (a sign of NaN):", content["flat_pictures"])
    print(f"peak memory: {ours.peak_memory() or 0:,} bytes")
    message = [] if args.only and DIFFERENCES not in args.only else list(work.differences())
    for difference in message:
        print(difference.row())
    content[DIFFERENCES] = [asdict(difference) for difference in message]
    write(content, args.json)
    return 1 if any(part.fault for part in (*done, *message)) else 0


def write(content: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="small")
    parser.add_argument("--basesize", type=int, help="1024 for full, else 256")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edit-rounds", type=int, help="rounds of whole edits; 1 for full, else as --rounds")
    parser.add_argument("--steps", type=int, help="of a whole edit; 40 for full, else 8")
    parser.add_argument("--steps-a-round", type=int, default=3, help="steps that are timed together")
    parser.add_argument("--pictures", type=int, help="of the whole edits; 1 for full, else 4")
    parser.add_argument("--instructions", type=int, help="a picture; 1 for full, else 4")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--attention", default="auto")
    parser.add_argument(
        "--compiled", action=argparse.BooleanOptionalAction, default=None,
        help="diffusers also with compiled blocks, and joyedit where it has no fused kernels; on a GPU by default",
    )  # fmt: skip
    parser.add_argument("--only", nargs="*", help="stages whose name holds one of these, and differences")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    full = args.size == "full"
    args.basesize = args.basesize or (1024 if full else 256)
    args.edit_rounds = args.edit_rounds or (1 if full else args.rounds)
    args.steps = args.steps or (40 if full else 8)
    args.pictures = args.pictures or (1 if full else 4)
    args.instructions = args.instructions or (1 if full else 4)
    if args.compiled is None:
        args.compiled = args.device != "cpu" and torch.cuda.is_available()
    return args


def compare(
    stage: str, sides: dict[str, Side], synchronize: Callable[[], None], rounds: int, warm_up: dict[str, Side]
) -> Comparison:
    """All sides twice to warm up, then `rounds` times in turn."""

    def seconds(call: Side) -> float:
        synchronize()
        start = time.perf_counter()
        call()
        synchronize()
        return time.perf_counter() - start

    found = Comparison(stage=stage)
    try:
        for name, call in warm_up.items():
            found.first[name] = seconds(call)
            seconds(call)  # the second length of a text may compile once more
        gc.collect()
        for _ in range(rounds):
            for name, call in sides.items():
                found.seconds.setdefault(name, []).append(seconds(call))
    except Exception as error:  # of either side: the other stages still count
        message = (str(error).strip() or "no message").splitlines()[0][:300]
        return Comparison(stage=stage, first=found.first, fault=f"{type(error).__name__}: {message}")
    return found


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
    assert transformer.proj_out.weight.data_ptr() == ours.dit.proj_out.weight.data_ptr(), "weights are not shared"
    kernels = {name: tensor.to(device, dtype) for name, tensor in vae_tensors(ours.vae).items()}
    vae.load_state_dict(kernels, assign=True)
    encoder.model = as_written(ours.text_encoder.model)
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


def as_written(model: Any) -> Any:
    """Our vision-language model as transformers writes it, on the same tensors."""
    with torch.device("meta"):
        twin = type(model)._from_config(model.config)
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.language_model.rotary_emb = model.language_model.rotary_emb  # no checkpoint holds its frequencies
    twin.visual.rotary_pos_emb = model.visual.rotary_pos_emb
    return twin


def plain(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_")}


class Work:
    """The same work for both sides: random pictures, fixed instructions, seeds by item."""

    def __init__(self, ours: JoyImageBackend, theirs: Any, args: argparse.Namespace) -> None:
        self.ours, self.theirs, self.args = ours, theirs, args
        base = self.basesize = args.basesize
        rng = np.random.default_rng(0)
        blotches = [rng.integers(0, 256, (base // 8, base // 8, 3), dtype=np.uint8) for _ in range(args.pictures)]
        self.pictures = [Image.fromarray(b).resize((base, base), Image.Resampling.BICUBIC) for b in blotches]
        self.texts = [INSTRUCTIONS[i % 4] for i in range(args.instructions)]
        self.bucket = choose_bucket((base, base), base)
        self.fitted = [cropped_to(picture, self.bucket) for picture in self.pictures]
        self.edited: dict[str, list[Image.Image]] = {}
        kinds = theirs.transformer._repeated_blocks
        self.their_blocks = [m for m in theirs.transformer.modules() if type(m).__name__ in kinds]
        if args.compiled:
            theirs.transformer.compile_repeated_blocks()
        self.their_compiled = [block._compiled_call_impl for block in self.their_blocks]
        with torch.inference_mode():
            self.encoded = ours.encode(self.batch([(0, self.texts[0])]))
        self.latent = self.encoded.conditioning.noise

    def stages(self) -> list[tuple[str, dict[str, Side], int, dict[str, Side]]]:
        """Name, sides, rounds, and what warms the sides up."""
        args, rounds = self.args, self.args.rounds
        plain = {
            "conditioning, 4 instructions": self.sides(self.our_texts, self.their_texts, 4),
            "conditioning, 1 instruction": self.sides(self.our_texts, self.their_texts, 1),
            "VAE encode": self.sides(self.our_vae_encode, self.their_vae_encode),
            "VAE decode": self.sides(self.our_vae_decode, self.their_vae_decode),
            f"DiT, {args.steps_a_round} steps": self.both_ways(self.our_steps, self.their_steps),
        }
        edits = self.both_ways(partial(self.our_run, self.pairs()), partial(self.their_run, self.pairs()))
        short = self.both_ways(partial(self.our_run, self.pairs()[:1], 1), partial(self.their_run, self.pairs()[:1], 1))
        whole = f"{args.pictures} x {args.instructions} edits, {args.steps} steps"
        return [
            *((name, sides, rounds, sides) for name, sides in plain.items()),
            (whole, edits, args.edit_rounds, short),
        ]

    def sides(self, ours: Callable[..., Any], theirs: Callable[..., Any], *values: Any) -> dict[str, Side]:
        return {OURS: lambda: ours(*values), THEIRS: lambda: theirs(*values)}

    def both_ways(self, ours: Callable[..., Any], theirs: Callable[..., Any]) -> dict[str, Side]:
        """Both sides as they come, and with compiled blocks where that was asked for; they hear their name as `side`.

        Ours come with fused kernels where those run, and then nothing is left to compile.
        """
        fused = self.ours.info.fused

        def our(compiled: bool) -> None:
            if compiled:
                self.ours.dit.compile_blocks()
            else:
                (self.ours.dit.fuse_blocks if fused else self.ours.dit.plain_blocks)()
            ours(side=OURS + COMPILED * compiled)

        def their(compiled: bool) -> None:
            for block, call in zip(self.their_blocks, self.their_compiled, strict=True):
                block._compiled_call_impl = call if compiled else None
            theirs(side=THEIRS + COMPILED * compiled)

        found: dict[str, Side] = {OURS: lambda: our(False), THEIRS: lambda: their(False)}
        if self.args.compiled:
            found[THEIRS + COMPILED] = lambda: their(True)
        if self.args.compiled and not fused:
            found[OURS + COMPILED] = lambda: our(True)
        return found

    def batch(self, pairs: list[tuple[int, str]]) -> ReadyBatch:
        items = tuple(
            SizedItem(
                item=EditItem(
                    id=str(n), images=(Path(str(p)),), instruction=text, basesize=self.basesize, size=None,
                    sampling=Sampling(steps=self.args.steps, seed=n), output=f"{n}.png", origin=Origin(file="compare"),
                ),
                target=self.bucket,
                references=(self.bucket,),
            )
            for n, (p, text) in enumerate(pairs)
        )  # fmt: skip
        return ReadyBatch.of(items, [(self.fitted[p],) for p, _ in pairs])

    # Each pair does what the side's own whole call does in that stage.

    @torch.inference_mode()
    def our_texts(self, count: int) -> None:
        conditioner = self.ours.conditioner
        prefix = conditioner.read_prefix([conditioner.see(self.fitted[0])])
        conditioner.read_suffixes(prefix, [*self.texts[:count], ""], True)

    @torch.no_grad()
    def their_texts(self, count: int) -> None:
        for text in self.texts[:count]:
            for prompt in (text, ""):
                self.theirs.encode_prompt_multiple_images(
                    [prompt], device=self.ours.device, images=self.fitted[0], max_sequence_length=4096
                )

    @torch.inference_mode()
    def our_vae_encode(self) -> None:
        self.ours.vae.encode(pixels_of(self.fitted[0], self.ours.device))

    @torch.no_grad()
    def their_vae_encode(self) -> None:
        height, width = self.bucket
        self.theirs.prepare_latents(
            1, 16, height, width, 1, self.ours.vae.dtype, self.ours.device, torch.Generator().manual_seed(0),
            image=[self.fitted[0]],
        )  # fmt: skip

    @torch.inference_mode()
    def our_vae_decode(self) -> None:
        self.ours.decode(self.latent)

    @torch.no_grad()
    def their_vae_decode(self) -> None:
        both = torch.cat([self.latent, self.latent])[:, :, None].to(self.ours.vae.dtype)  # reference and target
        image = self.theirs.vae.decode(self.theirs.denormalize_latents(both), return_dict=False)[0]
        self.theirs.image_processor.postprocess(image[1:, :, 0].float(), output_type="pil")

    @torch.inference_mode()
    def our_steps(self, side: str) -> None:
        few = type(self.encoded)(conditioning=self.encoded.conditioning, steps=self.args.steps_a_round)
        self.ours.denoise(few, lambda done, total: None)

    @torch.no_grad()
    def their_steps(self, side: str) -> None:
        """The body of the pipeline's loop."""
        given, dtype = self.encoded.conditioning, self.ours.vae.dtype
        # Copies: the pipeline knows no tensors of inference mode, and compiled code would tell them apart.
        texts = [text[None].clone() for text in (given.positive[0], given.negative[0])]
        latents = torch.stack([given.references[0], given.noise], dim=1)[:, :, :, None].to(dtype)
        timestep = torch.full((1,), 1000.0, device=self.ours.device)
        for _ in range(self.args.steps_a_round):
            latents[:, 0, :, 0] = given.references[0]
            outs = [
                self.theirs.transformer(
                    hidden_states=latents, timestep=timestep, encoder_hidden_states=text, return_dict=False
                )[0]
                for text in texts
            ]
            mixed = outs[1] + 4.0 * (outs[0] - outs[1])
            length = torch.norm(mixed, dim=2, keepdim=True).clamp_min(1e-6)
            latents = latents - 0.1 * mixed * (torch.norm(outs[0], dim=2, keepdim=True) / length)

    def our_run(self, pairs: list[tuple[int, str]], steps: int = 0, *, side: str) -> None:
        """As the run loop does it: item by item, with the cache that a run has."""
        self.ours.cache.clear()
        done = []
        for n, (p, text) in enumerate(pairs):
            batch = self.batch([(p, text)])
            sampling = Sampling(steps=steps or self.args.steps, seed=n)
            object.__setattr__(batch.items[0].item, "sampling", sampling)
            latents = self.ours.denoise(self.ours.encode(batch), lambda done, total: None)
            done += self.ours.decode(latents)
        self.edited[side] = done

    def their_run(self, pairs: list[tuple[int, str]], steps: int = 0, *, side: str) -> None:
        self.edited[side] = [
            self.theirs(
                image=self.pictures[p], prompt=text, num_inference_steps=steps or self.args.steps, guidance_scale=4.0,
                latents=self.noise(n),
            ).images[0]
            for n, (p, text) in enumerate(pairs)
        ]  # fmt: skip

    def noise(self, seed: int) -> torch.Tensor:
        """What joyedit starts from: (1, 1, C, 1, h, w), fp32. In bf16, some releases of torch draw other numbers."""
        side = self.ours.vae.cfg.spatial_factor
        height, width = self.bucket
        return initial_noise(seed, self.ours.vae.cfg.z_dim, height // side, width // side)[:, None, :, None]

    def differences(self) -> Iterator[Difference]:
        """How far the sides' networks, not compiled, are apart, for the first picture and instruction."""
        for block in self.their_blocks:
            block._compiled_call_impl = None
        return differences(self.ours, self.theirs, self.encoded.conditioning, self.fitted[0], self.texts[0])

    def pairs(self) -> list[tuple[int, str]]:
        return [(p, text) for p in range(len(self.pictures)) for text in self.texts]

    def levels_apart(self) -> dict[str, dict[str, float]]:
        """Largest and mean difference between the sides' finished pictures, in 8-bit levels, by pair of sides."""
        whole = max(map(len, self.edited.values()), default=0)  # a side that failed has fewer, of a warm-up
        arrays = {s: np.stack(pictures).astype(int) for s, pictures in self.edited.items() if len(pictures) == whole}
        found = {}
        for one, other in itertools.combinations(arrays, 2):
            apart = np.abs(arrays[one] - arrays[other])
            found[f"{one}, {other}"] = {"most": float(apart.max()), "mean": round(float(apart.mean()), 3)}
        return found

    def flat_pictures(self) -> dict[str, int]:
        """How many finished pictures of each side are one colour."""
        return {side: sum(bool(np.asarray(p).std() < 1) for p in found) for side, found in self.edited.items()}


if __name__ == "__main__":
    sys.exit(main())
