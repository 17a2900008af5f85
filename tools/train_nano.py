"""Train nano, the small checkpoint that really edits, from nothing but pictures drawn here.

    python tools/train_nano.py --work build/nano --out joyedit/nano

Two stages: the VAE as an autoencoder, then the text encoder and the DiT together on flow matching.
Each saves its state now and then in --work and goes on from there when the command is run again.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from joyedit.models.attention import TextLengths
from joyedit.models.compiled_blocks import CompiledBlocks
from joyedit.models.qwen_loading import load_tokenizer
from joyedit.models.qwen_prompts import MergedGrid
from joyedit.models.schedule import TRAIN_TIMESTEPS, sigmas
from joyedit.models.strategies import PlainBlocks
from joyedit.runtime.joyimage.conditioning import PromptBuilder
from joyedit.runtime.joyimage.denoise import Conditioning, denoise
from joyedit.runtime.joyimage.pixels import picture_of
from nano import encoder, networks, scenes, stream
from nano.data import TrainingBatch, collate, loader
from nano.edits import sample_edit, split_rng
from nano.export import export_diffusers
from nano.losses import Average, change_weight, reconstruction_loss, training_times
from nano.measure import measure
from nano.speed import BatchAttention, LaidOut, Recorded, fp32_streams
from nano.tokenizer import build_tokenizer
from nano.trainable import PackedBlocks, make_trainable
from nano.wording import EDITS, corpus

VOCABULARY = 700
LATENT_PICTURES = 512
VAE_DECAY, EDIT_DECAY = 0.998, 0.9995
LOG_EVERY, SAVE_EVERY = 100, 1000


def main() -> None:
    run(parse())


def run(args: argparse.Namespace) -> None:
    """The stages that are asked for, then the export."""
    trainer = Trainer(args)
    if args.stage in ("vae", "all"):
        trainer.train_vae()
    if args.stage in ("edit", "all"):
        trainer.train_edit()
    trainer.export(args.out)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/nano"), help="states and the log")
    parser.add_argument("--out", type=Path, default=Path("build/nano/checkpoint"), help="the checkpoint")
    parser.add_argument(
        "--start", type=Path, help="begin with the weights of this checkpoint; --stage edit keeps its VAE"
    )
    parser.add_argument("--stage", choices=("all", "vae", "edit", "export"), default="all")
    parser.add_argument("--vae-minutes", type=float, default=40, help="length of the VAE's training")
    parser.add_argument("--edit-minutes", type=float, default=180, help="length of the editing stage")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="minutes until this call stops")
    parser.add_argument("--vae-batch", type=int, default=16, help="pairs a step")
    parser.add_argument("--edit-batch", type=int, default=32, help="pairs a step")
    parser.add_argument("--repeat", type=int, default=1, help="updates for each new batch, the others on earlier ones")
    parser.add_argument("--keep", type=int, default=100, help="earlier batches that are kept for that")
    parser.add_argument("--vae-lr", type=float, default=4e-4)
    parser.add_argument("--edit-lr", type=float, default=1e-3)
    parser.add_argument("--blend", type=float, default=1.0, help="share of the new weights beside those of --start")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="compile the networks; the VAE on square ones")
    parser.add_argument("--steps", type=int, help="stop a stage after this many steps, for trials")
    return parser.parse_args(words)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A batch on the device. `source`: (B, H, W, 3) uint8. `before`, `after`: latents (B, C, h, w).
    `ids`, `kept`: as in `TrainingBatch`."""

    source: Tensor
    before: Tensor
    after: Tensor
    ids: Tensor
    kept: Tensor
    text: TextLengths


