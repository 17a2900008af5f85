"""Steps that leave something out: what is decided, what is computed, and what stands for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from joyedit.job.speed.settings import EXACT, BlockSteps, GuidanceReuse, Speed, StepReuse
from joyedit.models.attention import TextLengths
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.models.schedule import euler_step, guide, guide_along, sigmas
from joyedit.runtime.joyimage import branches
from joyedit.runtime.joyimage.branches import Conditioning
from joyedit.runtime.joyimage.denoise import denoise
from joyedit.runtime.joyimage.step_cache import lagrange
from support.conditioning import alone

CFG = DiTConfig(hidden_size=64, num_heads=2, num_layers=3, text_dim=16, rope_dims=(4, 14, 14), mlp_ratio=2)
STEPS = 12
LEVELS = sigmas(STEPS, "original")
NEVER = Speed(reuse=StepReuse(threshold=0.0))
ALWAYS = Speed(reuse=StepReuse(threshold=1e9, order=1, most=100))


@pytest.fixture(scope="module")
def dit() -> DiT:
    """Random weights; the larger they are, the more a step changes."""
    torch.manual_seed(0)
    made = DiT(CFG).eval().requires_grad_(False)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made


def batch(items: int, unguided: Sequence[int] = ()) -> Conditioning:
    """Items that differ in everything: texts of other lengths, noise, references, guidance scales."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Conditioning(
        noise=normal(items, 16, 4, 6),
        references=(torch.stack([normal(16, 4, 6) * (1 + 3 * n) for n in range(items)]),),
        positive=tuple(normal(3 + 2 * n, 16) * (1 + n) for n in range(items)),
        negative=tuple(None if n in unguided else normal(2, 16) for n in range(items)),
        scales=tuple(2.0 + n for n in range(items)),
    )


def run(dit: DiT, given: Conditioning, speed: Speed, levels: Tensor = LEVELS) -> tuple[Tensor, list[BlockSteps]]:
    work: list[BlockSteps] = []
    with torch.inference_mode():
        return denoise(dit, given, levels, speed=speed, work=work), work


def middle_threshold(dit: DiT, given: Conditioning) -> StepReuse:
    """A threshold with which some branches reuse steps that others compute."""
    for percent in range(4, 100, 4):
        reuse = StepReuse(threshold=percent / 100, order=1)
        _, work = run(dit, given, Speed(reuse=reuse))
        if len({one.reused for one in work}) > 1 and all(one.reused for one in work):
            return reuse
    raise AssertionError("no threshold parts these items")


