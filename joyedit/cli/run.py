"""`joyedit run SOURCE`. The options are in `joyedit.options`, their meaning in `request`, the work in `runtime.run`."""

from __future__ import annotations

import typer

from joyedit.cli.options import takes_options
from joyedit.options import RunOptions

_SOURCE = typer.Argument(
    metavar="SOURCE...",
    help="A manifest (.jsonl, .yaml, .json, .csv, .tsv); pictures, folders of pictures and patterns such as "
    "'in/*.jpg'; - for standard input (JSONL lines, or picture paths one a line); or, without an instruction, a "
    "picture that joyedit made, to make it again.",
    show_default=False,
)


@takes_options(RunOptions, source=_SOURCE)
def run_command(ctx: typer.Context, options: RunOptions) -> None:
    """Edit every picture of SOURCE that is not done in DIR yet.

    The same command again continues a run that ended early. An item is done if its pictures, instruction,
    settings and model have not changed and its edited picture is intact. The first Ctrl-C lets the running
    batch finish, the second stops at once.

    The settings of an item come from its own line, then flags, then the recipe, then the manifest's defaults,
    then the checkpoint, then the defaults shown below. Exit codes: 0 all done, 1 the run could not go on, 2 usage
    or manifest refused, 3 some items failed, 10 out of time, 130 interrupted.
    """
    ctx.obj.verbose = options.verbose
    from joyedit.cli.execute import execute

    raise typer.Exit(execute(options, ctx.obj.pump))
