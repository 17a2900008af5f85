"""Everything that a GPU is asked, in one go: the GPU's tests, `joyedit bench`, the comparison with diffusers.

    python benchmarks/gpu.py --json results
    python benchmarks/gpu.py --size tiny --device cpu --json results     # the same script, without a GPU

Each part has a time limit of its own, and the next one runs whatever became of it. What they print goes
to the screen and into results/<part>.log, their figures into results/<part>.json; a table comes last.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A command, its limit in seconds, and whether its standard output is its JSON."""

    name: str
    command: list[str]
    limit: float
    prints_json: bool = False


def main() -> int:
    args = parse()
    args.json.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]),
        "JOYEDIT_CACHE": str(args.cache or args.json.resolve() / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    parts = [part for part in all_parts(args) if not args.parts or part.name in args.parts]
    message = []
    for part in parts:
        print(f"\n=== {part.name} (limit {part.limit:.0f} s): {' '.join(part.command)}", flush=True)
        start = time.monotonic()
        code = run(part, args.json, environment)
        message.append((part.name, code, time.monotonic() - start))
    print("\npart        seconds  exit code")
    for name, code, seconds in message:
        print(f"{name:<10} {seconds:>8.1f}  {'out of time' if code is None else code}")
    for name, _, _ in message:
        print(*rows(name, args.json / f"{name}.json"), sep="\n")
    return 0 if all(code == 0 for _, code, _ in message) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, metavar="DIR", help="folder for logs and figures")
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="full")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, help="of a whole edit; 40 for full, else 2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="*", choices=("tests", "bench", "compare"), help="all by default")
    parser.add_argument("--limits", nargs=3, type=float, default=(300, 200, 420), metavar="SECONDS")
    parser.add_argument("--cache", type=Path, help="folder of compiled code and kernel choices; by default DIR/cache")
    return parser.parse_args()


def all_parts(args: argparse.Namespace) -> list[Part]:
    python = sys.executable
    steps = str(args.steps or (40 if args.size == "full" else 2))
    common = ["--size", args.size, "--device", args.device, "--rounds", str(args.rounds), "--steps", steps]
    # Without the project's own pytest options: a plugin that they name may be missing on a bare machine.
    pytest = ["-m", "pytest", "-o", "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider", "-rA", "-q"]
    comparison = [str(ROOT / "benchmarks" / "compare_diffusers.py"), *common, "--compiled"]
    tests, bench, compare = args.limits
    return [
        Part(name="tests", command=[python, *pytest, "--tb=short", str(ROOT / "tests" / "gpu")], limit=tests),
        Part(
            name="bench",
            command=[python, "-m", "joyedit", "bench", *common, "--json"],
            limit=bench,
            prints_json=True,
        ),
        Part(name="compare", command=[python, *comparison, "--json", str(args.json / "compare.json")], limit=compare),
    ]


def run(part: Part, folder: Path, environment: dict[str, str]) -> int | None:
    """The exit code; None if the part ran out of time."""
    own = folder / f"{part.name}.json"
    own.unlink(missing_ok=True)
    with open(folder / f"{part.name}.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            part.command,
            env=environment,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if not part.prints_json else subprocess.PIPE,
            start_new_session=True,
        )
        timer = threading.Timer(part.limit, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        kept: list[str] = []
        out = threading.Thread(target=kept.extend, args=(process.stdout or (),)) if part.prints_json else None
        if out is not None:
            out.start()
        for line in (process.stderr if part.prints_json else process.stdout) or ():
            print(line, end="", flush=True)
            log.write(line)
            log.flush()
        code = process.wait()
        in_time = timer.is_alive()
        timer.cancel()
        if out is not None:
            out.join()
            if kept:
                own.write_text("".join(kept), encoding="utf-8")
    return code if in_time else None


def rows(name: str, file: Path) -> list[str]:
    """The main figures of a part's JSON."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if name == "bench":
        head = f"\nbench: {found['device']}, attention {found['attention']} {found['attention_rates']}"
        ceiling = f"matmul ceiling {found['matmul_tflops']:.0f} TFLOP/s, sustained {found['matmul_sustained']:.0f}"
        peak = f"peak memory {found['peak_memory'] / 1e9:.1f} GB, finite {found['finite']}"
        stages = [
            f"{s['name']:<30} {s['seconds']:>10.4f} s {s['tflops']:>8.1f} TFLOP/s {s['share_of_matmul']:>6.1%}"
            for s in found["stages"]
        ]
        blocks = f"fused {found['fused']}, compiled {found['compiled']} in {found['compile_seconds']:.1f} s"
        return [head, ceiling, f"{blocks}, {peak}", *stages]
    if name == "compare":
        lines = [f"\ncompare: levels apart {found.get('levels_apart')}, flat pictures {found.get('flat_pictures')}"]
        lines += [f"{d['stage']}, apart: {d['fault'] or d['apart']}" for d in found["differences"]]
        for stage in found["stages"]:
            message = [f"{side} {seconds:.4f} s" for side, seconds in stage["seconds"].items()]
            message += [f"{pair} {ratio['median']:.2f}" for pair, ratio in stage["ratios"].items()]
            lines.append(f"{stage['stage']}: " + (stage["fault"] or ", ".join(message)))
        return lines
    return []


if __name__ == "__main__":
    sys.exit(main())
