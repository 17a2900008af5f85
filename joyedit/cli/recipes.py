"""`joyedit recipes`: the recipes that come with joyedit."""

from __future__ import annotations

from joyedit.cli import console


def recipes_command() -> None:
    """List the recipes that come with joyedit, and their parameters."""
    from joyedit.job.source.recipe_reader import list_recipes

    for recipe in list_recipes():
        console.result(f"{recipe.name}: {recipe.description}")
        for name, parameter in recipe.parameters.items():
            message = parameter.description
            if parameter.choices:
                message += f" [{', '.join(parameter.choices)}]"
            if parameter.default is not None:
                message += f" (default: {parameter.default})"
            console.result(f"  --set {name}=VALUE  {message.strip()}")
