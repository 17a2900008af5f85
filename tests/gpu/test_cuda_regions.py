"""What only a CUDA device shows of regions: bf16, fused kernels, layers of 8 bits, and weights that pass through.

Random networks say nothing about what a region should be. They say that tokens which run alone get what they have in a
whole forward, that company changes nothing, and that the counts add up.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import joyedit
from joyedit.errors import DeviceError
from joyedit.job.results.records import final_records
from joyedit.job.speed.regions import Regions
from joyedit.job.speed.settings import BlockSteps, GuidanceReuse, Speed, StepReuse
from joyedit.models.attention import BACKENDS, TextLengths
from joyedit.models.dit import DiT
from joyedit.models.region_blocks import KeptKeys
from joyedit.models.schedule import sigmas
from joyedit.runtime.joyimage.branches import Conditioning
from joyedit.runtime.joyimage.denoise import denoise
from joyedit.runtime.tuning.attention_choice import check
from joyedit.runtime.tuning.precision import check_precision
from support.conditioning import alone
from support.cuda import CFG, cuda, quantised_dit
from support.editing import levels_apart, picture

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

STEPS = 12
SOME = Speed(regions=Regions(level=1.8))
"""A level that leaves out some tokens of these random networks."""


@pytest.fixture(params=["exact", "fp8", "int8"])
def precision(request: pytest.FixtureRequest) -> Any:
    """Each precision that this GPU has."""
    if request.param != "exact":
        try:
            check_precision(request.param, cuda())
        except DeviceError as error:
            pytest.skip(str(error))
    return request.param


@pytest.fixture(params=["plain", "fused"])
def blocks(request: pytest.FixtureRequest) -> Any:
    """How whole forwards run. Those of regions run plain operations in any case."""
    return request.param


def network(precision: Any, blocks: str, attention: str = "auto") -> DiT:
    dit = quantised_dit(precision, attention)
    if blocks == "fused":
        dit.fuse_blocks()
    return dit


def batch(items: int, size: tuple[int, int] = (32, 48)) -> Conditioning:
    """Items that differ in everything; the last one has no guidance."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(cuda())

    # From left to right the references are less and less like anything, so that some of each stays and some goes.
    fade = torch.linspace(0, 3, size[1]).to(cuda())
    return Conditioning(
        noise=normal(items, 16, *size),
        references=(torch.stack([normal(16, *size) * fade * (1 + n / 2) for n in range(items)]),),
        positive=tuple(normal(20 + 7 * n, 64) for n in range(items)),
        negative=tuple(None if n == items - 1 else normal(9, 64) for n in range(items)),
        scales=tuple(2.0 + n for n in range(items)),
    )


@torch.inference_mode()
def run(dit: DiT, given: Conditioning, speed: Speed) -> tuple[Tensor, list[BlockSteps]]:
    work: list[BlockSteps] = []
    levels = sigmas(STEPS, "original")
    return denoise(dit, given, levels, speed=speed, work=work), work


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("attention", BACKENDS)
@torch.inference_mode()
def test_tokens_that_run_alone_get_what_they_have_in_a_whole_forward(
    precision: Any, blocks: str, attention: str
) -> None:
    fault = check(attention, cuda(), torch.bfloat16, CFG.num_heads, CFG.head_dim)
    if fault:
        pytest.skip(fault)
    dit, given = network(precision, blocks, attention), batch(1)
    items = [given.noise, *given.references]
    mods, text = dit.modulations(torch.tensor([700.0], device=cuda())), given.positive[0]
    kept = KeptKeys()
    whole = dit.begin(items, mods, dit.embed_text(text), TextLengths.of([len(text)]), keep=kept)
    dit.run_blocks([whole], range(3))
    expected = dit.patchify(dit.velocity(whole, whole.target_tokens))[0]
    for count in (1, 17, 200):
        places = torch.randperm(384, generator=torch.Generator().manual_seed(count))[:count].sort().values.to(cuda())
        part = dit.begin_region(items, mods, kept, places)
        dit.run_blocks([part], range(3))
        found = dit.patchify(dit.velocity(part, part.target_tokens))[0]
        error = apart(found[places], expected[places])
        print(f"{precision} {blocks} {attention}, {count} tokens: {error:.4f}")
        assert error < 0.08
        elsewhere = torch.ones(384, dtype=torch.bool, device=cuda()).index_fill(0, places, value=False)
        assert found[elsewhere].abs().max() == 0


@pytest.mark.parametrize(
    "speed",
    [
        SOME,
        replace(SOME, reuse=StepReuse(threshold=1e9, most=2)),
        replace(SOME, reuse=StepReuse(threshold=0.2, order=2), guidance=GuidanceReuse(every=2)),
    ],
    ids=["regions", "steps reused", "guidance reused too"],
)
def test_a_picture_is_the_same_alone_and_in_a_batch(precision: Any, blocks: str, speed: Speed) -> None:
    """Bit for bit: with regions, the branches go one by one."""
    dit, given = network(precision, blocks), batch(3)
    latents, work = run(dit, given, speed)
    assert latents.isfinite().all()
    assert len({one.share_of_tokens for one in work}) == 3, "the items leave out other numbers of tokens"
    assert all(one.left_out > 0 for one in work)
    for item in range(3):
        single, own = run(dit, alone(given, item), speed)
        assert torch.equal(single[0], latents[item])
        assert own == [work[item]]


def test_a_level_that_leaves_out_nothing_is_near_exact(precision: Any, blocks: str) -> None:
    dit, given = network(precision, blocks), batch(2)
    found, work = run(dit, given, Speed(regions=Regions(level=0)))
    exact, _ = run(dit, given, Speed())
    assert apart(found, exact) < 0.05
    assert all(one.left_out == 0 and one.tokens > 0 for one in work)


@pytest.mark.parametrize("options", [{}, {"reuse": "auto"}, {"speed": "max"}], ids=["regions", "steps reused", "max"])
@pytest.mark.parametrize("precision", ["exact", "fp8"])
def test_weights_lie_where_they_may(
    diffusers_checkpoint: Path, tmp_path: Path, precision: Any, options: dict[str, Any]
) -> None:
    """Resident or passing: the same pictures and the same counts, as the command makes them."""
    if precision != "exact":
        try:
            check_precision(precision, cuda())
        except DeviceError as error:
            pytest.skip(str(error))
    lines = []
    for number in range(2):
        path = tmp_path / f"{number}.png"
        picture(256, 320, seed=number).save(path)
        lines.append({"id": str(number), "image": str(path), "instruction": "Make it red.", "seed": number})
    made = {}
    for offload in ("none", "blocks"):
        out = tmp_path / offload
        done = joyedit.run(
            lines, model=diffusers_checkpoint, output=out, device="cuda", steps=STEPS, basesize=256, regions="2",
            precision=precision, offload=offload, page=False, progress=False, **options,
        )  # fmt: skip
        assert done.exit_code == 0
        records = sorted(final_records(out / "results.jsonl"), key=lambda record: str(record["id"]))
        pictures = [Image.open(out / record["output"]) for record in records]
        made[offload] = (pictures, [record["computed"] for record in records])
        assert all(counts["tokens_left_out"] > 0 for counts in made[offload][1])
    for one, other in zip(made["none"][0], made["blocks"][0], strict=True):
        assert levels_apart(one, other) == 0
    assert made["none"][1] == made["blocks"][1]
