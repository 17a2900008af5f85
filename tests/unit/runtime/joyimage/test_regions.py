"""Regions: which tokens run, what becomes of the others, and that no item's picture depends on its company."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from joyedit.job.speed.regions import Regions
from joyedit.job.speed.settings import EXACT, BlockSteps, GuidanceReuse, Speed, StepReuse
from joyedit.models.attention import TextLengths
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.models.region_blocks import KeptKeys
from joyedit.models.schedule import sigmas
from joyedit.runtime.joyimage.branches import Conditioning
from joyedit.runtime.joyimage.denoise import denoise
from joyedit.runtime.joyimage.regions import BatchRegions
from support.conditioning import alone

CFG = DiTConfig(hidden_size=64, num_heads=2, num_layers=3, text_dim=16, rope_dims=(4, 14, 14), mlp_ratio=2)
STEPS = 12
LEVELS = sigmas(STEPS, "original")
DECIDING = [2, 5, 8]
SOME = Speed(regions=Regions(level=2.0))
"""A level that leaves out some tokens of these random networks."""


@pytest.fixture(scope="module")
def dit() -> DiT:
    torch.manual_seed(0)
    made = DiT(CFG).eval().requires_grad_(False)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made


def batch(items: int, size: tuple[int, int] = (12, 16)) -> Conditioning:
    """Items that differ in everything; the last one has no guidance."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    # From left to right the references are less and less like anything, so that some of each stays and some goes.
    fade = torch.linspace(0, 3, size[1])
    return Conditioning(
        noise=normal(items, 16, *size),
        references=(torch.stack([normal(16, *size) * fade * (1 + n / 2) for n in range(items)]),),
        positive=tuple(normal(3 + 2 * n, 16) * (1 + n) for n in range(items)),
        negative=tuple(None if n == items - 1 else normal(2, 16) for n in range(items)),
        scales=tuple(2.0 + n for n in range(items)),
    )


@torch.inference_mode()
def run(dit: DiT, given: Conditioning, speed: Speed) -> tuple[Tensor, list[BlockSteps]]:
    work: list[BlockSteps] = []
    return denoise(dit, given, LEVELS, speed=speed, work=work), work


def test_which_steps_decide() -> None:
    regions = Regions(level=0.2)
    assert [step for step in range(STEPS) if regions.decides(step, STEPS)] == DECIDING
    assert [step for step in range(40) if regions.decides(step, 40)] == [9, 17, 25, 33]
    assert [step for step in range(3) if regions.decides(step, 3)] == []


@pytest.mark.parametrize("reuse", [None, StepReuse(threshold=0.3)])
def test_a_level_that_leaves_out_nothing_is_exact(dit: DiT, reuse: StepReuse | None) -> None:
    given = batch(2)
    latents, work = run(dit, given, Speed(reuse=reuse, regions=Regions(level=0)))
    assert torch.equal(latents, run(dit, given, Speed(reuse=reuse))[0])
    assert all(one.left_out == 0 and one.tokens > 0 for one in work)


@pytest.mark.parametrize(
    "speed",
    [
        SOME,
        replace(SOME, reuse=StepReuse(threshold=1e9, most=2)),
        replace(SOME, reuse=StepReuse(threshold=0.2, order=2), guidance=GuidanceReuse(every=2)),
    ],
)
def test_a_picture_is_the_same_alone_and_in_a_batch(dit: DiT, speed: Speed) -> None:
    given = batch(3)
    latents, work = run(dit, given, speed)
    assert len({one.share_of_tokens for one in work}) == 3, "the items leave out other numbers of tokens"
    assert all(one.left_out > 0 for one in work)
    for item in range(3):
        single, own = run(dit, alone(given, item), speed)
        assert torch.equal(single[0], latents[item])
        assert own == [work[item]]


def test_what_does_not_run_becomes_the_reference(dit: DiT) -> None:
    given = batch(1)
    exact, (latents, _) = run(dit, given, EXACT)[0], run(dit, given, SOME)
    apart = (latents - given.references[0]).abs().amax(dim=1)[0]
    patches = apart.unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).amax(dim=(1, 3))
    unedited = patches < 1e-5
    assert 0 < unedited.sum() < unedited.numel()
    assert not ((exact - given.references[0]).abs() < 1e-5).all(dim=1).any()


def test_all_that_is_like_the_reference_runs_no_more(dit: DiT) -> None:
    """No token of the target runs between two decisions, and the item ends where its reference is."""
    given = batch(2)
    latents, work = run(dit, given, Speed(regions=Regions(level=1e9)))
    assert (latents - given.references[0]).abs().max() < 1e-4
    whole = len({0, 1, *DECIDING})
    for item, branches in enumerate((2, 1)):
        texts = len(given.positive[item]) + (2 if branches == 2 else 0)
        tokens = branches * 2 * 48 + texts
        assert (work[item].tokens, work[item].left_out) == (3 * whole * tokens, 3 * (STEPS - whole) * tokens)


