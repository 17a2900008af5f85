"""An item that was given up is tried again where something about it is another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joyedit.job.data_picture import address_of
from joyedit.job.results.given_up import KILLED, is_given_up
from joyedit.job.results.records import mask_share, settings_of
from joyedit.job.spec import EditItem, Lora, Origin, Sampling

BARE = EditItem(
    id="a",
    images=(),
    instruction="x",
    sampling=Sampling(),
    basesize=256,
    size=None,
    output="a.png",
    origin=Origin(file="m.jsonl"),
)


def record_of(item: EditItem) -> dict[str, Any]:
    made = {
        "id": item.id,
        "status": "failed",
        "error": {"code": KILLED},
        "settings": settings_of(item),
        "instruction": item.instruction,
        "inputs": [address_of(one) for one in item.images],
        "at": "2999-01-01T00:00:00+00:00",
    }
    return made | ({} if item.mask is None else {"mask": {"path": address_of(item.mask)}})


@pytest.fixture
def items(tmp_path: Path) -> dict[str, EditItem]:
    for name in ("p.png", "m.png", "n/m.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    plain = replace(BARE, images=(tmp_path / "p.png",))
    return {
        "plain": plain,
        "mask": replace(plain, mask=tmp_path / "m.png"),
        "a mask of that name": replace(plain, mask=tmp_path / "n" / "m.png"),
        "box": replace(plain, box=(1.0, 2.0, 3.0, 4.0)),
        "lora": replace(plain, loras=(Lora(file=Path("l.safetensors"), sha256="0"),)),
    }


def test_each_differs_from_each_other(items: dict[str, EditItem]) -> None:
    for then, earlier in items.items():
        for now, item in items.items():
            assert is_given_up(item, record_of(earlier)) == (then == now), (then, now)


@pytest.mark.parametrize("mask", [None, 1, {}, {"share": "much"}, {"share": 2}])
def test_records_of_others(mask: object) -> None:
    assert mask_share({"mask": mask}) is None
