"""The command `joyedit`: its sub-commands, and the one place where errors become messages and exit codes.

Nothing heavy is imported here or in the modules that this one imports: `joyedit --help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from joyedit.cli import console
from joyedit.cli.bench import bench_command
from joyedit.cli.compare import compare_command
from joyedit.cli.doctor import doctor_command
from joyedit.cli.export import export_command
from joyedit.cli.log import log_of, with_log_format
from joyedit.cli.merge import merge_command
from joyedit.cli.options import WithBareFlags
from joyedit.cli.recipes import app as recipes_app
from joyedit.cli.run import run_command
from joyedit.cli.schema import schema_command
from joyedit.cli.show import show_command
from joyedit.cli.streams import safe_streams
from joyedit.cli.verify import status_command, verify_command
from joyedit.cli.view import view_command
from joyedit.errors import (
    EXIT_FATAL,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    JoyeditError,
    UsageError,
    os_reason,
    refuse_other_encoding,
    system_limit,
)
from joyedit.printable import brief
from joyedit.runtime.pipeline.interrupts import INTERRUPTS

# typer carries its own copy of click in newer releases and imports click in older ones. Either way the base
# of its usage errors is a base of the one that it exports.
_USAGE_FAULT = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

_MOST_NAME = 200
"""The most characters of the name of a file in a message about an error that nobody expected."""

app = typer.Typer(
    name="joyedit",
    help="Edit pictures in bulk with JoyAI-Image-Edit.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", cls=WithBareFlags)(with_log_format(run_command))
app.command("show")(with_log_format(show_command))
app.command("verify")(with_log_format(verify_command))
app.command("status")(with_log_format(status_command))
app.command("merge")(with_log_format(merge_command))
app.command("view")(with_log_format(view_command))
app.command("export")(with_log_format(export_command))
app.command("compare")(with_log_format(compare_command))
app.command("schema")(schema_command)
app.add_typer(recipes_app, name="recipes")
app.command("bench")(with_log_format(bench_command))
app.command("doctor")(with_log_format(doctor_command))


def _print_version(asked: bool) -> None:
    if asked:
        from joyedit.job.results.report import joyedit_version

        typer.echo(f"joyedit {joyedit_version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool | None,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = None,
) -> None:
    """Edit pictures in bulk with JoyAI-Image-Edit."""
    refuse_other_encoding()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (sys.argv's by default) and exit with its code."""
    code = EXIT_INTERRUPTED
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with INTERRUPTS.command(), log_of(words) as log, safe_streams() as pump, log.streams(pump):
            state = console.State(pump=pump)
            code = _exit_code_of(words, state)
            if INTERRUPTS.is_due():
                code = EXIT_INTERRUPTED
            INTERRUPTS.take()
            log.exit_code = code
    except KeyboardInterrupt:  # before the command began, or while the last words are written
        pass
    sys.exit(code)


def _exit_code_of(argv: list[str], state: console.State) -> int:
    command: Any = None
    try:
        command = typer.main.get_command(app)
        code = command.main(argv, prog_name="joyedit", standalone_mode=False, obj=state)
    except JoyeditError as error:
        console.error(error)
        _trace(state)
        return error.exit_code
    except KeyboardInterrupt:
        INTERRUPTS.take()
        return EXIT_INTERRUPTED
    except (SystemExit, typer.Abort) as error:
        return _ended_by_typer(error, state)
    except Exception as error:
        if isinstance(error, _USAGE_FAULT):
            return _usage_fault(error, argv, command)
        return _unexpected(error, state)
    return code if isinstance(code, int) else EXIT_OK


def _ended_by_typer(end: BaseException, state: console.State) -> int:
    """typer ends the program without a message for some errors: a broken pipe, and an end of file."""
    cause = end.__cause__ or end.__context__
    if isinstance(cause, Exception):
        return _unexpected(cause, state)
    if isinstance(end, SystemExit):
        raise end
    INTERRUPTS.take()
    return EXIT_INTERRUPTED


def _unexpected(error: Exception, state: console.State) -> int:
    """Tell an error that nobody expected; it may be a limit of the system."""
    limit = system_limit(error)
    if limit is not None:
        console.error(limit)
        return limit.exit_code
    text = f"unexpected error, {type(error).__name__}: {error}"
    if isinstance(error, OSError) and isinstance(error.filename, (str, bytes)):  # a name that the system refuses
        text = f"{brief(os.fsdecode(error.filename), _MOST_NAME)}: {os_reason(error)}"
    console.error(JoyeditError(text if state.verbose else f"{text} (use -v to see where)"))
    _trace(state)
    return EXIT_FATAL


def _usage_fault(error: Any, argv: list[str], command: Any) -> int:
    """Tell a fault that typer found in the command line."""
    if type(error).__name__ == "NoArgsIsHelpError":  # a bare `joyedit`: the message is the help itself
        console.message(error.format_message())
    else:
        from joyedit.cli.usage_faults import usage_fault

        console.error(UsageError(usage_fault(error, argv, command)))
    return EXIT_USAGE


def _trace(state: console.State) -> None:
    if state.verbose:
        console.message(traceback.format_exc().rstrip("\n"), "traceback", "debug")
