"""The JSON Schema of a manifest and of a recipe (draft 2020-12), for editors that complete and check what people write.

Keys, types and limits are those of `schema.py`. What a schema cannot say, such as which pictures exist, the dry run
checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from joyedit.job.source.matrix import MOST_CELLS, SWEPT
from joyedit.job.source.matrix_cells import SEEDS, SWEEP
from joyedit.job.source.parameter import BOX, KINDS, Parameter
from joyedit.job.source.recipe import Recipe
from joyedit.job.source.schema import ALIASES, DEFAULTS_KEYS, ITEM_KEYS, MAX_IMAGES, RECIPE_KEYS, Defaults, Line
from joyedit.job.spec import BASE_SIZES

DRAFT = "https://json-schema.org/draft/2020-12/schema"

ABOUT = {
    "image": "The picture to edit: a path relative to the manifest, a data: URI, or @ and the id of another item.",
    "images": "Several references, in order; the last one gives the shape of the result. Empty: text to image.",
    "instruction": "What to do.",
    "id": "The item's name, and its picture's. By default it is made from the path of the picture.",
    "negative_prompt": "A text that guidance leads away from.",
    "seed": "The seed of the noise.",
    "steps": "Denoising steps.",
    "guidance_scale": "Guidance; 1 or less turns it off.",
    "basesize": "The model computes as many pixels as a square with this side has.",
    "width": "With height: the size of the result; with the size bucket, what the bucket is chosen by.",
    "height": "With width: the size of the result; with the size bucket, what the bucket is chosen by.",
    "size": "The size of the result: input, bucket, 1920x1080, or long=2048.",
    "fit": "How a picture is fitted to what the model makes.",
    "output": "The file's name below the output folder.",
    "lora": "LoRAs in place of the run's; an empty list for none.",
    "seeds": "Several edits of this item: a number of seeds from its own on, or a list of seeds.",
    "sweep": "Several edits of this item: one for each combination of these values.",
    "turns": "Instructions one after the other: each but the first begins with the result of the one before it.",
    "box": "A red box that is drawn on the picture: left, top, right, bottom in pixels, or in fractions from 0 to 1.",
    "mask": "A picture of the same proportions: white may change, black stays as it is. A path, or a data: URI.",
}
"""What each key of an item is, for people who write one."""

_NAME = "^[A-Za-z_][A-Za-z0-9_-]*$"
_TEXT = {"type": "string", "pattern": r"\S"}
_PLAIN = {"type": ["string", "number"]}
_BOX = {"type": "array", "items": {"type": "number", "minimum": 0}, "minItems": 4, "maxItems": 4}


def manifest_schema(recipe: Recipe | None = None) -> dict[str, Any]:
    """The schema of a YAML or JSON manifest, and of a line of JSONL. The parameters of `recipe` are keys too."""
    parameters = {} if recipe is None else recipe.parameters
    more = {name: _value_of(one) for name, one in parameters.items() if name not in ITEM_KEYS}
    item = _table(Line, ITEM_KEYS) | {"description": "One edit."}
    settings = _table(Defaults, RECIPE_KEYS)
    item["properties"] |= _matrix_of_line(settings)
    item["properties"] |= {name: item["properties"][key] for name, key in ALIASES.items()} | more
    defaults = _table(Defaults, DEFAULTS_KEYS) | {
        "description": "What holds for each item that does not say it itself."
    }
    boxes = {BOX: _value_of(parameters[BOX])} if BOX in parameters else {}
    aliases = {name: defaults["properties"][key] for name, key in ALIASES.items() if key in DEFAULTS_KEYS}
    defaults["properties"] |= aliases | more | boxes | {"matrix": _matrix(settings)}
    items = {"type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 1}
    whole = {
        "type": "object",
        "properties": {"defaults": {"anyOf": [{"$ref": "#/$defs/defaults"}, {"type": "null"}]}, "items": items},
        "required": ["items"],
        "patternProperties": {"^x-": {"description": "A section for anchors; joyedit does not look at it."}},
        "additionalProperties": False,
    }
    loras = Line.model_json_schema()["$defs"]
    return {
        "$schema": DRAFT,
        "title": "joyedit manifest" if recipe is None else f"joyedit manifest with the recipe {recipe.name}",
        "description": "Items to edit: a list of them, `items:` beside `defaults:`, or one line of JSONL.",
        "anyOf": [items, whole, {"$ref": "#/$defs/item"}],
        "$defs": {"item": item, "defaults": defaults} | {name: _untitled(one) for name, one in loras.items()},
    }


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe file."""
    settings = _table(Defaults, RECIPE_KEYS) | {"description": "Settings for all items; flags and lines are stronger."}
    settings["properties"]["lora"]["description"] = "LoRAs; paths are relative to the recipe."
    loras = Defaults.model_json_schema()["$defs"]
    return {
        "$schema": DRAFT,
        "title": "joyedit recipe",
        "type": "object",
        "properties": {
            "name": _TEXT | {"description": "The name; by default that of the file."},
            "description": _TEXT | {"description": "What the recipe does, in one line."},
            "instruction": _TEXT
            | {"description": "The instruction. {name} takes a parameter, {instruction} the item's own text."},
            "parameters": {
                "type": "object",
                "description": "The named places of the instruction.",
                "propertyNames": {"pattern": _NAME},
                "additionalProperties": {"$ref": "#/$defs/parameter"},
            },
            "settings": settings,
            "matrix": _matrix(settings),
        },
        "additionalProperties": False,
        "$defs": {"parameter": _parameter()} | {name: _untitled(one) for name, one in loras.items()},
    }


