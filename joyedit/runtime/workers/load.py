"""What a run with several workers has in place of a backend, and of looking at a model in its own process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from joyedit.job.run_config import RunConfig
from joyedit.runtime.model import DescribeModel, LoadModel, describe_without_loading, is_fake
from joyedit.runtime.protocol import BackendInfo, LoadedModel
from joyedit.runtime.workers.fleet import Fleet, config_of, of_several
from joyedit.runtime.workers.grouping import grouped
from joyedit.runtime.workers.one_question import ask_worker
from joyedit.runtime.workers.place import Place


def fleet_loader(places: Sequence[Place], *, one_by_one: bool) -> LoadModel:
    """The function that starts the workers, at these places of one device each or in groups of them.

    `one_by_one`: the source may wait for a result before the next item.
    """

    def load(config: RunConfig) -> LoadedModel:
        return Fleet(grouped(places, config.parallel, config), config, one_by_one=one_by_one)

    return load


def describer(places: Sequence[Place]) -> DescribeModel:
    """As `describe_without_loading`, but that a process at the first place looks, if torch is needed for it."""

    def describe(config: RunConfig) -> BackendInfo:
        if is_fake(config.model):
            return describe_without_loading(config)
        info = ask_worker("describe", places[0], config_of(config, places[0], 1))
        return replace(info, device=of_several(info.device, len(places)))

    return describe
