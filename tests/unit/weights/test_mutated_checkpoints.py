"""Seeded mutations of the files of a tiny checkpoint: each ends in a typed error, or in a model that loads."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import CheckpointError, UsageError
from joyedit.job.run_config import RunConfig
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.runtime.model import describe_without_loading, model_settings
from joyedit.weights.wanted import Wanted
from support.figures import FIGURES, SOAK
from support.hostile import KINDS, linked_copy, put, put_kind

MUTATIONS = 20
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**18, 10**400, -(10**400), 0.5, -0.0, 1e-320, 1e308, float("nan"),
    float("inf"), -float("inf"), "", "0", "\0", "\x1b[31m", "\ud800", "\u202e", "x" * 100_000, "../../etc/passwd", [],
    [[]], [None], [1] * 1000, [1e999] * 3, {}, {"": {}}, {"a": [1, {"b": None}]},
)  # fmt: skip


def mutate(folder: Path, chance: random.Random) -> str:
    """Damage one file; says how."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    small = [path for path in files if path.suffix in (".json", ".txt", ".jinja")]
    path = chance.choice(small if chance.random() < 0.8 else files)
    name = path.relative_to(folder).as_posix()
    way = chance.choice(("value", "value", "value", "value", "without", "cut", "bytes", "kind", "missing"))
    if way in ("value", "without") and path.suffix == ".json":
        raw = json.loads(path.read_text())
        place, key = chance.choice(list(places(raw))[:500])
        if way == "without":
            del place[key]
        else:
            place[key] = chance.choice(NASTY)
        put(path, json.dumps(raw))
        return f"{name}: {way} {key}"
    if way == "kind":
        kind = chance.choice(KINDS)
        put_kind(path, kind)
        return f"{name}: {kind}"
    if way == "missing":
        path.unlink()
        return f"{name}: missing"
    data = bytearray(path.read_bytes())
    if way == "bytes":
        for _ in range(chance.choice((1, 1, 4, 100))):
            end = len(data) if chance.random() < 0.5 else min(len(data), 2000)
            data[chance.randrange(end)] = chance.choice((0, 0x1B, 0x20, 0x39, 0x5B, 0x80, 0xFF, chance.randrange(256)))
        put(path, bytes(data))
        return f"{name}: other bytes"
    put(path, bytes(data[: chance.randrange(len(data))]))
    return f"{name}: cut"


def places(value: Any) -> Any:
    """Every (container, key) of a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from places(value[key])


def message_of(folder: Path) -> str | None:
    """The message of the typed error that describing or loading the model ends with; None if it loads."""
    config = RunConfig(output=Path("unused"), model=str(folder))
    try:
        model_settings(Wanted(model=str(folder)))
        describe_without_loading(config)
        backend = load_backend(config)
        backend.ready()
        backend.close()
    except (CheckpointError, UsageError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("layout", ["diffusers_checkpoint", "original_checkpoint"])
def test_mutations(layout: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(layout)
    for seed in range(MUTATIONS * SOAK):
        folder = linked_copy(source, tmp_path / str(seed))
        how = mutate(folder, random.Random(f"{layout} {seed}"))
        print(seed, how)  # pytest shows it where an error of another kind ends the test
        message = message_of(folder)
        if message is not None:
            assert all(one.isprintable() or one == "\n" for one in message), message
            assert len(message) < 5000
        FIGURES[f"mutated checkpoints {'loaded' if message is None else 'refused'}"] += 1
