"""What a run over Ray has in place of a loaded model: the actors load it, when the first batch comes to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from joyedit.errors import JoyeditError, UsageError
from joyedit.job.results.objects.uploader import JournalUploader
from joyedit.job.run_config import RunConfig
from joyedit.job.sizes import Size
from joyedit.job.spec import Batch, Lora, SizedItem
from joyedit.printable import brief
from joyedit.runtime.model import describe_without_loading, is_fake
from joyedit.runtime.protocol import BackendInfo, LoadedModel
from joyedit.runtime.ray_engine import environment
from joyedit.runtime.ray_engine.cluster import Actors, Cluster, is_lost, why
from joyedit.runtime.workers.faults import Fault
from joyedit.runtime.workers.fleet import of_several
from joyedit.runtime.workers.gpus import MOST
from joyedit.weights.defaults import NANO, local_folder
from joyedit.weights.wanted import Wanted

MOST_ITEMS = 8
"""Items of a planned batch where nobody says: each actor divides it by what fits its own device."""


class RayEngine:
    """The cluster of one run, connected to when the run needs it. `load` and `describe` are what a run asks of a model.

    `wish` is what `--gpus` says, None if it is not given: then all GPUs of the cluster. `uploader` is that of an output
    on an object store, where there is one.
    """

    def __init__(self, wish: str | None) -> None:
        self._wish = read_wish(wish)
        self._cluster: Cluster | None = None
        self._described: BackendInfo | None = None
        self.uploader: JournalUploader | None = None

    def load(self, config: RunConfig) -> LoadedModel:
        """Connect, and say what the actors will load. Raises as `describe`."""
        info = self.describe(config)
        cluster = self._open()
        return RayModel(cluster, self.actors(config), config, info, self.uploader)

    def actors(self, config: RunConfig) -> Actors:
        """Raises DeviceError where the cluster has not what was asked for."""
        return self._open().actors(self._wish, config.device, is_fake=is_fake(config.model))

    def describe(self, config: RunConfig) -> BackendInfo:
        """What loading will tell of the model. A task where an actor would be looks, because this machine may have no
        GPU. Raises CheckpointError, DeviceError, and JoyeditError where Ray fails.
        """
        actors = self.actors(config)
        if self._described is None:
            info = describe_without_loading(config) if is_fake(config.model) else _ask(config, actors)
            self._described = replace(info, device=of_several(info.device, actors.count))
        return self._described

    def close(self) -> None:
        """Leave the cluster. A second call does nothing."""
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    def _open(self) -> Cluster:
        if self._cluster is None:
            self._cluster = Cluster()
        return self._cluster


class RayModel:
    """A `LoadedModel` of which nothing is in this process."""

    def __init__(
        self,
        cluster: Cluster,
        actors: Actors,
        config: RunConfig,
        info: BackendInfo,
        uploader: JournalUploader | None = None,
    ) -> None:
        self.cluster = cluster
        self.uploader = uploader
        self.actors = actors
        self.config = config
        self.info = info
        self.peak: int | None = None
        self.predicted: int | None = None

    def auto_batch_size(self, target: Size) -> int:
        """Few enough that all actors have some."""
        expected = self.config.expected_items
        share = MOST_ITEMS if expected is None else -(-expected // self.actors.count)
        return max(1, min(MOST_ITEMS, share))

    def matmul_tflops(self) -> float | None:
        """Nobody measures: the actors are gone when the report is written."""
        return None

    def peak_memory(self) -> int | None:
        """The largest of the actors."""
        return self.peak

    def predicted_peak(self) -> int | None:
        """The largest of the actors."""
        return self.predicted

    def close(self) -> None:
        """The engine closes the connection."""


def read_wish(text: str | None) -> str | int:
    """`all`, or a number of actors. Raises UsageError: Ray chooses the GPUs, so they have no indices."""
    if text is None or text == "all":
        return "all"
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST):
        raise UsageError(
            f"--gpus {brief(text)}: with --engine ray it takes all, or a number of GPUs of the cluster from 1 to {MOST}"
        )
    return int(text)


def _ask(config: RunConfig, actors: Actors) -> BackendInfo:
    import ray

    device = "cuda" if actors.is_gpu else config.device
    task = ray.remote(_describe).options(**actors.resources(), max_retries=2)
    there = environment.own()
    try:
        found = ray.get(task.remote(replace(absolute(config), device=device), there))
    except Exception as error:
        what = "a machine died" if is_lost(error) else "joyedit cannot run there"
        raise JoyeditError(f"--engine ray: a machine was to look at the model, but {what}: {why(error)}") from error
    if isinstance(found, Fault):
        raise found.of_run()
    assert isinstance(found, BackendInfo)
    return replace(found, model=Wanted.of(config).label)


def _describe(config: RunConfig, variables: Mapping[str, str]) -> BackendInfo | Fault:
    """The task."""
    environment.take(variables)
    try:
        return describe_without_loading(config)
    except Exception as error:
        return Fault.of(error)


def absolute(config: RunConfig) -> RunConfig:
    """The configuration with paths that mean the same in any folder."""
    names = {name: _path(getattr(config, name)) for name in ("dit", "vae", "tokenizer")}
    encoder = config.encoder
    if encoder is not None and not os.path.exists(encoder):  # two files with a comma
        encoder = ",".join(str(_path(part)) for part in encoder.split(","))
    return replace(
        config,
        output=Path(os.path.abspath(config.output)),
        model=model_path(config.model),
        encoder=_path(encoder),
        merged_loras=tuple(map(_lora, config.merged_loras)),
        lora_sets=tuple(tuple(map(_lora, one)) for one in config.lora_sets),
        **names,  # type: ignore[arg-type]
    )


def absolute_batch(batch: Batch) -> Batch:
    """The batch with paths that mean the same in any folder, and without what only the driver needs."""
    return replace(batch, items=tuple(map(_absolute_item, batch.items)))


def _absolute_item(sized: SizedItem) -> SizedItem:
    item = sized.item
    lean: Any = replace(
        item,
        images=tuple(_reference(one) for one in item.images),
        mask=None if item.mask is None else _reference(item.mask),
        loras=tuple(map(_lora, item.loras)),
        other_ids=(),
        owns="none",
        columns=None,
    )
    return replace(sized, item=lean)


def _reference(one: Any) -> Any:
    return Path(os.path.abspath(one)) if isinstance(one, Path) else one


def _lora(lora: Lora) -> Lora:
    return replace(lora, file=Path(os.path.abspath(lora.file)))


def model_path(model: str | None) -> str | None:
    """The absolute path of a folder; names of the hub and of joyedit stay."""
    folder = None if model is None or model == NANO or is_fake(model) else local_folder(model)
    return model if folder is None else os.path.abspath(folder)


def _path(text: str | None) -> str | None:
    """The absolute path of a file or folder that is there."""
    path = None if text is None else os.path.expanduser(text)
    return os.path.abspath(path) if path is not None and os.path.exists(path) else text


def needed_paths(config: RunConfig) -> list[str]:
    """Files and folders of the model, on this machine: each machine of the cluster needs them."""
    found = absolute(config)
    given = [found.model, found.dit, found.vae, found.tokenizer, *(found.encoder or "").split(",")]
    loras = [str(lora.file) for one in (found.merged_loras, *found.lora_sets) for lora in one]
    return [path for path in (*given, *loras) if path and os.path.isabs(path) and os.path.exists(path)]