@pytest.mark.parametrize("unguided", [(), (1,), (0, 1, 2)])
def test_branches_at_once_are_those_one_by_one(
    dit: DiT, unguided: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU takes all of them together, in which the branches of an item share its images."""
    given = batch(3, unguided)
    expected, _ = run(dit, given, EXACT)
    monkeypatch.setattr(branches, "at_once", lambda device: True)
    sizes: list[int] = []
    predict = dit.predict

    def predicts(items: Sequence[Tensor], *rest: Any, images: Sequence[int], **more: Any) -> Tensor:
        sizes.append(len(images))
        return predict(items, *rest, images=images, **more)

    monkeypatch.setattr(dit, "predict", predicts)
    found, _ = run(dit, given, EXACT)
    assert sizes == [6 - len(unguided)] * STEPS
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_is_never_reused_is_exact_bit_by_bit(dit: DiT) -> None:
    given = batch(3, unguided=[1])
    exact, nothing = run(dit, given, EXACT)
    got, work = run(dit, given, NEVER)
    assert torch.equal(got, exact)
    assert nothing == []
    assert work == [BlockSteps(2 * STEPS * 3, 0, 0), BlockSteps(STEPS * 3, 0, 0), BlockSteps(2 * STEPS * 3, 0, 0)]


def test_a_step_that_never_changes_takes_the_exact_velocity(dit: DiT) -> None:
    """With a constant noise level and a latent that stays, each reused step is the computed one."""
    levels = torch.full((STEPS + 1,), 0.5) - torch.arange(STEPS + 1) * 1e-9
    given = batch(1)
    exact, _ = run(dit, given, EXACT, levels.double())
    got, work = run(dit, given, Speed(reuse=StepReuse(threshold=0.01, order=0)), levels.double())
    assert work[0].reused > 0
    torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_an_item_is_the_same_alone_and_among_others_that_decide_otherwise(dit: DiT, order: int) -> None:
    given = batch(3)
    reuse = replace(middle_threshold(dit, given), order=order)
    for guidance in (None, GuidanceReuse(every=2)):
        speed = Speed(reuse=reuse, guidance=guidance)
        together, work = run(dit, given, speed)
        backwards, _ = run(dit, _reordered(given, [2, 1, 0]), speed)
        for item in range(3):
            single, own = run(dit, alone(given, item), speed)
            assert torch.equal(single[0], together[item])
            assert torch.equal(backwards[2 - item], together[item])
            assert own == [work[item]]
        assert len({one.computed for one in work}) > 1


def _reordered(given: Conditioning, order: list[int]) -> Conditioning:
    return Conditioning(
        noise=given.noise[order],
        references=tuple(reference[order] for reference in given.references),
        positive=tuple(given.positive[n] for n in order),
        negative=tuple(given.negative[n] for n in order),
        scales=tuple(given.scales[n] for n in order),
    )


def blocks_that_ran(dit: DiT, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Of each step, the blocks that ran: as often as branches went through them."""
    steps: list[list[int]] = []
    begin, run_blocks = dit.begin, dit.run_blocks
    first = {"is": True}

    def begins(*given: Any, **more: Any) -> object:
        if first["is"]:
            steps.append([])
        first["is"] = False
        return begin(*given, **more)

    def runs(passes: Sequence[object], layers: range) -> None:
        first["is"] = True
        steps[-1].extend(layer for layer in layers for _ in passes)
        run_blocks(passes, layers)  # type: ignore[arg-type]

    monkeypatch.setattr(dit, "begin", begins)
    monkeypatch.setattr(dit, "run_blocks", runs)
    return steps


def test_the_first_and_the_last_steps_are_computed(dit: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = blocks_that_ran(dit, monkeypatch)
    run(dit, batch(1), ALWAYS)
    whole, first = [0, 0, 1, 1, 2, 2], [0, 0]
    assert ran == [whole] * 2 + [first] * (STEPS - 3) + [whole]


def test_so_many_steps_are_reused_in_a_row(dit: DiT) -> None:
    _, work = run(dit, batch(1, unguided=[0]), Speed(reuse=StepReuse(threshold=1e9, most=2)))
    # 0 and 1 are first, 11 is the last; of the others 4, 7 and 10 follow two that were reused.
    assert work == [BlockSteps.of(3, STEPS, 6, 6)]
    assert work[0] == BlockSteps(computed=6 * 3 + 6, reused=12, unguided=0)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_are_all_computed(dit: DiT, steps: int) -> None:
    levels = sigmas(steps, "diffusers")
    given = batch(2)
    assert torch.equal(run(dit, given, ALWAYS, levels)[0], run(dit, given, EXACT, levels)[0])


def test_forty_steps_compute_more_of_the_first_and_the_last() -> None:
    reuse = StepReuse(threshold=1.0)
    assert [step for step in range(40) if not reuse.may_reuse(step, 40)] == [0, 1, 2, 3, 38, 39]


def test_a_forced_pattern_computes_its_share(dit: DiT) -> None:
    reuse = StepReuse(threshold=0.0, most=100, forced=0.25)
    _, work = run(dit, batch(1, unguided=[0]), Speed(reuse=reuse), sigmas(40, "original"))
    assert work == [BlockSteps.of(3, 40, 6 + 8, 26)]


def test_lagrange_weights_go_through_polynomials() -> None:
    known = [0.9, 0.7, 0.65]
    for at in (0.6, 0.2):
        weights = lagrange(known, at)
        for power in range(3):
            assert sum(w * x**power for w, x in zip(weights, known, strict=True)) == pytest.approx(at**power)
    assert lagrange([0.5], 0.1) == [1.0]
    assert lagrange([0.9, 0.8], 0.7) == pytest.approx([-1.0, 2.0])


def by_hand(dit: DiT, given: Conditioning, computes: Callable[[int], bool]) -> Tensor:
    """One guided item, step by step, with the difference of the branches kept where it is not computed."""
    latent, difference = given.noise.float(), None
    scale = torch.tensor(given.scales).view(-1, 1, 1, 1)
    for step in range(STEPS):
        time = LEVELS[step : step + 1] * 1000

        def velocity(features: Tensor, latent: Tensor = latent, time: Tensor = time) -> Tensor:
            text = TextLengths.of([len(features)])
            return dit([latent, *given.references], time, dit.embed_text(features), text).float()

        cond = velocity(given.positive[0])
        if computes(step):
            assert given.negative[0] is not None
            uncond = velocity(given.negative[0])
            difference = cond - uncond
            followed = guide(cond, uncond, scale)
        else:
            assert difference is not None
            combined = cond + (scale - 1) * difference
            followed = combined * cond.norm(dim=1, keepdim=True) / combined.norm(dim=1, keepdim=True)
        latent = euler_step(latent, followed, LEVELS[step], LEVELS[step + 1])
    return latent


@pytest.mark.parametrize(
    ("guidance", "computes"),
    [
        (GuidanceReuse(every=3), lambda step: step in (0, 1, 4, 7, 10)),
        (GuidanceReuse(low=0.4, high=0.8), lambda step: step < 2 or 0.4 <= LEVELS[step] <= 0.8),
        (GuidanceReuse(every=1), lambda step: True),
    ],
)
def test_guidance_is_kept_as_by_hand(dit: DiT, guidance: GuidanceReuse, computes: Callable[[int], bool]) -> None:
    given = batch(1)
    with torch.inference_mode():
        expected = by_hand(dit, given, computes)
    got, work = run(dit, given, Speed(guidance=guidance))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    count = sum(computes(step) for step in range(STEPS))
    assert work == [BlockSteps(computed=(STEPS + count) * 3, reused=0, unguided=(STEPS - count) * 3)]


def test_guidance_in_every_step_is_exact_and_items_without_it_do_not_care(dit: DiT) -> None:
    given = batch(3, unguided=[1])
    exact, _ = run(dit, given, EXACT)
    assert torch.equal(run(dit, given, Speed(guidance=GuidanceReuse(every=1)))[0], exact)
    every_third, work = run(dit, given, Speed(guidance=GuidanceReuse(every=3)))
    assert torch.equal(every_third[1], exact[1])
    assert not torch.equal(every_third[0], exact[0])
    assert [one.unguided for one in work] == [7 * 3, 0, 7 * 3]


def test_kept_guidance_keeps_the_length_of_the_prediction() -> None:
    torch.manual_seed(0)
    cond, uncond, scale = torch.randn(2, 16, 3, 3), torch.randn(2, 16, 3, 3), torch.tensor([3.0, 4.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(guide_along(cond, cond - uncond, scale), guide(cond, uncond, scale))
    kept = guide_along(cond, torch.randn(2, 16, 3, 3), scale)
    torch.testing.assert_close(kept.norm(dim=1), cond.norm(dim=1))


class Passing:
    """Notes which blocks' weights were needed."""

    def __init__(self) -> None:
        self.needed: list[int] = []
        self.used_: list[int] = []

    def need(self, layer: int) -> None:
        self.needed.append(layer)

    def used(self, layer: int) -> None:
        self.used_.append(layer)


def test_blocks_that_nobody_needs_do_not_pass_and_others_pass_once(dit: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Passing()
    monkeypatch.setattr(dit, "weights", weights)
    run(dit, batch(2), ALWAYS)
    assert weights.needed == [0, 1, 2] * 2 + [0] * (STEPS - 3) + [0, 1, 2]
    assert weights.used_ == weights.needed


def test_what_is_not_finite_reuses_nothing(dit: DiT) -> None:
    given = batch(1)
    broken = replace(given, noise=torch.full_like(given.noise, float("nan")))
    _, work = run(dit, broken, ALWAYS)
    assert work == [BlockSteps(2 * STEPS * 3, 0, 0)]
