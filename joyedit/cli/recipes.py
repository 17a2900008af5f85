"""`joyedit recipes`: the recipes that come with joyedit, one of them in full, and a new one to fill in."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from joyedit.cli import console

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

Name = Annotated[
    str,
    typer.Argument(metavar="NAME|FILE", help="A recipe of joyedit, or a recipe file.", show_default=False),
]
NewName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The name of the recipe; the file is NAME.yaml.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.callback()
def recipes_command(ctx: typer.Context) -> None:
    """List the recipes that come with joyedit, and their parameters.

    `show` prints one of them in full, `new` writes a file for your own.
    """
    if ctx.invoked_subcommand is not None:
        return
    from joyedit.job.source.recipe_reader import list_recipes

    for recipe in list_recipes():
        console.result(f"{recipe.name}: {recipe.description}")
        for name, parameter in recipe.parameters.items():
            message = parameter.description
            if parameter.choices:
                message += f" [{', '.join(parameter.choices)}]"
            if recipe.matrix.axis(name) is not None:
                message += f" (default: {len(recipe.matrix.axis(name) or ())} values in turn)"
            elif parameter.default is not None:
                message += f" (default: {parameter.default})"
            console.result(f"  --set {name}=VALUE  {message.strip()}")


@app.command("show")
def show_command(recipe: Name, json: Json = False) -> None:
    """Print a recipe: what it does, its parameters, the instruction, the settings, and an example."""
    from joyedit.job.source.recipe_reader import file_of, load_recipe
    from joyedit.job.source.recipe_text import lines_about, record_of

    found = load_recipe(recipe)
    if json:
        console.result(jsonlib.dumps(record_of(found), ensure_ascii=False))
        return
    for line in lines_about(found, recipe, file_of(recipe)):
        console.result(line)


@app.command("new")
def new_command(name: NewName) -> None:
    """Write NAME.yaml, a recipe with comments, to fill in. A file that is there already stays."""
    from joyedit.job.source.recipe_text import write_new

    path = write_new(name)
    console.message(f"wrote {path}: change it, and see what it does with joyedit recipes show {path}")
