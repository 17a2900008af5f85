"""The figures of `joyedit bench --gpus`: for a person, and for a program. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from joyedit.job.run_config import RunConfig
from joyedit.runtime.bench.batch import BenchConfig


@dataclass(frozen=True, kw_only=True)
class ScalingRow:
    """What some GPUs did together. `workers` are those that made items of their own: single GPUs, or groups.

    `seconds` are from the first batch that was given to the last picture that came. `exchanged` are bytes that rank 0
    sent to other ranks for an image, None without groups. `idle` is the share of the time in which the devices had no
    batch; `apart` the largest difference of a level to what one GPU makes, from 0 to 255.
    """

    gpus: int
    workers: int
    layout: str
    images: int
    seconds: float
    exchanged: float | None
    idle: float | None
    peak_memory: int | None
    apart: int = 0

    @property
    def images_per_second(self) -> float:
        """All workers together."""
        return self.images / self.seconds

    @property
    def seconds_an_image(self) -> float:
        """For one worker."""
        return self.seconds * self.workers / self.images


@dataclass(frozen=True, kw_only=True)
class ScalingReport:
    """All of it; `rows` for a person, `to_dict` for a program."""

    config: BenchConfig
    device: str
    parallel: str
    torch: str
    scaling: tuple[ScalingRow, ...]

    @classmethod
    def of(cls, config: BenchConfig, run: RunConfig, device: str, rows: Sequence[ScalingRow]) -> ScalingReport:
        """The report of these rows; the first one is that of one GPU."""
        return cls(
            config=config, device=device, parallel=run.parallel, torch=_version_of("torch"), scaling=tuple(rows)
        )  # fmt: skip

    def gain(self, row: ScalingRow) -> float:
        """Images a second, as a multiple of one GPU's."""
        return row.images_per_second / self.scaling[0].images_per_second

    def to_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        for row, raw in zip(self.scaling, plain["scaling"], strict=True):
            raw["images_per_second"] = row.images_per_second
            raw["seconds_an_image"] = row.seconds_an_image
            raw["gain"] = self.gain(row)
            raw["efficiency"] = self.gain(row) / row.gpus
        return plain

    def rows(self) -> list[tuple[str, str]]:
        config = self.config
        what = f"random {config.size}, {config.basesize} pixels, {config.references} references, {config.steps} steps"
        rows = [("device", f"{self.device}, torch {self.torch}"), ("edits", f"{what}, batch {config.batch_size}")]
        return rows + [(self._label(row), self._text(row)) for row in self.scaling]

    def _label(self, row: ScalingRow) -> str:
        if row.gpus == 1:
            return "1 GPU" if not self.device.startswith("cpu") else "1 process"
        many = "GPUs" if not self.device.startswith("cpu") else "processes"
        groups = f"{row.workers} x " if row.workers > 1 and row.layout != "data" else ""
        return f"{row.gpus} {many}, {groups}{row.layout}"

    def _text(self, row: ScalingRow) -> str:
        told = [f"{row.images_per_second:.4g} images/s", f"{row.seconds_an_image:.4g} s an image"]
        if row.gpus > 1:
            told.append(f"{self.gain(row):.3f} times one, efficiency {self.gain(row) / row.gpus:.1%}")
        if row.exchanged is not None:
            told.append(f"{row.exchanged / 1e6:.4g} MB sent an image")
        if row.idle is not None:
            told.append(f"idle {row.idle:.1%}")
        if row.gpus > 1:
            told.append("pictures identical" if not row.apart else f"pictures at most {row.apart} levels apart")
        return ", ".join(told)


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
