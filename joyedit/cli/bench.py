"""`joyedit bench`: how fast this machine is, on random weights that need no download."""

from __future__ import annotations

from typing import Any

import typer

from joyedit.cli import console
from joyedit.cli.options import takes_options
from joyedit.options import BenchOptions


@takes_options(BenchOptions)
def bench_command(ctx: typer.Context, options: BenchOptions) -> None:
    """Measure every stage of an edit: seconds, TFLOP/s, share of the matmul ceiling, peak memory.

    With --gpus, whole edits: images a second by one GPU, two, four, ... and all of them.
    """
    ctx.obj.verbose = options.verbose
    from pathlib import Path

    from joyedit.errors import UsageError
    from joyedit.job.run_config import RunConfig
    from joyedit.job.spec import BASE_SIZES
    from joyedit.quantities import memory_bytes
    from joyedit.runtime.bench.batch import BenchConfig
    from joyedit.runtime.workers.grouping import with_places

    is_full = options.size == "full"
    basesize = options.basesize or (1024 if is_full else 256)
    if basesize not in BASE_SIZES:
        raise UsageError(f"--basesize must be one of {', '.join(map(str, BASE_SIZES))}, not {basesize}")
    config = BenchConfig(
        size=options.size,
        basesize=basesize,
        references=options.references,
        batch_size=options.batch_size,
        steps=options.steps or (40 if is_full else 8),
        rounds=options.rounds,
        edits=options.edits,
        speed=options.speed,
    )
    run = RunConfig(
        output=Path(),
        device=options.device,
        dtype=options.dtype,
        precision=options.precision,
        attention=options.attention,
        fused=options.fused,
        compile=options.compile,
        memory=memory_bytes(options.memory),
        offload=options.offload,
        expected_steps=float("inf"),
        parallel=options.parallel,
        random=options.size,
    )
    run, places = with_places(run, options.gpus)
    if places:
        from joyedit.runtime.bench.scaling import measure_scaling

        scaling = measure_scaling(config, run, places, console.message)
        rows, plain = scaling.rows(), scaling.to_dict()
    else:
        from joyedit.runtime.bench.stages import bench

        stages = bench(config, run)
        rows, plain = stages.rows(), stages.to_dict()
    _show(rows, plain, json=options.json)


def _show(rows: list[tuple[str, str]], plain: dict[str, Any], *, json: bool) -> None:
    """The table, on stderr where stdout is to have the JSON."""
    from json import dumps

    if json:
        for label, value in rows:
            console.message(f"{label}: {value}")
        console.result(dumps(plain))
    else:
        console.table(rows)
