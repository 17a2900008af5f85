"""The DiT with 8-bit layers against the exact one: how far apart, how fast, how much memory. One GPU, one process.

    PYTHONPATH=$PWD python benchmarks/float8.py --size full
    PYTHONPATH=$PWD python benchmarks/float8.py --size tiny --device cpu     # the same script, without a GPU

It builds the DiT with random weights and measures: each kernel against fp32; the velocity against that of fp32 (the
same weights, widened block by block), with all layers quantised, with each kind of layer alone and with each left out;
the streams behind each block; step times of the exact and the quantised DiT, taking turns; memory.

Random weights hide what real ones have: channels with far larger activations than others. A second case plants some:
in the modulation (inputs of QKV and of the MLP), in the MLP's hidden channels, and in the attention's values. Neither
case says what pictures lose; only real weights do.

Every section prints what it finds and survives the failure of others. A table comes last; with OUT set, all figures go
to $OUT/float8.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from joyedit.models import quantised  # noqa: E402
from joyedit.models.attention import BACKENDS, TextLengths  # noqa: E402
from joyedit.models.blocks import NORM_EPS, DoubleBlock  # noqa: E402
from joyedit.models.config import DiTConfig  # noqa: E402
from joyedit.models.dit import DiT  # noqa: E402
from joyedit.models.quantised import QuantisedLinear  # noqa: E402
from joyedit.models.quantised_blocks import LAYERS, put_linear  # noqa: E402
from joyedit.models.quantised_rows import FP8, INT8, quantise  # noqa: E402
from joyedit.models.schedule import sigmas  # noqa: E402
from joyedit.models.strategies import ForwardPass, RunBlock, Strategy  # noqa: E402
from joyedit.runtime.joyimage.denoise import Conditioning, denoise  # noqa: E402
from joyedit.runtime.placement.packed import assign  # noqa: E402
from joyedit.runtime.tuning.attention_choice import choose_attention  # noqa: E402
from joyedit.runtime.tuning.device import choose_device  # noqa: E402
from joyedit.runtime.tuning.timing import synchronize  # noqa: E402
from joyedit.weights.random import configs  # noqa: E402

FEW = 4
"""Steps that are timed together."""
TIMESTEPS = (950.0, 600.0, 150.0)
SHORT = {"qkv": "qkv", "0.proj": "mlp1", "attn_proj": "proj", "2": "mlp2"}


def main() -> int:
    args = parse()
    device = choose_device(args.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    print(f"{_name(device)}, torch {torch.__version__}, {args.size}, {dtype}", flush=True)
    bench = Bench(args, device, dtype)
    sections: dict[str, Callable[[], None]] = {
        "kernels": bench.kernels,
        "products": bench.products,
        "time": bench.times,
        "profile": bench.profile,
        "company": bench.company,
        "velocity": partial(bench.velocities, "random"),
        "outliers": partial(bench.velocities, "outliers"),
    }
    failed = 0
    for name, section in sections.items():
        if args.sections and name not in args.sections:
            continue
        begin = time.monotonic()
        try:
            with torch.inference_mode():
                section()
        except Exception:
            failed += 1
            bench.found["failed"][name] = traceback.format_exc()
            print(f"!!! {name} failed\n{traceback.format_exc()}", flush=True)
        print(f"--- {name}: {time.monotonic() - begin:.1f} s", flush=True)
        bench.keep()
    bench.table()
    return min(1, failed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="full")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--basesize", type=int, help="pixels; 1024 for full, else 128")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sections", nargs="*", help="all by default")
    args = parser.parse_args()
    args.basesize = args.basesize or (1024 if args.size == "full" else 128)
    return args


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def short(layer: str) -> str:
    """`img_mlp2` for `img_mlp.net.2`."""
    stream = "img" if "img" in layer else "txt"
    return f"{stream}_{next(name for end, name in SHORT.items() if layer.endswith(end))}"


def relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    found, expected = found.float(), expected.float()
    return float((found - expected).norm() / expected.norm())


class Bench:
    """The networks, and what was found of them."""

    def __init__(self, args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
        self.args, self.device, self.dtype = args, device, dtype
        self.found: dict[str, Any] = {"failed": {}, "torch": torch.__version__, "device": _name(device)}
        self.cfg = configs(args.size)[0]
        begin = time.monotonic()
        self.dit = random_dit(self.cfg, device, dtype)
        self.exact = [{name: block.get_submodule(name) for name in LAYERS} for block in self.dit.blocks()]
        self._made: dict[torch.dtype, list[dict[str, QuantisedLinear]]] = {}
        attention = choose_attention("auto", device, dtype, self.cfg.num_heads, self.cfg.head_dim)
        self.dit.attend = BACKENDS[attention.name]
        if device.type == "cuda":
            self.dit.fuse_blocks()
        side = args.basesize // 8
        tokens = (side // self.cfg.patch[0]) ** 2
        self.lengths = [tokens // 4 + 36, tokens // 4 + 19]
        draw = torch.Generator(device).manual_seed(5)
        shape = (1, self.cfg.in_channels, side, side)
        self.target, self.reference = (torch.randn(shape, generator=draw, device=device) for _ in range(2))
        features = [torch.randn(n, self.cfg.text_dim, generator=draw, device=device) for n in self.lengths]
        self.features = [f.to(dtype) for f in features]
        print(f"built in {time.monotonic() - begin:.1f} s, attention {attention.name}, {tokens} target tokens,"
              f" texts {self.lengths}", flush=True)  # fmt: skip

    def keep(self) -> None:
        """Write what is known so far."""
        if os.environ.get("OUT"):
            Path(os.environ["OUT"], "float8.json").write_text(json.dumps(self.found, indent=1) + "\n")

    def use(self, layers: Collection[str], dtype: torch.dtype = FP8) -> None:
        """Let these layers of every block be quantised, and no others."""
        for number, block in enumerate(self.dit.blocks()):
            for name in LAYERS:
                made = self.quantised(dtype)[number][name] if name in layers else self.exact[number][name]
                put_linear(block, name, made)

    def quantised(self, dtype: torch.dtype) -> list[dict[str, QuantisedLinear]]:
        """All layers, quantised once."""
        if dtype not in self._made:
            self._made[dtype] = [
                {
                    name: QuantisedLinear.of(linear, dtype)
                    for name, linear in block.items()
                    if isinstance(linear, nn.Linear)
                }
                for block in self.exact
            ]
        return self._made[dtype]

    # (a)

    def kernels(self) -> None:
        """Each kernel against the plain sums in fp32, rows of zeros and of NaN included."""
        if self.device.type != "cuda":
            print("kernels need CUDA")
            return
        from joyedit.models import triton_kernels
        from joyedit.models.quantising_kernels import quantise_rows

        rows: dict[str, Any] = {}
        width, inner = self.cfg.hidden_size, self.cfg.mlp_dim
        gate, shift, scale = (torch.randn(width, device=self.device).to(self.dtype) for _ in range(3))
        for kind in (FP8, INT8):
            x, y = (torch.randn(300, width, device=self.device).to(self.dtype) for _ in range(2))
            hidden = (4 * torch.randn(300, inner, device=self.device)).to(self.dtype)
            for given in (x, y, hidden):
                given[7] = 0
            total = x.float() + gate.float() * y.float()
            normed = F.layer_norm(total, (width,), scale.float(), shift.float(), NORM_EPS)
            made = {
                "rows": (quantise_rows(x, kind), x.float()),
                "gelu": (quantise_rows(hidden, kind, gelu=True), F.gelu(hidden.float(), approximate="tanh")),
                "norm": (triton_kernels.quantised_norm_modulate(x, [(y, gate)], shift, scale, NORM_EPS, kind), normed),
                "residual norm": (
                    triton_kernels.quantised_residual_norm_modulate(x, [(y, gate)], shift, scale, NORM_EPS, kind)[1],
                    normed,
                ),
            }
            for name, (found, plain) in made.items():
                expected = quantise(plain, kind)
                differ = found.values.float() != expected.values.float()
                rows[f"{name} {kind}"] = {
                    "to fp32": relative(found.wide(), plain),
                    "plain to fp32": relative(expected.wide(), plain),
                    "values that differ from plain": float(differ.float().mean()),
                    "zero row is zero": bool((found.wide()[7] == 0).all()) if name in ("rows", "gelu") else None,
                    "finite": bool(found.wide().isfinite().all()),
                }
            x[3, 5], x[4, 5] = float("nan"), float("inf")
            wide = quantise_rows(x, kind).wide()
            rows[f"NaN and infinity stay {kind}"] = [bool(wide[3].isnan().any()), bool(wide[4].isnan().any())]
        self.found["kernels"] = rows
        for name, row in rows.items():
            print(name, row)

    def products(self) -> None:
        """One product of each kind: error, and time against that of bf16."""
        width, inner = self.cfg.hidden_size, self.cfg.mlp_dim
        tokens = 2 * (self.args.basesize // 16) ** 2
        rows: dict[str, Any] = {}
        for name, (k, n) in {
            "qkv": (width, 3 * width), "proj": (width, width), "mlp1": (width, inner), "mlp2": (inner, width)
        }.items():  # fmt: skip
            for count in (tokens, self.lengths[0], 16, 3):
                x = torch.randn(count, k, device=self.device)
                weight = torch.randn(n, k, device=self.device) * k**-0.5
                bias = torch.randn(n, device=self.device).to(self.dtype)
                true = F.linear(x, weight, bias.float())
                a, b = quantise(x, FP8), quantised.quantised_weight(weight, FP8)
                wide = F.linear(a.wide(), b.wide(), bias.float())
                narrow_x, narrow_w = x.to(self.dtype), weight.to(self.dtype)
                out = torch.empty(count, n, device=self.device, dtype=self.dtype)
                row: dict[str, Any] = {"exact to fp32": relative(F.linear(narrow_x, narrow_w, bias), true)}
                row["exact s"] = self._each(partial(torch.addmm, bias, narrow_x, narrow_w.t(), out=out))
                for fast in (True, False):
                    quantised.FAST_SUMS = fast
                    key = "fp8 fast" if fast else "fp8 slow"
                    try:
                        found = quantised.product(a, b, bias, self.dtype, None)
                        row[f"{key} to fp32"] = relative(found, true)
                        row[f"{key} to its own values in fp32"] = relative(found, wide)
                        call = partial(quantised.product, a, b, bias, self.dtype, out)
                        row[f"{key} s"] = self._each(call)
                        row[f"{key} TFLOP/s"] = 2e-12 * count * n * k / row[f"{key} s"]
                    except Exception as error:
                        row[key] = repr(error)
                    finally:
                        quantised.FAST_SUMS = True
                rows[f"{name} {count}"] = row
                print(name, count, {key: _short(value) for key, value in row.items()}, flush=True)
        self.found["products"] = rows

    def _each(self, call: Callable[[], object], times: int = 10) -> float:
        for _ in range(3):
            call()
        synchronize(self.device)
        start = time.perf_counter()
        for _ in range(times):
            call()
        synchronize(self.device)
        return (time.perf_counter() - start) / times

    # (b)

    def velocities(self, case: str) -> None:
        """Relative distance of the velocity from fp32's, for many choices of layers."""
        if case == "outliers":
            self.use(())
            self._made.clear()
            plant_outliers(self.dit)
        choices: dict[str, Collection[str]] = {"exact": (), "fp8": LAYERS}
        choices |= {f"only {short(name)}": (name,) for name in LAYERS}
        choices |= {f"all but {short(name)}": [one for one in LAYERS if one != name] for name in LAYERS}
        choices["all but img_mlp2, txt_mlp2"] = [name for name in LAYERS if not name.endswith("net.2")]
        rows: dict[str, list[float]] = {name: [] for name in choices}
        layers: dict[str, Any] = {}
        for timestep in TIMESTEPS:
            streams: list[tuple[Tensor, Tensor]] = []
            self.use(())
            true = self._true_velocity(timestep, streams)
            for name, chosen in choices.items():
                self.use(chosen)
                seen: list[tuple[float, float]] = []
                watch = partial(_compare_streams, streams, seen) if name in ("exact", "fp8") else None
                rows[name].append(relative(self._velocity(self.dit, timestep, watch), true))
                if watch is not None:
                    layers[f"{name} {timestep:.0f}"] = seen
            rows.setdefault("int8", [])
            self.use(LAYERS, INT8)
            rows["int8"].append(relative(self._velocity(self.dit, timestep), true))
            self._made.pop(INT8, None)
            del streams
        self.use(())
        self.found[f"velocity, {case}"] = rows
        self.found[f"streams by block (img, txt), {case}"] = layers
        print(f"{case}: relative distance of the velocity from fp32 at timesteps {TIMESTEPS}")
        for name, row in rows.items():
            print(f"  {name:<28}" + "".join(f" {value:>9.5f}" for value in row))
        for name, seen in layers.items():
            picked = [f"{n}: {seen[n][0]:.4f} {seen[n][1]:.4f}" for n in range(0, len(seen), max(1, len(seen) // 8))]
            print(f"  streams behind blocks, {name}: " + ", ".join(picked), flush=True)

    def _velocity(
        self, dit: DiT, timestep: float, watch: Callable[[int, Tensor, Tensor], None] | None = None
    ) -> Tensor:
        """Of one branch."""
        mods = dit.modulations(torch.full((1,), timestep, device=self.device))
        strategy = dit.strategy
        if watch is not None:
            dit.strategy = Watched(strategy, watch)
        try:
            txt = dit.embed_text(self.features[0])
            return dit.predict([self.target, self.reference], mods, txt, TextLengths.of(self.lengths[:1])).float()
        finally:
            dit.strategy = strategy

    def _true_velocity(self, timestep: float, streams: list[tuple[Tensor, Tensor]]) -> Tensor:
        wide = widened(self.dit)
        return self._velocity(wide, timestep, lambda layer, img, txt: streams.append((img, txt)))

    # (c), (d)

    def _conditioning(self) -> Conditioning:
        return Conditioning(
            noise=self.target,
            references=(self.reference,),
            positive=tuple(self.features[:1]),
            negative=tuple(self.features[1:]),
            scales=(4.0,),
        )

    def times(self) -> None:
        """Seconds of a guided step, exact and quantised taking turns; what a step needs beside the weights."""
        levels = sigmas(FEW, "original")
        given = self._conditioning()
        ways: dict[str, tuple[Collection[str], torch.dtype, bool]] = {
            "exact": ((), FP8, True),
            "fp8": (LAYERS, FP8, True),
            "fp8 slow sums": (LAYERS, FP8, False),
            "fp8, img_mlp2 exact": ([name for name in LAYERS if name != "img_mlp.net.2"], FP8, True),
            "int8": (LAYERS, INT8, True),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        memory: dict[str, Any] = {}
        for turn in range(self.args.rounds + 1):
            for name, (layers, dtype, fast) in list(ways.items()):
                if name == "int8" and turn > 2:
                    continue
                try:
                    self.use(layers, dtype)
                    quantised.FAST_SUMS = fast
                    synchronize(self.device)
                    if self.device.type == "cuda":
                        torch.cuda.reset_peak_memory_stats(self.device)
                        before = torch.cuda.memory_allocated(self.device)
                    start = time.perf_counter()
                    latents = denoise(self.dit, given, levels)
                    synchronize(self.device)
                    taken = (time.perf_counter() - start) / FEW
                    if turn:  # the first one warms up
                        seconds[name].append(taken)
                    if not bool(latents.isfinite().all()):
                        print(f"!!! {name}: not finite")
                    if self.device.type == "cuda":
                        memory[name] = {"working": torch.cuda.max_memory_allocated(self.device) - before}
                except Exception:
                    print(f"!!! {name} failed\n{traceback.format_exc()}", flush=True)
                    self.found["failed"][f"time {name}"] = traceback.format_exc()
                    del ways[name]
                finally:
                    quantised.FAST_SUMS = True
        self._made.pop(INT8, None)
        self.use(())
        rows = {name: statistics.median(taken) for name, taken in seconds.items() if taken}
        for name, taken in seconds.items():
            print(f"step {name:<22}" + "".join(f" {value:.4f}" for value in taken))
        blocks = sum(p.nbytes for block in self.dit.blocks() for p in block.parameters())
        self.use(LAYERS)
        small = sum(p.nbytes for block in self.dit.blocks() for p in block.parameters())
        self.use(())
        self.found["step seconds"] = {"medians": rows, "all": seconds}
        self.found["memory"] = {"blocks exact": blocks, "blocks fp8": small, "step": memory}
        print(
            f"blocks: exact {blocks / 1e9:.2f} GB, fp8 {small / 1e9:.2f} GB; beside the weights: {memory}", flush=True
        )

    def profile(self) -> None:
        """The kernels of one guided step, exact and fp8."""
        if self.device.type != "cuda":
            return
        from torch.profiler import ProfilerActivity, profile

        levels = sigmas(1, "original")
        for name, layers in (("exact", ()), ("fp8", LAYERS)):
            self.use(layers)
            denoise(self.dit, self._conditioning(), levels)
            with profile(activities=[ProfilerActivity.CUDA]) as prof:
                denoise(self.dit, self._conditioning(), levels)
                synchronize(self.device)
            rows = sorted(prof.key_averages(), key=lambda row: -row.device_time_total)[:14]
            table = [(row.key[:90], row.count, row.device_time_total / 1e3) for row in rows]
            self.found[f"profile {name}"] = table
            print(f"kernels of a step, {name}:")
            for key, count, spent in table:
                print(f"  {spent:>9.3f} ms {count:>6}  {key}")
        self.use(())

    def company(self) -> None:
        """Whether a branch has the same velocity, bit for bit, alone and beside the other."""
        for name, layers in (("exact", ()), ("fp8", LAYERS)):
            self.use(layers)
            mods = self.dit.modulations(torch.full((1,), 500.0, device=self.device))
            txt = [self.dit.embed_text(one) for one in self.features]
            pair = [torch.cat([one, one]) for one in (self.target, self.reference)]
            both = self.dit.predict(pair, mods, torch.cat(txt), TextLengths.of(self.lengths))
            alone = [
                self.dit.predict([self.target, self.reference], mods, one, TextLengths.of([len(one)])) for one in txt
            ]
            equal = [bool(torch.equal(both[n : n + 1], alone[n])) for n in range(2)]
            self.found[f"same alone and in company, {name}"] = equal
            print(f"{name}: same alone and in company {equal}", flush=True)
        self.use(())

    def table(self) -> None:
        """What counts, in short."""
        print("\n=== " + self.found["device"])
        medians = self.found.get("step seconds", {}).get("medians", {})
        for name, seconds in medians.items():
            print(f"step {name:<28} {seconds:.4f} s  {medians.get('exact', seconds) / seconds:.3f} times")
        for case in ("random", "outliers"):
            for name, values in self.found.get(f"velocity, {case}", {}).items():
                print(f"{case:<9} {name:<28} {statistics.mean(values):.5f} from fp32, worst {max(values):.5f}")
        for name, value in self.found.items():
            if name.startswith("same"):
                print(name, value)
        if "memory" in self.found:
            memory = self.found["memory"]
            print(f"blocks {memory['blocks exact'] / 1e9:.2f} GB exact, {memory['blocks fp8'] / 1e9:.2f} GB fp8")
        for name in self.found["failed"]:
            print(f"FAILED {name}")
        sys.stdout.flush()


def random_dit(cfg: DiTConfig, device: torch.device, dtype: torch.dtype) -> DiT:
    """A DiT whose signals stay alive through all layers, as `joyedit bench` has it."""
    with torch.device("meta"):
        dit = DiT(cfg)
    generator = torch.Generator(device).manual_seed(0)
    for name, meta in list(dit.named_parameters()):
        own = torch.float32 if ".time_embedder." in name else dtype
        tensor = torch.empty(meta.shape, dtype=own, device=device)
        if "norm" in name:
            tensor.normal_(1.0, 0.1, generator=generator)
        elif meta.ndim == 1:
            tensor.normal_(0.0, 0.02, generator=generator)
        else:
            spread = 0.2 if name.endswith("modulate_table") else meta[0].numel() ** -0.5
            tensor.normal_(0.0, spread, generator=generator)
        assign(dit, name, tensor)
    return dit.eval()


def plant_outliers(dit: DiT) -> None:
    """Let some channels be far larger than others, in what each kind of layer takes."""
    generator = torch.Generator().manual_seed(1)
    width, inner = dit.cfg.hidden_size, dit.cfg.mlp_dim
    some = torch.randperm(width, generator=generator)[: max(2, width // 500)].to(dit.proj_out.weight.device)
    hidden = torch.randperm(inner, generator=generator)[: max(2, inner // 500)].to(some.device)
    for block in dit.blocks():
        for mod in (block.img_mod, block.txt_mod):
            mod.modulate_table[:, 1, some] += 20
            mod.modulate_table[:, 4, some] += 20
        for mlp in (block.img_mlp, block.txt_mlp):
            mlp.linears[0].weight[hidden] *= 8
        for linear in (block.attn.img_attn_qkv, block.attn.txt_attn_qkv):
            linear.weight[2 * width + some] *= 8


def widened(dit: DiT) -> DiT:
    """The same DiT in fp32: plain blocks, each of which is widened just before it runs."""
    with torch.device("meta"):
        wide = DiT(dit.cfg).eval()
    for name, parameter in dit.named_parameters():
        if not name.startswith("double_blocks.") or name.endswith("modulate_table"):
            assign(wide, name, parameter.data.float())
    wide.weights = Widening(dit.blocks(), wide.blocks())
    return wide


class Widening:
    """Weights of blocks in fp32, one block at a time."""

    def __init__(self, narrow: Sequence[DoubleBlock], wide: Sequence[DoubleBlock]) -> None:
        self._narrow, self._wide = narrow, wide

    def need(self, layer: int) -> None:
        for name, parameter in self._narrow[layer].named_parameters():
            assign(self._wide[layer], name, parameter.data.float())

    def used(self, layer: int) -> None:
        for name, parameter in self._narrow[layer].named_parameters():
            if not name.endswith("modulate_table"):
                assign(self._wide[layer], name, torch.empty(parameter.shape, device="meta"))


class Watched:
    """A strategy that shows the streams behind each block."""

    def __init__(self, inner: Strategy, watch: Callable[[int, Tensor, Tensor], None]) -> None:
        self._inner, self._watch = inner, watch

    def __call__(self, forward: ForwardPass) -> RunBlock:
        run = self._inner(forward)

        def watched(
            block: DoubleBlock, layer: int, img: Tensor, txt: Tensor, target: int | None
        ) -> tuple[Tensor, Tensor]:
            img, txt = run(block, layer, img, txt, target)
            self._watch(layer, img, txt)
            return img, txt

        return watched


def _compare_streams(
    expected: Sequence[tuple[Tensor, Tensor]], seen: list[tuple[float, float]], layer: int, img: Tensor, txt: Tensor
) -> None:
    seen.append((relative(img, expected[layer][0]), relative(txt, expected[layer][1])))


def _short(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