def test_a_forced_share_runs_whatever_the_pictures_are(dit: DiT) -> None:
    """For measurements on random weights: a tenth of the target's 48 tokens is 5. The record does not tell it."""
    given, forced = batch(2), Regions(level=1e9, forced=0.1)
    _, work = run(dit, given, Speed(regions=forced))
    whole = len({0, 1, *DECIDING})
    for item, branches in enumerate((2, 1)):
        texts = len(given.positive[item]) + (2 if branches == 2 else 0)
        tokens = branches * 2 * 48 + texts
        assert work[item].left_out == 3 * (STEPS - whole) * (tokens - branches * 5)
        assert work[item].tokens + work[item].left_out == 3 * STEPS * tokens
    assert forced.as_record() == Regions(level=1e9).as_record()


def test_counts_are_those_of_the_blocks(dit: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against what really went through the blocks."""
    ran = 0
    plain = DiT.run_blocks

    def spy(self: DiT, passes: object, layers: range) -> None:
        nonlocal ran
        assert isinstance(passes, list)
        ran += sum(one.img.shape[1] + one.txt.shape[0] for one in passes) * len(layers)
        plain(self, passes, layers)

    monkeypatch.setattr(DiT, "run_blocks", spy)
    given = batch(2)
    for speed in (SOME, replace(SOME, reuse=StepReuse(threshold=1e9, most=2), guidance=GuidanceReuse(every=3))):
        ran = 0
        total = BlockSteps.total(run(dit, given, speed)[1])
        assert total.tokens == ran
        record = total.as_record()
        assert record["tokens"] + record["tokens_left_out"] == total.tokens + total.left_out
        assert record["share_of_tokens"] == pytest.approx(ran / (total.tokens + total.left_out), abs=1e-4)


@torch.inference_mode()
def test_tokens_that_run_alone_have_their_own_places(dit: DiT) -> None:
    """Where nothing has changed since the whole forward, some tokens get the velocity that they have in it."""
    given = batch(1)
    items = [given.noise, *given.references]
    mods, text = dit.modulations(torch.tensor([700.0])), given.positive[0]
    kept, places = KeptKeys(), torch.tensor([1, 8, 9, 40, 47])
    whole = dit.begin(items, mods, dit.embed_text(text), TextLengths.of([len(text)]), keep=kept)
    dit.run_blocks([whole], range(3))
    part = dit.begin_region(items, mods, kept, places)
    dit.run_blocks([part], range(3))
    assert part.target_tokens.shape == (1, 5, 64)
    torch.testing.assert_close(part.target_tokens, whole.target_tokens[:, places], atol=2e-5, rtol=1e-5)
    velocity = dit.patchify(dit.velocity(part, part.target_tokens))[0]
    expected = dit.patchify(dit.velocity(whole, whole.target_tokens))[0]
    torch.testing.assert_close(velocity[places], expected[places], atol=2e-5, rtol=1e-5)
    elsewhere = torch.ones(48, dtype=torch.bool).index_fill(0, places, value=False)
    assert velocity[elsewhere].abs().max() == 0


def test_steps_that_decide_compute_both_branches(dit: DiT) -> None:
    given = batch(2)
    seldom = GuidanceReuse(every=12)
    _, work = run(dit, given, replace(SOME, guidance=seldom))
    left_out = [
        step for step in range(STEPS) if step not in DECIDING and not seldom.computes(step, LEVELS[:-1].tolist())
    ]
    assert len(left_out) >= 6
    assert [one.unguided for one in work] == [3 * len(left_out), 0]


@pytest.mark.parametrize("count", [0, 2])
def test_without_one_reference_all_is_computed(dit: DiT, count: int) -> None:
    given = batch(1)
    given = replace(given, references=given.references * count)
    latents, work = run(dit, given, SOME)
    assert torch.equal(latents, run(dit, given, EXACT)[0])
    assert work[0].tokens == work[0].left_out == 0


def test_a_reference_of_another_size_is_not_compared(dit: DiT) -> None:
    given = batch(1)
    other = replace(given, references=(torch.zeros(1, 16, 8, 8),))
    assert BatchRegions.of(SOME.regions, other, (2, 2), LEVELS.tolist()) is None
    assert BatchRegions.of(None, given, (2, 2), LEVELS.tolist()) is None


def test_a_small_edit_is_found_and_its_neighbours_run_too() -> None:
    reference = torch.zeros(1, 16, 12, 16)
    given = Conditioning(noise=reference, references=(reference,), positive=(), negative=(), scales=())
    regions = BatchRegions(Regions(level=0.2), given, (2, 2), [1.0, 0.9, 0.8, 0.5, 0.4, 0.3, 0.2, 0.1])
    latent = torch.randn(1, 16, 12, 16)
    ahead = reference.clone()
    ahead[0, :, 4:6, 6:8] = 0.5  # the patch in row 2, column 3
    assert regions.decides(1)
    regions.follow(1, latent, (latent - ahead) / 0.9)
    places = regions.places(2, 0)
    assert places is not None
    assert places.tolist() == [8 * row + column for row in (1, 2, 3) for column in (2, 3, 4)]
    assert regions.places(1, 0) is None, "a step that decides runs all tokens"
