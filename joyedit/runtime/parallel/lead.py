"""Rank 0 of a group of devices that make pictures together: one backend towards the run.

Each rank has a whole backend. Rank 0 tells the others every call. Of a batch each rank encodes some parts, texts behind
the same pictures or a picture's latent, as one device would do it, and answers what shapes they have. They are
exchanged when the batch is denoised, before the first step, so what a rank has in its cache decides nothing for others.
The denoising steps are shared. Decoding is rank 0's alone: meanwhile the others may encode what comes next.

Before anything that ranks do together, all of them say that they are ready for it. So an error before it concerns its
call only: rank 0 raises it, and the group goes on. An error in the midst of it leaves the ranks out of step: rank 0
then raises `GroupLost`, now and in every later call.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

from PIL import Image
from torch import Tensor

from joyedit.errors import DeviceError, first_line
from joyedit.job.run_config import RunConfig
from joyedit.job.sizes import Size
from joyedit.job.speed.settings import BlockSteps
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.denoise import PartSpec
from joyedit.runtime.joyimage.encoded import Encoded
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.runtime.joyimage.pixels import PendingPictures
from joyedit.runtime.parallel.follow import Facts, use_device
from joyedit.runtime.parallel.links import Links
from joyedit.runtime.parallel.outcome import OK, Outcome
from joyedit.runtime.parallel.place import Place
from joyedit.runtime.parallel.ranks import GroupRanks
from joyedit.runtime.parallel.room import check_room
from joyedit.runtime.parallel.watch import Watch
from joyedit.runtime.protocol import DeviceStage, DeviceTimestamp, GroupLost, OutOfMemory, ReadyBatch

T = TypeVar("T")
Load = Callable[[RunConfig], JoyImageBackend]


def lead(config: RunConfig, place: Place, load: Load = load_backend) -> LeadBackend:
    """Load the model as rank 0 of a group, and wait for the other ranks, which call `follow` with the same `config`.

    Raises what `load` raises in any rank, DeviceError where ranks differ in what they can do, and GroupLost where one
    does not come.
    """
    use_device(place)
    links = Links.to_all(place)
    backend: JoyImageBackend | None = None
    try:
        backend = load(config)
        _agree_on_facts(links, backend)
        ranks = _meet(place, backend)
    except BaseException:
        links.close()
        if backend is not None:
            backend.close()
        raise
    return LeadBackend(backend, ranks, links, place)


def _meet(place: Place, backend: JoyImageBackend) -> GroupRanks:
    try:
        return GroupRanks(place, backend.device)
    except RuntimeError as error:  # torch has no other class for it
        raise GroupLost(f"the devices of a group do not find each other: {first_line(error)}") from error


def _agree_on_facts(links: Links, backend: JoyImageBackend) -> None:
    """Let all ranks compute in the same way."""
    own = Facts.of(backend)
    said = links.hear()  # Facts, or how the loading failed
    _raise_first([one for one in said if isinstance(one, Outcome)], said)
    for rank, facts in enumerate(said, 1):
        if replace(facts, attention=own.attention) != own:
            raise DeviceError(f"the GPUs of a group differ: rank 0 has {own}, rank {rank} has {facts}")
    links.tell(own.attention)
    said = links.hear()
    _raise_first(said, said)


def _raise_first(outcomes: Sequence[Outcome], said: Sequence[object]) -> None:
    """Raise the first rank's error, if there is one. Lack of memory comes last: the others say more."""
    for outcome in sorted(outcomes, key=lambda one: one.is_out_of_memory):
        error = outcome.error(1 + next(place for place, one in enumerate(said) if one is outcome))
        if error is not None:
            raise error


class SharedBatch:
    """An encoded batch: every rank has parts of it under the same number. When rank 0 forgets it, the others do so too.

    `specs` are the parts of all ranks, by number.
    """

    def __init__(self, number: int, own: Encoded, specs: Mapping[int, PartSpec], forgotten: deque[int]) -> None:
        self.number = number
        self.own = own
        self.specs = specs
        weakref.finalize(self, forgotten.append, number).atexit = False


