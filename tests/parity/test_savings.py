"""Each exact saving against the plain way of computing the same."""

from __future__ import annotations

import pytest
import torch

from joyedit.models.attention import TextLengths
from joyedit.runtime.joyimage import JoyImageBackend
from support.editing import Edit, batch_of, levels_apart, picture, run

TEXTS = ("Red.", "Turn the sky into a red evening and remove the car.", "", "Remove the car.")


@pytest.mark.parametrize("count", [0, 1, 2])
@torch.no_grad()
def test_an_opening_that_is_shared(ours: JoyImageBackend, count: int) -> None:
    conditioner = ours.conditioner
    seen = [conditioner.see(picture(256, 320, seed=n)) for n in range(count)]
    whole = conditioner.features([conditioner.prompt(text, seen) for text in TEXTS])
    shared = conditioner.follow(conditioner.open(seen), TEXTS, bool(seen))
    for plain, fast in zip(whole, shared, strict=True):
        assert fast.shape == plain.shape
        assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


@torch.no_grad()
def test_a_last_block_for_the_target_alone(ours: JoyImageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    dit = ours.dit
    torch.manual_seed(2)
    lengths = TextLengths.of([5, 9])
    items = [torch.randn(2, 16, 8, 12), torch.randn(2, 16, 8, 12)]
    txt, mods = torch.randn(14, dit.cfg.hidden_size), dit.modulations(torch.tensor([300.0]))
    fast = dit.predict(items, mods, txt, lengths)
    monkeypatch.setattr(dit, "trim_last_block", False)
    plain = dit.predict(items, mods, txt, lengths)
    assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


@torch.no_grad()
def test_modulations_of_a_whole_schedule_are_those_of_each_step(ours: JoyImageBackend) -> None:
    timesteps = torch.tensor([1000.0, 730.0, 12.5])
    whole = ours.dit.modulations(timesteps)
    for number in range(3):
        assert torch.allclose(whole[number], ours.dit.modulations(timesteps[number : number + 1])[0], atol=1e-6)


def test_a_picture_from_the_cache_is_the_picture_without(ours: JoyImageBackend) -> None:
    edit = Edit(text=TEXTS[1], images=[picture(256, 320, seed=5)])
    ours.cache.clear()
    (cold,) = run(ours, edit)
    misses = ours.cache.misses
    (warm,) = run(ours, edit)
    assert ours.cache.misses == misses
    assert levels_apart(cold, warm) == 0


def test_four_instructions_for_one_picture_open_once(ours: JoyImageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("see", "open", "follow"):
        real = getattr(ours.conditioner, name)
        monkeypatch.setattr(ours.conditioner, name, lambda *a, real=real, name=name: calls.append(name) or real(*a))
    image = picture(256, 320, seed=99)
    ours.encode(batch_of([Edit(text=text or "Nothing.", images=[image]) for text in TEXTS]))
    assert calls == ["see", "open", "follow"]
