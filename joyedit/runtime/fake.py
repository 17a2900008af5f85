"""A backend without networks, for tests: same protocol, same pictures every time, no torch.

An edit tints the last reference with a colour that is hashed from instruction, negative prompt, seed and
LoRAs; text to image is a flat picture of that colour. Instructions that hold one of these words fail:

    FAIL-BATCH    `denoise` raises RuntimeError for the whole batch
    FAIL-ENCODE   `encode` raises ItemError("instruction_too_long") for the whole batch
    FAIL-NAN      the item's latents are not finite
    FAIL-OOM      `denoise` raises OutOfMemory, alone or in company
    INTERRUPT     `denoise` raises KeyboardInterrupt
    SIGNAL        `denoise` sends SIGINT to its own process, as Ctrl-C would
    TWICE         the same, two times
    SLEEP         `denoise` takes half a second
    SIGKILL       `denoise` kills its own process, as a system without memory would

`JOYEDIT_FAKE_ROOM` is the number of items that fit on the device: a larger batch raises OutOfMemory.
`JOYEDIT_FAKE_LOAD` makes loading fail: `kill` kills the process, `checkpoint`, `device` and `bug` raise
CheckpointError, DeviceError and RuntimeError; `late` lets `ready` raise CheckpointError. With `:1` behind it, that
happens in worker 1 alone.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from joyedit.errors import CheckpointError, DeviceError, ItemError
from joyedit.job.run_config import RunConfig
from joyedit.job.sizes import Size
from joyedit.job.speed.settings import BlockSteps
from joyedit.runtime.protocol import BackendInfo, DeviceStage, HostTimestamp, OutOfMemory, ReadyBatch

ROOM = "JOYEDIT_FAKE_ROOM"
LOAD = "JOYEDIT_FAKE_LOAD"


@dataclass(frozen=True, kw_only=True, slots=True)
class FakeLatents:
    """What the fake hands from `encode` to `denoise` and on to `decode`."""

    batch: ReadyBatch
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FakePending:
    """Pictures that are there already."""

    pictures: list[Image.Image]
    broken: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def is_finite(self, place: int) -> bool:
        """False for those whose instruction asks for it."""
        return place not in self.broken

    def picture(self, place: int) -> Image.Image:
        """As it is."""
        return self.pictures[place]


class FakeBackend:
    """See the top of the file. `calls` counts each method; `batches` lists the item ids that came in."""

    def __init__(self, config: RunConfig, batch_size: int = 4) -> None:
        self.info = BackendInfo(
            model=config.model or "fake",
            layout="fake",
            device="cpu" if config.device == "auto" else config.device,
            dtype="fp32" if config.dtype == "auto" else config.dtype,
            attention="sdpa" if config.attention == "auto" else config.attention,
            schedule="original" if config.schedule == "auto" else config.schedule,
            identity=f"fake {config.model}",
            precision=config.precision,
        )
        self.encode_ahead = 1 if config.offload == "auto" else 4
        self.room = int(os.environ.get(ROOM, "1000000"))
        self.calls: Counter[str] = Counter()
        self.batches: list[tuple[str, ...]] = []
        self._batch_size = batch_size

    def prepare(self, batches: Sequence[ReadyBatch]) -> None:
        """Count the call."""
        self.calls["prepare"] += 1

    def encode(self, batch: ReadyBatch) -> FakeLatents:
        """Refuse pictures that are not of their bucket's size; otherwise hand everything on."""
        self.calls["encode"] += 1
        self.batches.append(tuple(ready.item.id for ready in batch.items))
        for ready in batch.items:
            if "FAIL-ENCODE" in ready.item.instruction:
                raise ItemError("instruction_too_long", "the instruction is too long")
            sizes = tuple((picture.height, picture.width) for picture in ready.pictures)
            if sizes != ready.sized.references:
                raise ValueError(f"pictures of {sizes} for references of {ready.sized.references}")
        return FakeLatents(batch=batch, steps=batch.items[0].item.sampling.steps)

    def denoise(self, encoded: FakeLatents, on_step: Callable[[int, int], None]) -> FakeLatents:
        """Count the steps, and fail where an instruction asks for it."""
        self.calls["denoise"] += 1
        if len(encoded.batch.items) > self.room:
            raise OutOfMemory(f"no room for {len(encoded.batch.items)} items")
        for ready in encoded.batch.items:
            if "FAIL-OOM" in ready.item.instruction:
                raise OutOfMemory("no room for this one")
            if "INTERRUPT" in ready.item.instruction:
                raise KeyboardInterrupt
            for _ in range(("SIGNAL" in ready.item.instruction) + 2 * ("TWICE" in ready.item.instruction)):
                signal.raise_signal(signal.SIGINT)
            if "SIGKILL" in ready.item.instruction:
                os.kill(os.getpid(), signal.SIGKILL)
            if "SLEEP" in ready.item.instruction:
                time.sleep(0.5)
            if "FAIL-BATCH" in ready.item.instruction:
                raise RuntimeError("the fake device failed, as the instruction asked")
        for step in range(encoded.steps):
            on_step(step + 1, encoded.steps)
        return encoded

    def ready(self) -> None:
        """There is nothing to wait for. Raises what the environment asks for."""
        if _fault_of_load() == "late":
            raise CheckpointError("the fake checkpoint is damaged")

    def decode_later(self, latents: FakeLatents) -> FakePending:
        """The pictures of `decode`, at once."""
        items = latents.batch.items
        broken = tuple(place for place, ready in enumerate(items) if "FAIL-NAN" in ready.item.instruction)
        return FakePending(pictures=self.decode(latents), broken=broken)

    def decode(self, latents: FakeLatents) -> list[Image.Image]:
        """One tinted picture for each item."""
        self.calls["decode"] += 1
        pictures = []
        for ready in latents.batch.items:
            height, width = ready.sized.target
            sampling = ready.item.sampling
            message = f"{ready.item.instruction}\0{sampling.negative_prompt}\0{sampling.seed}"
            message += "".join(f"\0{lora.sha256}:{lora.scale}" for lora in ready.item.loras)
            red, green, blue = hashlib.sha256(message.encode("utf-8", "surrogatepass")).digest()[:3]
            picture = Image.new("RGB", (width, height), (red, green, blue))
            if ready.pictures:
                picture = Image.blend(ready.pictures[-1].resize((width, height)), picture, 0.25)
            pictures.append(picture)
        return pictures

    def timestamp(self, stage: DeviceStage) -> HostTimestamp:
        """Nothing runs behind."""
        return HostTimestamp()

    def operations(self, encoded: FakeLatents) -> Mapping[DeviceStage, int]:
        """A fake computes nothing."""
        return {}

    def block_steps(self, encoded: FakeLatents) -> Sequence[BlockSteps]:
        """A fake computes nothing."""
        return ()

    def matmul_tflops(self) -> float | None:
        """A fake has no device."""
        return None

    def peak_memory(self) -> int | None:
        """A fake has no device memory."""
        return None

    def predicted_peak(self) -> int | None:
        """A fake has no device memory."""
        return None

    def auto_batch_size(self, target: Size) -> int:
        """The same for every target."""
        return self._batch_size

    def free_memory(self) -> None:
        """Only counted."""
        self.calls["free_memory"] += 1

    def close(self) -> None:
        """Only counted."""
        self.calls["close"] += 1


def load_backend(config: RunConfig) -> FakeBackend:
    """The fake, whatever the model is called. Raises what the environment asks for."""
    fault = _fault_of_load()
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "checkpoint":
        raise CheckpointError("the fake checkpoint is not there")
    if fault == "device":
        raise DeviceError("the fake device is not there")
    if fault == "bug":
        raise RuntimeError("the fake has a bug")
    return FakeBackend(config)


def _fault_of_load() -> str:
    """What the environment asks for in this process."""
    fault, _, worker = os.environ.get(LOAD, "").partition(":")
    return fault if worker in ("", os.environ.get("JOYEDIT_WORKER")) else ""