class LeadBackend:
    """The group as one backend. Call it from one thread, but for `auto_batch_size`, timestamps and peaks."""

    def __init__(self, backend: JoyImageBackend, ranks: GroupRanks, links: Links, place: Place) -> None:
        self.ranks = ranks
        self._backend = backend
        self._links = links
        self._layout = place.layout
        self._lost: GroupLost | None = None
        self._forgotten: deque[int] = deque()
        self._numbers = count()
        self.encode_ahead = backend.encode_ahead
        backend.ranks = ranks
        own = backend.info
        self.info = replace(
            own,
            device=f"{place.layout.world} x {own.device}",
            notes=(*own.notes, f"one picture over {place.layout.world} devices: {place.layout}"),
        )

    def prepare(self, batches: Sequence[ReadyBatch]) -> None:
        """As `JoyImageBackend.prepare`, in every rank."""
        self._together("prepare", lambda: self._backend.prepare(batches), list(batches))

    def encode(self, batch: ReadyBatch) -> SharedBatch:
        """As `JoyImageBackend.encode`, by all ranks."""
        number = next(self._numbers)
        share, said = self._together("encode", lambda: self._backend.encode_share(batch), (number, batch))
        specs, operations = share.parts.specs(0), share.operations
        for outcome in said:
            specs |= outcome.value.specs
            operations += outcome.value.operations
        return SharedBatch(number, share.encoded(specs, operations), specs, self._forgotten)

    def ready(self) -> None:
        """Wait until every rank has all networks."""
        self._together("ready", self._backend.ready)

    def denoise(self, encoded: SharedBatch, on_step: Callable[[int, int], None]) -> Tensor:
        """Latents (B, C, h, w), fp32, the same in every rank. `on_step` hears of rank 0's steps.

        Raises GroupLost for every error after the first step began.
        """
        self._tell("denoise", (encoded.number, encoded.specs))
        state, watch = "before", None

        def begin() -> None:
            nonlocal state, watch
            check_room(self._backend, encoded.own, self.ranks)
            state = "refused"
            said = self._hear()
            if any(outcome != OK for outcome in said):
                self._links_tell(False)
                _raise_first(said, said)
            self._links_tell(True)
            state, watch = "begun", Watch(self._links, self._layout.world - 1, self.ranks.abort)

        try:
            latents = self._backend.denoise(encoded.own, on_step, begin)
            failed = None if watch is None else watch.failed()
        except BaseException as error:
            if watch is not None or not isinstance(error, Exception):
                self._lose(error, None if watch is None else watch.why())
            elif state == "before":
                self._hear()
                self._links_tell(False)
            raise
        if failed is not None:
            self._lose(failed)
        return latents

    def decode_later(self, latents: Tensor) -> PendingPictures:
        """As `JoyImageBackend.decode_later`: rank 0 does it, and the others may go on."""
        return self._backend.decode_later(latents)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """As `JoyImageBackend.decode`."""
        return self._backend.decode(latents)

    def timestamp(self, stage: DeviceStage) -> DeviceTimestamp:
        """A timestamp of rank 0's device."""
        return self._backend.timestamp(stage)

    def operations(self, encoded: SharedBatch) -> Mapping[DeviceStage, int]:
        """Operations of the batch by formula, of all ranks together."""
        return self._backend.operations(encoded.own)

    def block_steps(self, encoded: SharedBatch) -> Sequence[BlockSteps]:
        """What ran in all ranks together."""
        return self._backend.block_steps(encoded.own)

    def matmul_tflops(self) -> float | None:
        """What all devices reach together, by rank 0's; None where that says nothing."""
        one = self._backend.matmul_tflops()
        return None if one is None else one * self._layout.world

    def peak_memory(self) -> int | None:
        """Of rank 0, which also decodes."""
        return self._backend.peak_memory()

    def predicted_peak(self) -> int | None:
        """None: the memory model speaks of one device that does everything."""
        return None

    def exchanged_bytes(self) -> int:
        """What rank 0 has sent to other ranks so far."""
        return sum(exchange.sent for exchange in self.ranks.exchanges())

    def auto_batch_size(self, target: Size) -> int:
        """So many items that each rank has as much to do as one device needs to be filled."""
        return self._backend.auto_batch_size(target) * self._layout.world

    def synchronize(self) -> None:
        """Wait until rank 0's device has done all that it was given."""
        self._backend.synchronize()

    def free_memory(self) -> None:
        """As `JoyImageBackend.free_memory`, in every rank."""
        self._together("free_memory", self._backend.free_memory)

    def close(self) -> None:
        """Give all devices' memory back; the other ranks end."""
        if self._lost is None:
            with suppress(GroupLost):  # it ends anyway
                self._tell("close", None)
        self.ranks.close(lost=self._lost is not None)
        self._links.close()
        self._backend.close()

    def _together(self, name: str, own: Callable[[], T], given: Any = None) -> tuple[T, list[Outcome]]:
        """Let all ranks do something that each of them does alone; gives rank 0's result, and what the others say.

        Raises rank 0's error, else the first of others.
        """
        self._tell(name, given)
        try:
            result = own()
        except Exception:
            self._hear()
            raise
        except BaseException as error:  # interrupted: the others' answers would be taken for later ones
            self._lose(error)
            raise
        said = self._hear()
        _raise_first(said, said)
        return result, said

    def _tell(self, name: str, given: Any) -> None:
        if self._lost is not None:
            raise self._lost
        forgotten = [self._forgotten.popleft() for _ in range(len(self._forgotten))]
        self._links_tell((name, given, forgotten))

    def _links_tell(self, message: Any) -> None:
        try:
            self._links.tell(message)
        except BaseException as error:  # interrupted, too: nobody knows who has heard it
            self._lose(error)
            raise

    def _hear(self) -> list[Outcome]:
        try:
            return self._links.hear()
        except BaseException as error:  # interrupted, too: the answers would be taken for later ones
            self._lose(error)
            raise

    def _lose(self, error: BaseException, why: Exception | None = None) -> None:
        """The ranks are out of step. Raises GroupLost for an error; an interruption is left to the caller.

        `why`: what another rank said. Where that failed first, rank 0 itself sees only that it is gone.
        """
        if isinstance(error, GroupLost):
            self._lost = error
        elif self._lost is None:
            message = f"the devices of a group are out of step: {first_line(why or error)}"
            self._lost = GroupLost(message, out_of_memory=isinstance(why or error, OutOfMemory))
        self._links.close()
        if isinstance(error, Exception):
            raise self._lost from None
