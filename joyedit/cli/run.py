"""`joyedit run SOURCE`: the flags. What they mean together is in `request`, the work in `runtime.run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from joyedit.options import AttentionName, Flags, SwitchName

FORMATS = Literal["png", "jpg", "webp"]


def run_command(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A manifest (.jsonl, .yaml, .json, .csv), a folder of pictures, one picture, or - for "
            "standard input (JSONL lines, or picture paths one a line).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The folder for the edited pictures.")
    ] = Path("edited"),
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            "--model-path",
            "--ckpt-root",
            metavar="PATH|HUB-ID",
            envvar="JOYEDIT_MODEL",
            help="The checkpoint: a folder, or a name on the Hugging Face hub.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("-p", "--prompt", metavar="TEXT", help="The instruction for items without one of their own."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", "--num-inference-steps", min=1, metavar="N", help="Denoising steps. [default: 40]"),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option("--guidance-scale", metavar="X", help="Guidance; 1 or less turns it off. [default: 4.0]"),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of the noise. [default: 42]")] = None,
    negative_prompt: Annotated[
        str | None,
        typer.Option(
            "--neg-prompt",
            "--negative-prompt",
            metavar="TEXT",
            help="What guidance leads away from. [default: empty]",
        ),
    ] = None,
    basesize: Annotated[
        int | None,
        typer.Option(
            "--basesize",
            metavar="256|512|768|1024",
            help="Side of the square of as many pixels as the result has. [default: 1024]",
        ),
    ] = None,
    batch_size: Annotated[
        str,
        typer.Option("--batch-size", metavar="auto|N", help="Items that go through the networks together."),
    ] = "auto",
    device: Annotated[Literal["auto", "cuda", "cpu"], typer.Option("--device", help="Where to compute.")] = "auto",
    dtype: Annotated[
        Literal["auto", "bf16", "fp32"],
        typer.Option("--dtype", help="Number format; auto is bf16 on CUDA, fp32 on the CPU."),
    ] = "auto",
    attention: Annotated[
        AttentionName,
        typer.Option("--attention", help="Attention kernel; auto measures on the GPU once and takes the fastest."),
    ] = "auto",
    fused: Annotated[
        SwitchName, typer.Option("--fused", help="joyedit's own kernels between the products; auto: on a GPU.")
    ] = "auto",
    compile_: Annotated[
        SwitchName,
        typer.Option(
            "--compile", help="Compile the DiT's blocks; auto: on a GPU without fused kernels, when that repays."
        ),
    ] = "auto",
    offload: Annotated[
        Literal["none", "encoder"],
        typer.Option("--offload", help="For smaller GPUs: text encoder and DiT take turns on the device."),
    ] = "none",
    schedule: Annotated[
        Literal["auto", "original", "diffusers"],
        typer.Option("--schedule", help="Variant of the noise schedule."),
    ] = "auto",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Stop after the first N items.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("-n", "--dry-run", help="Print the batches; load no model and write nothing.")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="FILE|NAME",
            help="Settings and an instruction template (see joyedit recipes).",
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the recipe; may be repeated."),
    ] = None,
    format_: Annotated[FORMATS, typer.Option("--format", help="Format of the edited pictures.")] = "png",
    quality: Annotated[
        int | None,
        typer.Option("--quality", min=1, max=100, metavar="N", help="Quality of JPEG and WebP, 1 to 100."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Edit again what an earlier run into DIR has done.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Edit only the items that failed in an earlier run into DIR.")
    ] = False,
    trust_journal: Annotated[
        bool,
        typer.Option(
            "--trust-journal",
            help="Go on faster: tell what is done by sizes and times, without reading the files again.",
        ),
    ] = False,
    max_duration: Annotated[
        str | None,
        typer.Option(
            "--max-duration", metavar="TIME", help="Stop after, say, 8h or 1h30m; exit code 10 if items are left."
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            "--max-pixels", min=1, metavar="N", help="Refuse larger pictures. [default: 178000000]", show_default=False
        ),
    ] = None,
    read_timeout: Annotated[
        str | None,
        typer.Option(
            "--read-timeout", metavar="TIME", help="Give up a picture that takes longer to read. [default: 2m]"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print records as JSON lines on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Print each finished item, and tracebacks of errors.")
    ] = False,
) -> None:
    """Edit every picture of SOURCE that DIR does not hold already.

    The same command again goes on where a run ended, however that was: an item is done if its pictures,
    instruction, settings and model are as they were and its edited picture is intact. The first Ctrl-C
    lets the batch in flight finish, the second stops at once.

    Settings in force: an item's own line, then flags, then the recipe, then the manifest's defaults, then
    the checkpoint's own, then the built-in ones shown below. Exit codes: 0 all done, 1 the run could not
    go on, 2 usage or manifest refused, 3 some items failed, 10 out of time, 130 interrupted.
    """
    ctx.obj.verbose = verbose
    flags = Flags(
        source=source,
        output=output,
        model=model,
        prompt=prompt,
        steps=steps,
        guidance_scale=guidance_scale,
        seed=seed,
        negative_prompt=negative_prompt,
        basesize=basesize,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        attention=attention,
        compile=compile_,
        fused=fused,
        offload=offload,
        schedule=schedule,
        limit=limit,
        recipe=recipe,
        values=tuple(values or ()),
        format=format_,
        quality=quality,
        overwrite=overwrite,
        retry_failed=retry_failed,
        trust_journal=trust_journal,
        max_duration=max_duration,
        max_pixels=max_pixels,
        read_timeout=read_timeout,
        dry_run=dry_run,
        json=json,
        quiet=quiet,
        verbose=verbose,
    )
    from joyedit.cli.execute import execute

    raise typer.Exit(execute(flags))
