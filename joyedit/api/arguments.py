"""Arguments of Python -> the options of the command."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from joyedit.errors import UsageError
from joyedit.job.source.problems import nearest
from joyedit.job.source.python.values import plain
from joyedit.options import RunOptions
from joyedit.printable import brief

NETWORKS = ("dit", "encoder", "vae", "tokenizer")
_PATHS = (*NETWORKS, "mask", "recipe", "image_root")
SPEED_AS_TEXT = ("reuse", "guidance_reuse", "regions")
_AS_TEXT = ("batch_size", "memory", "max_duration", "read_timeout", *SPEED_AS_TEXT)
_PAIRS = ("map", "where")
_NAMES = ("exclude", "ignore_columns", "keep_columns")


def run_options(sources: tuple[str, ...], output: Path, given: Mapping[str, Any]) -> RunOptions:
    """The options of a run. `given` are the keywords of `run`. Raises UsageError."""
    options = dict(given)
    options |= {name: path_of(name, options[name]) for name in _PATHS if options.get(name) is not None}
    if options.get("metrics") is not None:
        options["metrics"] = Path(path_of("metrics", options["metrics"]))
    options["lora"] = loras_as_flags(options.get("lora"))
    options |= {name: str(options[name]) for name in _AS_TEXT if options.get(name) is not None}
    options |= _matrix(options)
    options |= {name: _pairs(name, options[name]) for name in _PAIRS if options.get(name) is not None}
    options |= {name: _several(name, options[name]) for name in _NAMES if options.get(name) is not None}
    options |= {name: () for name in (*_PAIRS, *_NAMES, "input") if name in options and options[name] is None}
    gpus = options.get("gpus")
    if gpus is not None and not isinstance(gpus, str):
        options["gpus"] = ",".join(map(str, gpus)) if isinstance(gpus, Iterable) else str(gpus)
    if options.get("input"):
        options["input"] = tuple(path_of("input", one) for one in _several("input", options["input"]))
    return RunOptions(source=sources, output=output, **options)


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Raises UsageError for the first keyword that nobody knows, with the one that was probably meant."""
    valid = list(known)
    unknown = sorted(set(given) - set(valid))
    if unknown:
        raise UsageError(f"unknown keyword {unknown[0]!r} ({nearest(unknown[0], valid)})")


def path_of(name: str, value: Any) -> str:
    """The path that the keyword `name` has. Raises UsageError for what is none."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise _wrong(name, "a path", value)
    if not value:
        raise UsageError(f"{name} is empty (give a path)")
    return value


def loras_as_flags(given: Any) -> tuple[str, ...]:
    """LoRAs as the flag takes them: with objects, the scale stands behind the path."""
    several = [given] if isinstance(given, (str, os.PathLike, dict)) else [] if given is None else given
    if not isinstance(several, Iterable):
        raise _wrong("lora", "a path, a dict with file and scale, or a list of these", given)
    made = []
    for one in several:
        if isinstance(one, dict):
            if not set(one) <= {"file", "scale"} or "file" not in one:
                raise UsageError(f"a LoRA is a path or has file and scale, not {sorted(map(str, one))}")
            scale = plain(one.get("scale", 1.0))
            if isinstance(scale, bool) or not isinstance(scale, (int, float)):
                raise _wrong("the scale of a LoRA", "a number", scale)
            made.append(f"{path_of('lora', one['file'])}:{float(scale)!r}")
        else:
            made.append(path_of("lora", one))
    return tuple(made)


def _matrix(given: Mapping[str, Any]) -> dict[str, Any]:
    """`seeds` and `sweep` as the flags take them: a number or a list, and a dict of lists."""
    made: dict[str, Any] = {}
    seeds, sweep = given.get("seeds"), given.get("sweep")
    if isinstance(sweep, (str, list)):
        made["sweep"] = tuple(map(str, _several("sweep", sweep)))
    if isinstance(sweep, Mapping):
        made["sweep"] = tuple(f"{key}={_listed(f'sweep of {key}', values)}" for key, values in sweep.items())
    if isinstance(seeds, (list, tuple, range)):
        made["seeds"] = None  # a list of one seed would be a number of seeds there
        made["sweep"] = (*made.get("sweep", sweep or ()), f"seed={_listed('seeds', seeds)}")
    elif seeds is not None:
        made["seeds"] = str(seeds)
    return made


def _listed(name: str, values: Any) -> str:
    """A list of values as JSON, also of numbers of NumPy."""
    values = plain(values)
    if isinstance(values, list):
        with suppress(TypeError, ValueError):
            return json.dumps(values)
    raise _wrong(name, "a list of numbers and texts", values)


def _pairs(name: str, given: Any) -> tuple[str, ...]:
    """Pairs as the flags take them: `KEY=COLUMN`."""
    if isinstance(given, Mapping):
        return tuple(f"{key}={str(one).lower() if isinstance(one, bool) else one}" for key, one in given.items())
    return _several(name, given)


def _several(name: str, given: Any) -> tuple[Any, ...]:
    if not isinstance(given, (str, os.PathLike, Iterable)):
        raise _wrong(name, "a text or a list of texts", given)
    return (given,) if isinstance(given, (str, os.PathLike)) else tuple(given)


def _wrong(name: str, what: str, value: Any) -> UsageError:
    return UsageError(f"{name} must be {what}, not {brief(repr(value))}")
