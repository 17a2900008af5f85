"""The table of `--speed`: what each level leaves out. A flag of a single part comes before the level.

The thresholds were calibrated on nano, with each of the two schedules (docs/performance.md has the figures).
A part that comes later, such as a number format or the regions of a picture, gets a field of `Bundle` and a line here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from joyedit.job.run_config import RunConfig
from joyedit.job.sizes import Size
from joyedit.job.spec import ScheduleKind, SpeedName
from joyedit.job.speed.options import AUTO, OFF, guidance_of, regions_of, threshold_of
from joyedit.job.speed.settings import EXACT, Speed, StepReuse

SPEED_FLAGS: Final = ("speed", "reuse", "reuse_order", "guidance_reuse", "regions")
"""The fields of a run's configuration that say what steps leave out."""
AUTO_LEVEL: Final = "high"
"""The level whose threshold `--reuse auto` takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """What one level leaves out. `many` and `few` are thresholds of `--reuse` by schedule, for items with more than
    `FEW_STEPS` and for the others, and `orders` those of `--reuse-order`; `guidance_reuse` and `regions` are as
    spelled.
    """

    many: dict[ScheduleKind, float]
    few: dict[ScheduleKind, float]
    orders: tuple[int, int]
    most: int
    guidance_reuse: str
    computed: float
    """Of the steps that may be reused, so many nano computed (40 steps, diffusers' schedule). It is for measurements on
    random weights, whose changes mean nothing."""
    regions: str = OFF


BUNDLES: Final[dict[SpeedName, Bundle | None]] = {
    "exact": None,
    "high": Bundle(
        many={"original": 0.12, "diffusers": 0.12},
        few={"original": 0.2, "diffusers": 0.2},
        orders=(1, 0),
        most=3,
        guidance_reuse="2",
        computed=0.4,
    ),
    "max": Bundle(
        many={"original": 0.25, "diffusers": 0.25},
        few={"original": 0.35, "diffusers": 0.35},
        orders=(1, 0),
        most=4,
        guidance_reuse="3",
        computed=0.25,
    ),
}


def speed_of_run(config: RunConfig, schedule: str) -> Speed:
    """What a run leaves out. `schedule` is that of its checkpoint, or its own. Raises UsageError."""
    return speed_of(
        "original" if schedule == "original" else "diffusers",
        level=config.speed,
        reuse=config.reuse,
        order=config.reuse_order,
        guidance_reuse=config.guidance_reuse,
        regions=config.regions,
    )


def has_regions(config: RunConfig) -> bool:
    """Whether a run leaves out regions of its pictures."""
    return speed_of_run(config, config.schedule).regions is not None


def regions_note(config: RunConfig, target: Size, references: Sequence[Size]) -> str | None:
    """Why an item with these buckets is computed as a whole although regions are on; None where it is not."""
    if tuple(references) == (target,) or not has_regions(config):
        return None
    if not references:
        return "computed as a whole: regions need a picture to compare with"
    if len(references) > 1:
        return "computed as a whole: regions compare with one picture, and this has several"
    return "computed as a whole: regions need a result of the shape of its picture"


def forced_speed(level: SpeedName, schedule: ScheduleKind) -> Speed:
    """A level that computes as many steps as nano did, whatever the changes are."""
    bundle, speed = BUNDLES[level], speed_of(schedule, level=level)
    if bundle is None or speed.reuse is None:
        return speed
    return replace(speed, reuse=replace(speed.reuse, forced=bundle.computed), few=None)


def speed_record(config: RunConfig, schedule: str, steps: int) -> dict[str, Any]:
    """What the record of an item with so many steps says of what they leave out: level and figures; empty where that is
    nothing.
    """
    told = speed_of_run(config, schedule).at(steps).as_record()
    return told if config.speed == "exact" or not told else {"speed": config.speed, **told}


def speed_told(config: RunConfig) -> dict[str, str]:
    """What a picture says of how its run was asked to leave out something: the flags that were given."""
    return {name: str(value) for name, value in speed_flags(config).items() if value not in (None, "exact")}


def speed_flags(config: RunConfig) -> dict[str, Any]:
    """The flags that say what steps leave out, as the run has them."""
    return {name: getattr(config, name) for name in SPEED_FLAGS}


def speed_text(config: RunConfig) -> str:
    """What steps leave out, for people, before the checkpoint is looked at. Its schedule may decide about figures."""
    kinds: tuple[ScheduleKind, ...] = ("diffusers", "original") if config.schedule == "auto" else (config.schedule,)
    found = {kind: speed_of_run(config, kind).in_words() or "everything is computed" for kind in kinds}
    texts = list(dict.fromkeys(found.values()))
    said = texts[0] if len(texts) == 1 else "; or ".join(f"{text} (schedule {kind})" for kind, text in found.items())
    return f"{config.speed}: {said}" if config.speed != "exact" else said


def speed_of(
    schedule: ScheduleKind,
    *,
    level: SpeedName = "exact",
    reuse: str | None = None,
    order: int | None = None,
    guidance_reuse: str | None = None,
    regions: str | None = None,
) -> Speed:
    """What a run with this schedule leaves out. None stands for what the level says. Raises UsageError."""
    bundle = BUNDLES[level]
    ways = bundle or BUNDLES[AUTO_LEVEL]
    assert ways is not None
    many = few = None
    if reuse != OFF and (reuse is not None or bundle is not None):
        many, few = _step_reuse(ways, schedule, reuse, order)
    said = guidance_reuse if guidance_reuse is not None else OFF if bundle is None else bundle.guidance_reuse
    parts = regions if regions is not None else OFF if bundle is None else bundle.regions
    few = None if few == many else few
    found = Speed(reuse=many, guidance=guidance_of(said), regions=regions_of(parts), few=few)
    return EXACT if found.is_exact else found


def _step_reuse(
    ways: Bundle, schedule: ScheduleKind, reuse: str | None, order: int | None
) -> tuple[StepReuse, StepReuse]:
    """Step reuse of items with many steps, and with few."""
    if reuse == AUTO:
        auto = BUNDLES[AUTO_LEVEL]
        assert auto is not None
        thresholds = auto.many[schedule], auto.few[schedule]
    elif reuse is None:
        thresholds = ways.many[schedule], ways.few[schedule]
    else:
        thresholds = (threshold_of(reuse),) * 2
    orders = ways.orders if order is None else (order, order)
    many, few = (
        StepReuse(threshold=one, order=way, most=ways.most) for one, way in zip(thresholds, orders, strict=True)
    )
    return many, few