class Trainer:
    """Both stages share the networks, the clock, the log and the saved state."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = torch.device(args.device)
        self.deadline = time.monotonic() + 60 * args.stop_after
        args.work.mkdir(parents=True, exist_ok=True)
        self.tokenizer_folder = args.work / "tokenizer"
        if not (self.tokenizer_folder / "vocab.json").exists():
            if args.start is not None:
                shutil.copytree(args.start / "tokenizer", self.tokenizer_folder, dirs_exist_ok=True)
            else:
                build_tokenizer(list(corpus("train")), self.tokenizer_folder, vocab_size=VOCABULARY)
        self.tokenizer = load_tokenizer(self.tokenizer_folder)
        self.vae, self.dit, self.encoder = networks.build(self.tokenizer, args.seed)
        if args.start is not None:
            networks.load_exported(args.start, self.vae, self.dit, self.encoder)
        for network in (self.vae, self.dit, self.encoder):
            make_trainable(network)
            network.to(self.device)
        self.builder = PromptBuilder(self.tokenizer, self.encoder.image_token)
        self.encoder_tables: dict[MergedGrid, encoder.Tables] = {}
        self.fixed_shapes = False
        self.dit.strategy = CompiledBlocks if args.compile else PlainBlocks
        if self.device.type == "cuda":
            torch.set_num_threads(2)  # the cores are the loader's
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
            self.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            attend = BatchAttention(self.device)
            self.dit.strategy = PackedBlocks(attend, compiled=args.compile)
            fp32_streams(self.dit)
            self.fixed_shapes = attend.name != "padded"
            self.log(stage="start", attention=attend.name)

    def autocast(self) -> Any:
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()

    def log(self, **values: Any) -> None:
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()})
        print(line, flush=True)
        with open(self.args.work / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def batches(
        self,
        batch_size: int,
        start: int,
        seed: int,
        sizes: tuple[tuple[int, int], ...] | None = None,
    ) -> Iterator[TrainingBatch]:
        return loader(
            self.tokenizer_folder,
            self.encoder.image_token,
            batch_size,
            seed,
            start,
            self.args.workers,
            sizes or scenes.SIZES,
            self.fixed_shapes,
        )

    def over(self, state: Stage, minutes: float, first: int) -> bool:
        """Whether a stage, begun at step `first` in this call, has had its time, its steps or this call's."""
        steps = self.args.steps is not None and state.step - first >= self.args.steps
        return steps or state.seconds >= 60 * minutes or time.monotonic() > self.deadline

    def optimizer(
        self, parameters: list[torch.nn.Parameter], rate: float, betas: tuple[float, float], decay: float
    ) -> torch.optim.Optimizer:
        gpu = self.device.type == "cuda"
        # A rate that is a tensor can change in a recorded step.
        lr = torch.tensor(rate, device=self.device) if gpu else rate
        return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=decay, fused=gpu, capturable=gpu)

    def pixels(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W) in [-1, 1] on the device."""
        moved = pictures.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return moved.float() / 127.5 - 1

    # ----- stage 1

    def train_vae(self) -> None:
        """Stage 1, then the latents' statistics, which the DiT's latents are normalised by."""
        args = self.args
        average = Average([self.vae], decay=VAE_DECAY)
        optimizer = self.optimizer([*self.vae.parameters()], args.vae_lr, (0.9, 0.99), 0.0)
        state = Stage(args.work / "vae.pt", {"vae": self.vae}, average, optimizer)
        if state.done:
            average.swap()
            self.measure_latents(state)
            return
        loss_of = torch.compile(reconstruction_loss, dynamic=False) if args.compile else reconstruction_loss
        sizes = scenes.SIZES[:1] if args.compile else scenes.SIZES
        started = time.monotonic()
        before, first = state.seconds, state.step
        for batch in self.batches(args.vae_batch, state.step, args.seed + 1, sizes):
            if self.over(state, args.vae_minutes, first):
                break
            set_rate(optimizer, args.vae_lr, state.step, state.seconds / (60 * args.vae_minutes))
            pixels = torch.cat([self.pixels(batch.source), self.pixels(batch.target)])
            with self.autocast():
                loss, squared = loss_of(self.vae, pixels)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
            optimizer.step()
            average.update()
            state.step += 1
            state.seconds = before + time.monotonic() - started
            if state.step % LOG_EVERY == 0:
                psnr = -10 * math.log10(float(squared) / 4)
                self.log(stage="vae", step=state.step, seconds=state.seconds, loss=float(loss.detach()), psnr=psnr,
                         norm=float(norm))  # fmt: skip
            if state.step % SAVE_EVERY == 0:
                state.save()
        state.done = state.seconds >= 60 * args.vae_minutes
        state.save()
        average.swap()
        self.measure_latents(state)
        if state.done:
            self.check_vae()

    @torch.no_grad()
    def measure_latents(self, state: Stage) -> None:
        """Mean and deviation of each latent channel over LATENT_PICTURES training pictures, kept in the state."""
        if state.extra is None:
            found = []
            for batch in self.batches(8, 0, self.args.seed + 3):
                for picture in torch.cat([batch.source, batch.target]):
                    found.append(self.vae.moments(self.pixels(picture[None]))[0].transpose(0, 1).flatten(1))
                if len(found) >= LATENT_PICTURES:
                    break
            every = torch.cat(found, dim=1).double()
            state.extra = {"mean": every.mean(1).tolist(), "std": every.std(1).tolist()}
            if state.done:
                state.save()
        self.vae.cfg = networks.vae_config(state.extra["mean"], state.extra["std"])
        self.log(stage="latents", mean=[round(x, 3) for x in state.extra["mean"]],
                 std=[round(x, 3) for x in state.extra["std"]])  # fmt: skip

    def load_vae(self) -> None:
        """The VAE of stage 1, or that of the checkpoint that --start names, which stays as it is."""
        if self.args.start is not None:
            return
        average = Average([self.vae], decay=VAE_DECAY)
        state = Stage(self.args.work / "vae.pt", {"vae": self.vae}, average, None)
        if state.extra is None and state.step == 0:
            raise SystemExit(f"{self.args.work}: holds no trained VAE; run --stage vae first")
        average.swap()
        self.measure_latents(state)

    # ----- stage 2

    def train_edit(self) -> None:
        """Stage 2: velocity loss of the DiT and the text encoder together; the VAE stays as it is."""
        args = self.args
        if args.stage == "edit":
            self.load_vae()
        self.vae.requires_grad_(False).eval()
        encode = torch.compile(self.vae.encode, dynamic=True) if args.compile else self.vae.encode
        parameters = [*self.dit.parameters(), *self.encoder.parameters()]
        average = Average([self.dit, self.encoder], decay=EDIT_DECAY)
        optimizer = self.optimizer(parameters, args.edit_lr, (0.9, 0.98), 0.01)
        state = Stage(args.work / "edit.pt", {"dit": self.dit, "encoder": self.encoder}, average, optimizer)

        def update(inputs: Inputs) -> Tensor:
            optimizer.zero_grad(set_to_none=False)
            with self.autocast():
                loss = self.velocity_loss(inputs)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            average.update()
            return loss.detach()

        step: Callable[[Inputs], Tensor] = Recorded(update) if self.fixed_shapes else update
        started = time.monotonic()
        before, first = state.seconds, state.step
        kept: list[Inputs] = []
        meter: list[Tensor] = []
        rng = random.Random(f"again/{args.seed}/{state.step}")
        waited, prepared, idle_from = 0.0, 0.0, started
        for batch in self.batches(args.edit_batch, state.step, args.seed + 2):
            waited += time.monotonic() - idle_from
            if self.over(state, args.edit_minutes, first):
                break
            set_rate(optimizer, args.edit_lr, state.step * args.repeat, state.seconds / (60 * args.edit_minutes))
            fresh_from = time.monotonic()
            fresh = self.prepare(batch, encode)
            prepared += time.monotonic() - fresh_from
            kept = [*kept[-args.keep + 1 :], fresh]
            for inputs in (fresh, *rng.choices(kept, k=args.repeat - 1)):
                meter.append(step(inputs))
            state.step += 1
            state.seconds = before + time.monotonic() - started
            if state.step % LOG_EVERY == 0:
                loss = float(torch.stack(meter).mean())
                self.log(stage="edit", step=state.step, seconds=state.seconds, updates=len(meter), loss=loss,
                         rate=float(optimizer.param_groups[0]["lr"]), waited=waited, prepared=prepared)  # fmt: skip
                meter.clear()
                waited = prepared = 0.0
            if state.step % SAVE_EVERY == 0:
                state.save()
            idle_from = time.monotonic()
        state.done = state.seconds >= 60 * args.edit_minutes
        state.save()
        average.swap()
        if state.done:
            self.check()

    @torch.no_grad()
    def prepare(self, batch: TrainingBatch, encode: Callable[[Tensor], Tensor]) -> Inputs:
        """What the loss of a batch needs, on the device."""
        pixels = torch.cat([self.pixels(batch.source), self.pixels(batch.target)])
        if self.device.type == "cuda":
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            before, after = encode(pixels).float().chunk(2)
        source, ids, kept = (
            part.to(self.device, non_blocking=True) for part in (batch.source, batch.ids, batch.kept)
        )  # fmt: skip
        text = TextLengths.of(batch.lengths)
        if batch.layout is not None:
            text = LaidOut.packed(batch.layout.to(self.device), len(batch.lengths))
        return Inputs(source=source, before=before.clone(), after=after.clone(), ids=ids, kept=kept, text=text)

    def velocity_loss(self, inputs: Inputs) -> Tensor:
        """Weighted squared error of the predicted velocity, noise minus picture, at random times."""
        source, target = inputs.before, inputs.after
        txt = self.text_features(inputs.source, inputs.ids, inputs.kept)
        sigma = training_times(len(source), self.device)
        noise = torch.randn_like(target)
        level = sigma.view(-1, 1, 1, 1)
        mixed = (1 - level) * target + level * noise
        velocity = self.dit([mixed, source], sigma * TRAIN_TIMESTEPS, self.dit.embed_text(txt), inputs.text)
        error = F.mse_loss(velocity.float(), noise - target, reduction="none")
        return (error * change_weight(source, target)).mean()

    def text_features(self, source: Tensor, ids: Tensor, kept: Tensor) -> Tensor:
        """Packed features (T, D) of the prompts, through vision tower and language model."""
        ids, kept = ids.to(self.device), kept.to(self.device)
        patches, grid = networks.vision_patches(self.pixels(source))
        before = len(self.builder.prefix([0])) - 1
        if grid not in self.encoder_tables:
            self.encoder_tables[grid] = encoder.tables(self.encoder, grid, before, ids.shape[1])
        hidden = encoder.features(self.encoder, ids, patches, before, self.encoder_tables[grid])
        return hidden.flatten(0, 1).index_select(0, kept)

    # ----- a look at what was learnt

    @torch.no_grad()
    def check(self) -> None:
        """Log how many held-out edits of each kind happen, as told from the pictures."""
        count = 48 if self.device.type == "cuda" else 2
        levels = sigmas(int(networks.DEFAULTS["steps"]), "diffusers")
        happened: dict[str, float] = {}
        kept = []
        for number, kind in enumerate(EDITS):
            rng = split_rng("heldout", self.args.seed, number)
            size = scenes.SIZES[number % len(scenes.SIZES)]
            pairs = [sample_edit(rng, kind, "heldout", size) for _ in range(count)]
            batch = stream.collate(pairs)
            with self.autocast(), eager():
                texts = []
                for instructions in (batch.instructions, [""] * count):
                    one = collate(self.builder, batch, instructions)
                    features = self.text_features(one.source, one.ids, one.kept)
                    texts.append(features.split(one.lengths))
                before = self.vae.encode(self.pixels(one.source)).float()
                latents = denoise(
                    self.dit,
                    Conditioning(
                        noise=torch.randn_like(before),
                        references=(before,),
                        positive=texts[0],
                        negative=texts[1],
                        scales=(networks.DEFAULTS["guidance_scale"],) * count,
                    ),
                    levels,
                )
                pictures = [picture_of(picture) for picture in self.vae.decode(latents).float()]
            measured = [measure(pair, picture) for pair, picture in zip(pairs, pictures, strict=True)]
            happened[kind] = sum(found.happened for found in measured) / count
            kept += [found.psnr_unchanged for found in measured]
        self.log(stage="check", **happened, psnr_unchanged=statistics.median(kept))

    @torch.no_grad()
    def check_vae(self) -> None:
        """Log the median PSNR of reconstructed held-out sources, four of each size."""
        found = []
        for number, size in enumerate(scenes.SIZES):
            batch = next(stream.batches(number, 4, sizes=(size,), split="heldout"))
            pixels = self.pixels(torch.from_numpy(batch.source))
            error = (self.vae.decode(self.vae.encode(pixels)) - pixels).square().mean((1, 2, 3))
            found += (-10 * (error / 4).log10()).tolist()
        self.log(stage="check", vae_psnr=statistics.median(found), vae_psnr_least=min(found))

    # ----- export

    def export(self, folder: Path) -> None:
        """Write the averaged weights as a checkpoint in the diffusers layout."""
        if self.args.stage == "export":
            self.load_vae()
            average = Average([self.dit, self.encoder], decay=EDIT_DECAY)
            Stage(self.args.work / "edit.pt", {"dit": self.dit, "encoder": self.encoder}, average, None)
            average.swap()
        if self.args.start is not None and self.args.blend < 1:
            self.blend()
        export_diffusers(folder, self.dit, self.vae, self.encoder, defaults=networks.DEFAULTS)
        for name in ("tokenizer", "processor"):
            shutil.copytree(self.tokenizer_folder, folder / name, dirs_exist_ok=True)
        networks.save_processor(folder / "processor")
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        self.log(stage="export", megabytes=size / 1e6)

    @torch.no_grad()
    def blend(self) -> None:
        """Mix the DiT and the text encoder with those of --start: what a short training unlearns is kept."""
        vae, dit, encoder_ = networks.build(self.tokenizer, self.args.seed)
        networks.load_exported(self.args.start, vae, dit, encoder_)
        old = [*dit.parameters(), *encoder_.parameters()]
        for new, before in zip([*self.dit.parameters(), *self.encoder.parameters()], old, strict=True):
            new.lerp_(before.to(new.device), 1 - self.args.blend)


class Stage:
    """One stage's saved state: networks, average, optimizer, how far it is. Loaded when it is there."""

    def __init__(
        self,
        path: Path,
        modules: dict[str, torch.nn.Module],
        average: Average,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        self.path, self.modules, self.average, self.optimizer = path, modules, average, optimizer
        self.step, self.seconds, self.done = 0, 0.0, False
        self.extra: dict[str, list[float]] | None = None
        if path.exists():
            saved = torch.load(path, map_location="cpu", weights_only=True)
            for name, module in modules.items():
                module.load_state_dict(saved[name])
            for mine, value in zip(average.values, saved["average"], strict=True):
                mine.copy_(value)
            average.updates = saved["updates"]
            if optimizer is not None:
                optimizer.load_state_dict(saved["optimizer"])
            self.step, self.seconds, self.done = saved["step"], saved["seconds"], saved["done"]
            self.extra = saved["extra"]

    def save(self) -> None:
        """Replace the file in one step, so that a stop in the middle leaves the last state."""
        content: dict[str, Any] = {name: module.state_dict() for name, module in self.modules.items()}
        content |= {"average": self.average.values, "updates": self.average.updates, "step": self.step,
                    "seconds": self.seconds, "done": self.done, "extra": self.extra,
                    "optimizer": self.optimizer.state_dict() if self.optimizer else None}  # fmt: skip
        partial = self.path.with_suffix(".partial")
        torch.save(content, partial)
        partial.replace(self.path)


def eager() -> Any:
    """Within it compiled networks run as they are written: a short look is not worth a compilation."""
    return torch.compiler.set_stance("force_eager")


def set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, progress: float) -> None:
    """A short warm-up in steps, then a cosine over the stage's time down to 1%."""
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    rate = peak * cosine * min(1.0, (step + 1) / 300)
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


if __name__ == "__main__":
    main()
