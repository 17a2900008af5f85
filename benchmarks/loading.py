"""From start to the first picture: a checkpoint of the published size in files, resident and within a budget.

    python benchmarks/loading.py --folder /tmp/full --json loading.json
    python benchmarks/loading.py --size tiny --device cpu --budgets 900MB --folder /tmp/tiny --json loading.json

The weights are random; they are written to the folder first (50 GB for the published size), and lie in the system's
cache of files then. Each measurement is a process of its own, with an edit of one step: seconds until the backend takes
its first batch, until the DiT computes, and until the picture. "disk" leaves the host so little memory that a part of
the blocks is read from the files in each step. `--cold` asks the system to forget the files before each measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from joyedit.job.pictures import machine_memory
from joyedit.job.results.report import host_peak_memory
from joyedit.job.run_config import RunConfig
from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.quantities import memory_bytes
from joyedit.runtime.bench.batch import BenchConfig, batch_of
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.runtime.tuning.device import DTYPES
from joyedit.weights import random
from joyedit.weights.defaults import nano_folder

SHARD = 4 << 30


def main() -> None:
    args = parse()
    if args.one is not None:
        print(json.dumps(measure(args, args.one)))
        return
    if not (args.folder / "model_index.json").exists():
        start = time.perf_counter()
        write(args)
        print(f"written in {time.perf_counter() - start:.0f} s", flush=True)
    rows = []
    for _ in range(args.rounds):
        for budget in ("resident", *args.budgets):
            if args.cold:
                forget(args.folder)
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--one", budget],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(rows[-1]), flush=True)
            args.json.write_text(json.dumps(rows, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for the checkpoint")
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="full")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--budgets", nargs="*", default=["24GB", "8GB"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cold", action="store_true", help="read from the disk, not from the system's cache")
    parser.add_argument("--one", help="measure one budget in this process")
    return parser.parse_args()


def forget(folder: Path) -> None:
    """Ask the system to drop the checkpoint's files from its cache. Dirty pages are written first."""
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write(args: argparse.Namespace) -> None:
    """A checkpoint in the diffusers layout; tokenizer, processor and schedule are nano's."""
    nano = nano_folder()
    for part in ("tokenizer", "processor", "scheduler"):
        shutil.copytree(nano / part, args.folder / part, dirs_exist_ok=True)
    known = json.loads((nano / "text_encoder" / "config.json").read_text())
    ids = {key: known[key] for key in ("image_token_id", "video_token_id")}
    dit, vae, text = random.configs(args.size)
    configs = {"transformer": transformer_config(dit), "vae": vae_config(vae), "text_encoder": text | ids}
    writers = {part: Shards(args.folder / part) for part in configs}
    names = {"transformer": "transformer", "vae": "vae", "text encoder": "text_encoder"}
    device = torch.device(args.device)

    def dtype_of(network: str, parameter: str) -> torch.dtype:
        return torch.bfloat16 if args.device == "cuda" else torch.float32

    random.build(
        args.size, device, dtype_of, ids, place=lambda *_: {name: writers[part].add for name, part in names.items()}
    )
    for part, config in configs.items():
        writers[part].close("model" if part == "text_encoder" else "diffusion_pytorch_model")
        (args.folder / part / "config.json").write_text(json.dumps(config))
    shutil.copy(nano / "model_index.json", args.folder)


def transformer_config(cfg: DiTConfig) -> dict[str, Any]:
    return {
        "hidden_size": cfg.hidden_size, "num_attention_heads": cfg.num_heads, "num_layers": cfg.num_layers,
        "text_dim": cfg.text_dim, "mlp_width_ratio": cfg.mlp_ratio, "in_channels": cfg.in_channels,
        "out_channels": cfg.out_channels, "patch_size": [1, *cfg.patch], "rope_dim_list": list(cfg.rope_dims),
        "theta": cfg.theta,
    }  # fmt: skip


def vae_config(cfg: VAEConfig) -> dict[str, Any]:
    return {
        "base_dim": cfg.base_dim, "decoder_base_dim": cfg.decoder_base_dim, "dim_mult": list(cfg.dim_mult),
        "num_res_blocks": cfg.num_res_blocks, "z_dim": cfg.z_dim,
    }  # fmt: skip


class Shards:
    """Writes the weights of one network, some gigabytes a file, and their index."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._files: list[list[str]] = []
        self._waiting: dict[str, Tensor] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        self._waiting[name] = tensor.cpu()
        if sum(t.nbytes for t in self._waiting.values()) > SHARD:
            self._write()

    def close(self, stem: str) -> None:
        self._write()
        names = [f"{stem}-{n + 1:05d}-of-{len(self._files):05d}.safetensors" for n in range(len(self._files))]
        for number, name in enumerate(names):
            (self._folder / f"{number}.safetensors").rename(self._folder / name)
        weight_map = {weight: name for weights, name in zip(self._files, names, strict=True) for weight in weights}
        (self._folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    def _write(self) -> None:
        if self._waiting:
            save_file(self._waiting, self._folder / f"{len(self._files)}.safetensors")
            self._files.append(list(self._waiting))
            self._waiting = {}


def measure(args: argparse.Namespace, budget: str) -> dict[str, Any]:
    """Load, and edit once with one step."""
    if args.device == "cuda":
        torch.zeros(1, device="cuda")  # the driver's own start is not ours
    if budget == "disk":
        machine_memory.available_bytes = lambda: 30 * 10**9  # of the 48 GB that would be pinned
    start = time.perf_counter()
    config = RunConfig(
        output=Path(),
        model=str(args.folder),
        device=args.device,
        compile="off",
        attention="sdpa",
        offload="none" if budget == "resident" else "auto",
        memory=None if budget == "resident" else memory_bytes("8GB" if budget == "disk" else budget),
        largest=1024 if args.size == "full" else 256,
    )
    backend = load_backend(config)
    row: dict[str, Any] = {"budget": budget, "weights": backend.info.placement, "first batch": _since(start)}
    basesize = 1024 if args.size == "full" else 256
    encoded = backend.encode(batch_of(BenchConfig(size=args.size, basesize=basesize, steps=1)))
    backend.ready()
    row["ready"] = _since(start)
    backend.decode(backend.denoise(encoded, lambda done, total: None))
    backend.synchronize()
    row["picture"] = _since(start)
    again = time.perf_counter()
    backend.decode(backend.denoise(encoded, lambda done, total: None))
    backend.synchronize()
    row["step and decoding"] = _since(again)
    row["dtype"] = str(DTYPES[backend.info.dtype])
    row["host peak"] = host_peak_memory()
    backend.close()
    return row


def _since(start: float) -> float:
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
