"""The fake backend: the same pictures every time, different for different instructions."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from joyedit.errors import UsageError
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import EditItem, Origin, Sampling, Settings, SizedItem
from joyedit.runtime.fake import FakeBackend
from joyedit.runtime.model import backend_loader, model_settings
from joyedit.runtime.protocol import ReadyBatch
from joyedit.weights.wanted import Wanted


def batch_input(*instructions: str, references: int = 1, seed: int = 42) -> ReadyBatch:
    size = (64, 96)
    items = tuple(
        SizedItem(
            item=EditItem(
                id=instruction,
                images=(Path("a.png"),) * references,
                instruction=instruction,
                sampling=Sampling(steps=3, seed=seed),
                basesize=256,
                size=None,
                output="a.png",
                origin=Origin(file="m"),
            ),
            target=size,
            references=(size,) * references,
        )
        for instruction in instructions
    )
    picture = Image.new("RGB", (96, 64), (10, 200, 30))
    return ReadyBatch.of(items, ((picture,) * references,) * len(items))


def through(entry: ReadyBatch) -> list[bytes]:
    backend = FakeBackend(RunConfig(output=Path("out")))
    steps: list[tuple[int, int]] = []
    latents = backend.denoise(backend.encode(entry), lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    pictures = backend.decode(latents)
    assert all(picture.size == (96, 64) for picture in pictures)
    assert all(picture.mode == "RGB" for picture in pictures)
    return [picture.tobytes() for picture in pictures]


def test_pictures_depend_on_the_item_and_not_on_its_company() -> None:
    blue, red = through(batch_input("blue", "red"))
    assert blue != red
    assert [red, blue] == through(batch_input("red", "blue"))
    assert [blue] == through(batch_input("blue"))


def test_seed_and_references_count() -> None:
    pictures = [through(batch_input("blue", **changes))[0] for changes in ({}, {"seed": 1}, {"references": 0})]
    assert len(set(pictures)) == 3


def test_pictures_of_a_wrong_size_are_refused() -> None:
    good = batch_input("blue")
    wrong = ReadyBatch.of([good.items[0].sized], [(Image.new("RGB", (64, 96)),)])
    with pytest.raises(ValueError, match="pictures of"):
        FakeBackend(RunConfig(output=Path("out"))).encode(wrong)


def test_the_fake_needs_its_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    config = RunConfig(output=Path("out"), model="fake")
    assert isinstance(backend_loader(Wanted.of(config))(config), FakeBackend)
    assert model_settings(Wanted.of(config)) == Settings()
    monkeypatch.delenv("JOYEDIT_FAKE")
    with pytest.raises(UsageError, match="fake"):
        backend_loader(Wanted.of(config))(config)


def test_without_a_model_there_is_nothing_to_load() -> None:
    with pytest.raises(UsageError, match="--model"):
        backend_loader(Wanted())
    assert model_settings(Wanted()) == Settings()
