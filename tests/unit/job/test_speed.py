"""What steps may leave out, as it is spelled, told and recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import UsageError
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.shared import Shared
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import EditItem, Origin, Sampling
from joyedit.job.speed.bundles import BUNDLES, speed_of, speed_of_run, speed_record, speed_text, speed_told
from joyedit.job.speed.settings import EXACT, BlockSteps, GuidanceReuse, StepReuse

EXACT_CONFIG = RunConfig(output=Path("out"))
ITEM = EditItem(
    id="a", images=(Path("a.png"),), instruction="red", sampling=Sampling(), basesize=512, size=None, output="a.png",
    origin=Origin(file="m"),
)  # fmt: skip


def config(**options: Any) -> RunConfig:
    return replace(EXACT_CONFIG, **options)


def fingerprint(run: RunConfig) -> str:
    return Fingerprinter.for_run(run, "model", "original", "bf16").of(ITEM, ["0" * 64])


def test_nothing_is_left_out_unless_it_is_asked_for() -> None:
    assert speed_of("original") is EXACT
    assert speed_of("diffusers", reuse="off", guidance_reuse="off", level="max") is EXACT
    assert speed_record(EXACT_CONFIG, "original", 40) == {}
    assert speed_told(EXACT_CONFIG) == {}


def test_the_fingerprint_of_an_exact_run_is_what_it_was() -> None:
    """That of release 0.1's text; a run that spells out the defaults has it too."""
    known = Fingerprinter(model="model", schedule="original", dtype="bf16", quality=None, metadata="keep")
    assert fingerprint(EXACT_CONFIG) == known.of(ITEM, ["0" * 64])
    assert fingerprint(config(speed="max", reuse="off", guidance_reuse="off")) == fingerprint(EXACT_CONFIG)


def test_the_hash_of_what_an_exact_run_shares_has_nothing_of_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("joyedit.job.results.shared._hash", lambda text, digits: seen.append(text) or "0" * digits)
    for run in (EXACT_CONFIG, config(speed="high")):
        Shared.of(Fingerprinter.for_run(run, "m", "original", "bf16"), {}, source="s", output=Path("out"))
    assert ["speed" in text for text in seen] == [False, False, False, True, False, False]
    assert not any("precision" in text for text in seen)


def test_each_part_and_each_figure_makes_another_fingerprint() -> None:
    runs = [
        EXACT_CONFIG,
        config(speed="high"),
        config(speed="max"),
        config(reuse="auto"),
        config(reuse="0.3"),
        config(reuse="0.3", reuse_order=0),
        config(guidance_reuse="2"),
        config(guidance_reuse="4"),
        config(guidance_reuse="0.2:0.9"),
    ]
    assert len({fingerprint(run) for run in runs}) == len(runs)


def test_an_item_of_many_steps_does_not_depend_on_what_few_take() -> None:
    """The text of what is in force for its number of steps is part of its fingerprint, and nothing else."""
    level = speed_of("original", level="high")
    prints = Fingerprinter.for_run(config(speed="high"), "m", "original", "bf16")
    few = replace(ITEM, sampling=Sampling(steps=12))
    others = replace(prints, speed=replace(level, few=StepReuse(threshold=0.9)))
    assert others.of(ITEM, []) == prints.of(ITEM, [])
    assert others.of(few, []) != prints.of(few, [])


@pytest.mark.parametrize("schedule", ["original", "diffusers"])
def test_a_level_is_a_bundle_and_a_flag_overrides_one_part(schedule: Any) -> None:
    for level in ("high", "max"):
        bundle, whole = BUNDLES[level], speed_of(schedule, level=level)
        assert bundle is not None
        assert whole.reuse is not None
        assert whole.guidance is not None
        assert whole.few is not None
        assert whole.reuse == StepReuse(threshold=bundle.many[schedule], order=bundle.orders[0], most=bundle.most)
        assert whole.few == StepReuse(threshold=bundle.few[schedule], order=bundle.orders[1], most=bundle.most)
        assert whole.at(21) == replace(whole, few=None)
        assert whole.at(20) == replace(whole, reuse=whole.few, few=None)
        assert speed_of(schedule, level=level, reuse="off") == replace(whole, reuse=None, few=None)
        assert speed_of(schedule, level=level, guidance_reuse="off") == replace(whole, guidance=None)
        assert speed_of(schedule, level=level, reuse="0.5").reuse == replace(whole.reuse, threshold=0.5)
        assert speed_of(schedule, level=level, order=2).reuse == replace(whole.reuse, order=2)
    for steps in (12, 40):
        high, most = (speed_of(schedule, level=level).at(steps).reuse for level in ("high", "max"))
        assert high is not None
        assert most is not None
        assert high.threshold < most.threshold
        assert speed_of(schedule, reuse="auto").at(steps).reuse == high
    own = speed_of(schedule, reuse="0.3", order=2)
    assert own.few is None
    assert own.reuse == StepReuse(threshold=0.3, order=2, most=3)


def test_guidance_as_it_is_spelled() -> None:
    assert speed_of("original", guidance_reuse="3").guidance == GuidanceReuse(every=3)
    assert speed_of("original", guidance_reuse="0.25:0.9").guidance == GuidanceReuse(low=0.25, high=0.9)
    levels = [1.0, 0.9, 0.8, 0.5, 0.2]
    assert [GuidanceReuse(every=2).computes(step, levels) for step in range(5)] == [True, True, False, True, False]
    assert [step for step in range(40) if GuidanceReuse(every=10).computes(step, [0.5] * 40)] == [
        0,
        1,
        2,
        3,
        13,
        23,
        33,
    ]
    kept = GuidanceReuse(low=0.3, high=0.9)
    assert [kept.computes(step, levels) for step in range(5)] == [True, True, True, True, False]


@pytest.mark.parametrize("text", ["", "high", "1.5", "-0.1", "nan", "inf", "10%", "0,1"])
def test_a_threshold_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"--reuse must be auto, off, or a relative change from 0 to 1"):
        speed_of("original", reuse=text)


@pytest.mark.parametrize("text", ["", "0", "21", "1.5", "0.9:0.2", "0.5:0.5", "0:2", ":", "a:b", "-1", "²"])
def test_guidance_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"--guidance-reuse must be off, a number of steps from 1 to 20"):
        speed_of("original", guidance_reuse=text)


def test_what_is_told() -> None:
    run = config(speed="high", guidance_reuse="3")
    assert speed_told(run) == {"speed": "high", "guidance_reuse": "3"}
    told = speed_record(run, "diffusers", 40)
    assert told["speed"] == "high"
    assert told["reuse"]["threshold"] == speed_of_run(run, "diffusers").reuse.threshold  # type: ignore[union-attr]
    assert told["guidance_reuse"] == {"every": 3, "levels": [0.0, 1.0]}
    text = speed_text(config(reuse="0.07", reuse_order=0, guidance_reuse="0.3:0.9"))
    assert text == (
        "steps that change by less than 0.07 are kept; the branch without the instruction is computed at noise levels "
        "from 0.3 to 0.9"
    )


def test_block_steps_add_up() -> None:
    one = BlockSteps.of(blocks=6, steps=10, whole=4, reused=3)
    assert one == BlockSteps(computed=4 * 6 + 3, reused=15, unguided=18)
    assert one.all == 60
    both = BlockSteps.total([one, BlockSteps(60, 0, 0)])
    assert both == BlockSteps(87, 15, 18)
    assert both.as_record() == {"share": 0.725, "block_steps": 87, "reused": 15, "unguided": 18}
    assert BlockSteps.total([]) == BlockSteps(0, 0, 0)
