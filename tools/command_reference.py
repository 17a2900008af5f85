"""Write docs/commands.md from the command line itself.

    python tools/command_reference.py            write docs/commands.md
    python tools/command_reference.py --check    exit with 1 if docs/commands.md is not current

It walks the tree of commands and their parameters, whatever declares them, and uses only what every release of
typer and click tells alike.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from joyedit.cli.main import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"

HEAD = """\
<!-- Made by tools/command_reference.py from the command line. Do not edit this page by hand. -->

# Commands

Every command and every flag. `joyedit COMMAND --help` prints the same. Results go to stdout, messages to stderr.
What the exit codes mean is in [overnight.md](overnight.md#exit-codes).
"""

_DEFAULT = re.compile(r"\s*\[default: ([^\]]*)\]")
_ENVIRONMENT = "The environment variable `{}` stands in for it."


def commands() -> dict[str, Any]:
    """Each sub-command by its name, in the order in which the help lists them; `recipes show` behind `recipes`."""
    root: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, command in root.commands.items():
        found[name] = command
        found |= {f"{name} {inner}": below for inner, below in getattr(command, "commands", {}).items()}
    return found


def page() -> str:
    """The whole page."""
    root: Any = typer.main.get_command(app)
    parts = [HEAD, *(section(name, command) for name, command in commands().items())]
    parts.append("## joyedit\n\nThe program itself takes these flags.\n\n" + "\n".join(_options(root)) + "\n")
    return "\n".join(parts)


def section(name: str, command: Any) -> str:
    """One sub-command: usage, description, arguments and options."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    below = ["[COMMAND]"] if getattr(command, "commands", None) else []
    usage = " ".join(["joyedit", name, "[OPTIONS]", *(_value(p) for p in arguments), *below])
    lines = [f"## joyedit {name}", "", "```text", usage, "```", "", inspect.cleandoc(command.help or ""), ""]
    if arguments:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{_cell(_value(p))}` | {_cell(getattr(p, 'help', None) or '')} |" for p in arguments]
        lines.append("")
    lines += _options(command)
    return "\n".join(lines).rstrip("\n") + "\n"


def _options(command: Any) -> Iterator[str]:
    """A table of the options for each group of them that the help shows."""
    groups: dict[str, list[Any]] = {}
    for parameter in command.params:
        if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False):
            groups.setdefault(getattr(parameter, "rich_help_panel", None) or "", []).append(parameter)
    for title, options in groups.items():
        if title:
            yield from (f"### {title}", "")
        yield from ("| option | default | meaning |", "|---|---|---|")
        for option in options:
            yield f"| {_spelling(option)} | {_default(option) or '-'} | {_meaning(option) or '-'} |"
        if title:
            yield ""


def _spelling(option: Any) -> str:
    names = sorted([*option.opts, *option.secondary_opts], key=lambda name: name.startswith("--"))
    value = "" if option.is_flag or getattr(option, "count", False) else f" `{_cell(_value(option))}`"
    return ", ".join(f"`{name}`" for name in names) + value


def _value(parameter: Any) -> str:
    """What stands for the value: the metavar, the choices, or the kind."""
    if parameter.metavar:
        return str(parameter.metavar)
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    choices, is_whole = _type(parameter)
    return "|".join(choices) or ("N" if is_whole else "TEXT")


def _type(parameter: Any) -> tuple[list[str], bool]:
    """The choices of a parameter, and whether it is a whole number. Newer releases of typer keep the annotation."""
    descriptor = getattr(parameter, "type_descriptor", None)
    if descriptor is None:
        choices = getattr(parameter.type, "choices", None) or ()
        return [str(getattr(choice, "value", choice)) for choice in choices], "integer" in parameter.type.name
    annotation = descriptor.annotation
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)], False
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(choice.value) for choice in annotation], False
    return [], annotation is int


def _default(option: Any) -> str:
    said = _DEFAULT.search(option.help or "")
    if said is not None:
        return _cell(said[1]) if " " in said[1] or said[1].isalpha() else f"`{_cell(said[1])}`"
    value = option.default
    shown = isinstance(value, (str, int, float, Path)) and not isinstance(value, bool)
    return f"`{_cell(str(value))}`" if shown else ""


def _meaning(option: Any) -> str:
    text = _DEFAULT.sub("", option.help or "").strip()
    names = option.envvar
    for name in [names] if isinstance(names, str) else names or []:
        text += " " + _ENVIRONMENT.format(name)
    return _cell(text)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    return 0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page() else 1


if __name__ == "__main__":
    sys.exit(main())
