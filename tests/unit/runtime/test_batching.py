"""The batch that nobody asked for: how it is chosen, bounded and remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.runtime.backend import OutOfMemory
from joyedit.runtime.batching import (
    Remembered,
    cache_folder,
    decoding_bytes,
    denoising_bytes,
    most_that_fit,
    smallest_that_fills,
)


@pytest.mark.parametrize(
    ("seconds", "chosen", "asked"),
    [
        ({1: 1.0, 2: 1.99}, 1, 2),  # full with one: the larger ones are not tried
        ({1: 1.0, 2: 1.2, 4: 2.0, 8: 3.99}, 4, 4),
        ({1: 1.0, 2: 1.1, 4: 1.3, 8: 2.0}, 8, 4),
        ({1: 1.0, 2: 1.0}, 2, 3),  # no room for four
    ],
)
def test_the_smallest_batch_that_fills_the_device(seconds: dict[int, float], chosen: int, asked: int) -> None:
    tried: list[int] = []

    def measured(size: int) -> float:
        tried.append(size)
        if size not in seconds:
            raise OutOfMemory
        return seconds[size]

    assert smallest_that_fills(measured) == chosen
    assert len(tried) == asked


def test_without_room_for_one_it_is_one() -> None:
    def full(size: int) -> float:
        raise OutOfMemory

    assert smallest_that_fills(full) == 1
    assert most_that_fit(lambda size: 100 * size, 50) == 1
    assert most_that_fit(lambda size: 100 * size, 450) == 4


def test_what_was_measured_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Remembered().get("a") is None
    Remembered().put("a", 4)
    Remembered().put("b", 1)
    assert [Remembered().get(key) for key in "abc"] == [4, 1, None]
    assert [path.name for path in cache_folder().iterdir()] == ["batch-sizes.json"]


@pytest.mark.parametrize("content", ["", "[]", "no json", '{"a": "4"}', '{"a": 0}', '{"a": true}'])
def test_a_damaged_memory_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sizes.json"
    path.write_text(content)
    assert Remembered(path).get("a") is None
    Remembered(path).put("a", 2)
    assert Remembered(path).get("a") == 2


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    Remembered(tmp_path / "file" / "sizes.json").put("a", 2)
    assert Remembered(tmp_path / "file" / "sizes.json").get("a") is None


def test_the_memory_model_grows_with_what_it_counts() -> None:
    cfg = DiTConfig()
    one, two = (denoising_bytes(cfg, tokens, 40, 2) for tokens in (18504, 37008))
    fixed = denoising_bytes(cfg, 0, 40, 2)
    assert two - fixed == 2 * (one - fixed)
    assert 1.5e9 < one < 4e9
    assert decoding_bytes(VAEConfig(), 1024, 1024, 2) == 4 * decoding_bytes(VAEConfig(), 512, 512, 2)
