"""What the run loop asks of a device: the protocol between `run` and the networks. No torch here.

One batch passes `encode`, `denoise` and `decode` in turn, all called from one thread. What goes
from one to the next is the backend's own affair, and `run` hands it on unopened.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from joyedit.errors import UsageError
from joyedit.job.spec import Batch, RunConfig, Settings, Size

if TYPE_CHECKING:
    from PIL import Image

FAKE_MODEL = "fake"
FAKE_SWITCH = "JOYEDIT_FAKE"
"""Set to 1, the model name `fake` stands for a backend without networks, for tests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendInfo:
    """What was loaded and what is in force; every `auto` is decided here.

    `layout` names the kind of checkpoint that was recognised; `load_seconds` is the time that the
    backend itself took to load; `notes` are remarks for the user. `identity` tells checkpoints apart;
    where it is empty, the files of the checkpoint are looked at. `compile_seconds` of `load_seconds` went
    into compiling, where `compiled`.
    """

    model: str
    layout: str
    device: str
    dtype: str
    attention: str
    schedule: str
    identity: str = ""
    load_seconds: float = 0.0
    compiled: bool = False
    compile_seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchInput:
    """A batch and its pictures: for each item, for each reference, RGB and already of its bucket's size."""

    batch: Batch
    pictures: tuple[tuple[Image.Image, ...], ...]


class OutOfMemory(Exception):  # noqa: N818 - what it is, in every backend
    """The device has no room for this batch. A smaller one may fit."""


class Backend(Protocol):
    """A loaded model on a device. `encode`, `denoise` and `decode` may raise `OutOfMemory`."""

    info: BackendInfo

    def encode(self, batch: BatchInput) -> Any:
        """Instructions and pictures -> conditioning."""

    def denoise(self, encoded: Any, on_step: Callable[[int, int], None]) -> Any:
        """Conditioning -> latents. `on_step(done, total)` is called after each step."""

    def not_finite(self, latents: Any) -> tuple[int, ...]:
        """The places in the batch of those items whose latents hold a NaN or an infinity."""

    def decode(self, latents: Any) -> list[Image.Image]:
        """Latents -> one RGB picture of the target's size for each item, in order."""

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""

    def peak_memory(self) -> int | None:
        """The most bytes in use on the device so far; None if that is not known."""

    def auto_batch_size(self, target: Size) -> int:
        """How many items of this target (height, width) fit on the device at once; at least 1."""

    def free_memory(self) -> None:
        """Give back what is kept for later use, after `OutOfMemory`."""

    def close(self) -> None:
        """Give the device's memory back."""


LoadBackend = Callable[[RunConfig], Backend]


def backend_loader(model: str | None) -> LoadBackend:
    """The function that loads `model`. Nothing heavy is imported before that function is called."""
    if _is_fake(model):
        from joyedit.runtime.fake import load_backend as load_fake

        return load_fake
    if model is None:
        raise UsageError("no model is given: name a checkpoint with --model PATH|HUB-ID or in JOYEDIT_MODEL")

    def load(config: RunConfig) -> Backend:
        from joyedit.runtime.joyimage import load_backend

        return load_backend(config)

    return load


def model_settings(model: str | None) -> Settings:
    """The default settings that a checkpoint itself brings; none without a model."""
    if model is None or _is_fake(model):
        return Settings()
    from joyedit.weights.defaults import checkpoint_defaults

    return checkpoint_defaults(model)


def _is_fake(model: str | None) -> bool:
    return model == FAKE_MODEL and os.environ.get(FAKE_SWITCH) == "1"