def _matrix(settings: dict[str, Any]) -> dict[str, Any]:
    """The schema of a `matrix:`."""
    swept = {key: {"type": "array", "items": settings["properties"][key], "minItems": 1} for key in SWEPT}
    seeds = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_CELLS}, swept["seed"]]}
    return {
        "type": "object",
        "description": "Several edits of each item: one for each combination of these values.",
        "properties": swept
        | {"seeds": seeds | {"description": "A number of seeds from the item's own on, or a list."}},
        "additionalProperties": {"type": "array", "minItems": 1},
    }


def _matrix_of_line(settings: dict[str, Any]) -> dict[str, Any]:
    """The schema of `seeds` and `sweep` of a line."""
    sweep = _matrix(settings)
    seeds = sweep["properties"].pop(SEEDS)
    return {
        SEEDS: {"anyOf": [*seeds["anyOf"], {"type": "null"}], "description": ABOUT[SEEDS]},
        SWEEP: sweep | {"type": ["object", "null"], "description": ABOUT[SWEEP]},
    }


def _parameter() -> dict[str, Any]:
    """The schema of one parameter of a recipe."""

    def only_for(kinds: Iterable[str], *keys: str) -> dict[str, Any]:
        has_other = {
            "properties": {"type": {"enum": [kind for kind in KINDS if kind not in kinds]}},
            "required": ["type"],
        }
        return {"if": has_other, "then": {"properties": dict.fromkeys(keys, False)}}

    return {
        "type": ["object", "null"],
        "properties": {
            "description": _TEXT | {"description": "What the parameter is for."},
            "type": {"enum": list(KINDS), "description": "What a value is; text if nothing is said."},
            "default": {
                "description": "The value of an item that gives none; without it, one must be given.",
                "anyOf": [_PLAIN, {"type": "boolean"}, _BOX],
            },
            "choices": {"type": "array", "items": _PLAIN, "minItems": 1, "description": "The only values."},
            "minimum": {"type": "number", "description": "The smallest value."},
            "maximum": {"type": "number", "description": "The largest value."},
            "if_true": {"type": "string", "description": "What true puts into the instruction."},
            "if_false": {"type": "string", "description": "What false puts into the instruction; by default nothing."},
        },
        "additionalProperties": False,
        "allOf": [
            only_for(("number", "integer"), "minimum", "maximum"),
            only_for(("boolean",), "if_true", "if_false"),
            only_for(("text", "choice", "number", "integer"), "choices"),
        ],
    }


def _table(model: type[Line] | type[Defaults], keys: Iterable[str]) -> dict[str, Any]:
    """The schema of a mapping with these keys, as pydantic checks them."""
    known = model.model_json_schema()["properties"]
    properties = {key: _untitled(known[key]) | {"description": ABOUT[key]} for key in keys}
    if "basesize" in properties:
        properties["basesize"] = {"enum": [*BASE_SIZES, None], "description": ABOUT["basesize"]}
    if "images" in properties:
        properties["images"]["anyOf"][0]["maxItems"] = MAX_IMAGES
    if BOX in properties:
        properties[BOX] = {"anyOf": [_BOX, {"type": "string"}, {"type": "null"}], "description": ABOUT[BOX]}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _untitled(schema: Any) -> Any:
    """A copy without the titles and defaults that pydantic writes: an editor would show them."""
    if isinstance(schema, dict):
        return {key: _untitled(value) for key, value in schema.items() if key not in ("title", "default")}
    return [_untitled(one) for one in schema] if isinstance(schema, list) else schema


def _value_of(parameter: Parameter) -> dict[str, Any]:
    """The schema of a value of a recipe's parameter."""
    made: dict[str, Any] = {"description": parameter.description} if parameter.description else {}
    if parameter.choices:
        numbers = [float(choice) for choice in parameter.choices] if parameter.kind in ("number", "integer") else []
        return made | {"enum": [*parameter.choices, *numbers, None]}
    if parameter.kind == "box":
        return made | {"anyOf": [_BOX, {"type": "string"}, {"type": "null"}]}
    if parameter.kind == "boolean":
        return made | {"enum": [True, False, "true", "false", "yes", "no", "on", "off", None]}
    if parameter.kind in ("number", "integer"):
        limits = {"minimum": parameter.minimum, "maximum": parameter.maximum}
        number = {"type": parameter.kind} | {key: limit for key, limit in limits.items() if limit is not None}
        return made | {"anyOf": [number, {"type": "string", "pattern": r"^[+-]?[0-9.]+$"}, {"type": "null"}]}
    return made | {"type": ["string", "number", "null"]}
