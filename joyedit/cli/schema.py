"""`joyedit schema`: the JSON Schema of a manifest or a recipe."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Literal

import typer

from joyedit.cli import console

Form = Annotated[
    Literal["manifest", "recipe"],
    typer.Argument(metavar="manifest|recipe", help="What the schema describes.", show_default=False),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe", metavar="FILE|NAME", help="The parameters of this recipe are keys of the manifest.",
        show_default=False,
    ),
]  # fmt: skip


def schema_command(ctx: typer.Context, form: Form, recipe: RecipeName = None) -> None:
    """Print the JSON Schema (draft 2020-12) of a manifest or of a recipe, for editors that complete and check them.

    joyedit schema manifest > manifest.schema.json
    """
    from joyedit.errors import UsageError
    from joyedit.job.source.json_schema import manifest_schema, recipe_schema
    from joyedit.job.source.recipe_reader import load_recipe

    if form == "recipe" and recipe is not None:
        raise UsageError("--recipe is for joyedit schema manifest (leave it out)")
    made = recipe_schema() if form == "recipe" else manifest_schema(None if recipe is None else load_recipe(recipe))
    console.result(jsonlib.dumps(made, indent=2, ensure_ascii=False))
    console.all_written(ctx.obj, "the schema")
