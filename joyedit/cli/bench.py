"""`joyedit bench`: how fast this machine is, on random weights that need no download."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from joyedit.cli import console
from joyedit.options import AttentionName, SwitchName


def bench_command(
    ctx: typer.Context,
    size: Annotated[
        Literal["tiny", "small", "full"],
        typer.Option("--size", help="full is the published model, small has its proportions for a CPU."),
    ] = "small",
    basesize: Annotated[
        int | None,
        typer.Option("--basesize", metavar="256|512|768|1024", help="[default: 1024 for full, else 256]"),
    ] = None,
    references: Annotated[int, typer.Option("--references", min=0, max=5, help="Reference pictures an item.")] = 1,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Items that go together.")] = 1,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Of the whole edit. [default: 40 for full, else 8]")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed passes of each stage; the median counts.")] = 5,
    edits: Annotated[int, typer.Option("--edits", min=1, help="Timed passes of the whole edit.")] = 1,
    device: Annotated[Literal["auto", "cuda", "cpu"], typer.Option("--device", help="Where to compute.")] = "auto",
    dtype: Annotated[Literal["auto", "bf16", "fp32"], typer.Option("--dtype", help="Number format.")] = "auto",
    attention: Annotated[
        AttentionName,
        typer.Option("--attention", help="Attention kernel; auto takes the fastest on a GPU."),
    ] = "auto",
    fused: Annotated[
        SwitchName, typer.Option("--fused", help="joyedit's own kernels between the products; auto: on a GPU.")
    ] = "auto",
    compile_: Annotated[
        SwitchName,
        typer.Option("--compile", help="Compile the DiT's blocks; auto: on a GPU without fused kernels."),
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object; the table goes to stderr then.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print tracebacks of errors.")] = False,
) -> None:
    """Measure every stage of an edit: seconds, TFLOP/s, share of the matmul ceiling, peak memory."""
    ctx.obj.verbose = verbose
    from json import dumps
    from pathlib import Path

    from joyedit.errors import UsageError
    from joyedit.job.spec import BASE_SIZES, RunConfig
    from joyedit.runtime.bench import BenchConfig, bench

    base = basesize or (1024 if size == "full" else 256)
    if base not in BASE_SIZES:
        raise UsageError(f"--basesize must be one of {', '.join(map(str, BASE_SIZES))}, not {base}")
    config = BenchConfig(
        size=size,
        basesize=base,
        references=references,
        batch_size=batch_size,
        steps=steps or (40 if size == "full" else 8),
        rounds=rounds,
        edits=edits,
    )
    run = RunConfig(
        output=Path(),
        device=device,
        dtype=dtype,
        attention=attention,
        fused=fused,
        compile=compile_,
        expected_steps=float("inf"),
    )
    report = bench(config, run)
    if json:
        for label, value in report.rows():
            console.message(f"{label}: {value}")
        console.result(dumps(report.to_dict()))
    else:
        console.table(report.rows())
