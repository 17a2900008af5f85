"""All workers of a run: started together, started again when they die, and given up where that does not help.

`Fleet` is what the run has for its loaded model. It waits for the first worker; the others join when they are ready.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from joyedit.errors import DeviceError
from joyedit.job.pictures import machine_memory
from joyedit.job.run_config import RunConfig
from joyedit.job.sizes import Size
from joyedit.runtime.pipeline.threads import StoppedError
from joyedit.runtime.protocol import BackendInfo
from joyedit.runtime.workers import messages
from joyedit.runtime.workers.grouping import in_words
from joyedit.runtime.workers.place import Place
from joyedit.runtime.workers.process import PATIENCE, WorkerEndedError, WorkerProcess
from joyedit.runtime.workers.shared_weights import open_shared

LOADING_DEATHS = 2
"""A worker that dies so often in a row while it loads is given up."""
BARREN_DEATHS = 3
"""So is one that dies so often without an item between, where that was not the doing of its item."""
_POLL = 0.1
_ANSWER_SECONDS = 30.0

Events = queue.SimpleQueue[tuple[WorkerProcess, object] | None]


class Member:
    """One place and the process that serves it now. `loaded` is what that said when it was ready for batches."""

    def __init__(self, place: Place, process: WorkerProcess) -> None:
        self.place = place
        self.process = process
        self.loaded: messages.Loaded | None = None
        self.is_given_up = False
        self.deaths = 0
        self.loading_deaths = 0
        self.barren_deaths = 0
        self.peak: int | None = None
        self.predicted: int | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it takes batches."""
        return self.loaded is not None and not self.is_given_up


class Fleet:
    """See the top of the file. Raises, when it is made, what loading raises in a worker, or DeviceError.

    `notes` are remarks for the user that nobody has told yet; any thread may take from its left.
    """

    def __init__(self, places: Sequence[Place], config: RunConfig, *, one_by_one: bool = False) -> None:
        expected = config.expected_items
        count = len(places) if expected is None else min(len(places), max(1, expected))
        self.events: Events = queue.SimpleQueue()
        self.notes: deque[str] = deque()
        self.members: list[Member] = []
        self._expected = expected
        self._most: int | None = None  # items of a batch, after a group had no room for more
        layout = places[0].layout
        processes = count * layout.world
        self._shared = open_shared() if processes > 1 else None  # takes no memory until a worker writes there
        own = replace(config_of(config, places[0], processes), shared_weights=self._shared)
        self._start = messages.Start("edit", own, one_by_one, layout)
        self._refusal: Exception | None = None  # why the first place was given up that could not load
        self._batch_sizes: dict[Size, int] = {}
        self._is_closed = False
        self._state = threading.Condition()
        try:
            for place in places[:count]:
                self.members.append(Member(place, WorkerProcess(place, self._start, self.events)))
            first = self._first_loaded()
        except BaseException:
            self.close()
            raise
        self.encode_ahead = first.encode_ahead
        device = of_several(first.info.device, count)
        if layout.world > 1:
            device = in_words(places[:count], name_of_device(first.info.device))
        self.info = replace(first.info, device=device)

    def _first_loaded(self) -> messages.Loaded:
        while True:
            try:
                event = self.events.get(timeout=_POLL)
            except queue.Empty:
                self.look()
                continue
            if event is None:
                continue
            process, message = event
            if isinstance(message, messages.Ended):
                self.ended(self.member(process), message)
            else:
                self.heard(self.member(process), message)
            if isinstance(message, messages.Loaded):
                return message

    def member(self, process: WorkerProcess) -> Member:
        """The member that has, or had, this process."""
        return self.members[process.place.number]

    def wake(self) -> None:
        """Let whoever waits for `events` look at what else has changed."""
        self.events.put(None)

    def look(self) -> None:
        """See whether a process is gone without a word."""
        for member in self.members:
            member.process.look()

    def heard(self, member: Member, message: object) -> bool:
        """Take a message about loading; whether it was one. Raises what stops the run."""
        if isinstance(message, messages.Loaded):
            with self._state:
                member.loaded = message
                member.loading_deaths = 0
                self._state.notify_all()
            self._compare(member, message.info)
        elif isinstance(message, messages.NotLoaded):
            error = message.fault.of_run()
            if not isinstance(error, DeviceError):  # it would be the same everywhere
                raise error
            self._refusal = self._refusal or error
            self._give_up(member, str(error))
        elif isinstance(message, messages.TooLarge):
            self._take_fewer(member, message.size)
        else:
            return False
        return True

    def _take_fewer(self, member: Member, size: int) -> None:
        """A group had no room for a batch: workers that start from now on take half of it at most."""
        half = max(1, size // 2)
        self._most = half if self._most is None else min(half, self._most)
        self._start = replace(self._start, most=self._most)
        self.notes.append(
            f"{member.place.name} had no room for {size} items at once; batches have {self._most} at most"
        )

    def ended(self, member: Member, message: messages.Ended, *, is_blamed: bool = False) -> None:
        """Start a worker again that has died, or give it up. `is_blamed`: an item is known to be the reason.

        Raises DeviceError where no worker is left.
        """
        printed = next((line for line in reversed(member.process.printed) if line), "")
        how = f"{message.how}: {printed}" if printed else message.how
        with self._state:
            was_loading, member.loaded = member.loaded is None, None
        member.process.close()
        if member.is_given_up:
            return
        member.deaths += 1
        if was_loading:
            member.loading_deaths += 1
        elif not is_blamed:
            member.barren_deaths += 1
        if member.loading_deaths >= LOADING_DEATHS:
            self._give_up(member, f"it died {member.loading_deaths} times while it loaded ({how})")
        elif member.barren_deaths >= BARREN_DEATHS:
            self._give_up(member, f"it died {member.barren_deaths} times without a finished item ({how})")
        else:
            self.notes.append(f"{member.place.name} died ({how}) and starts again")
            member.process = WorkerProcess(member.place, self._start, self.events)

    def _give_up(self, member: Member, why: str) -> None:
        with self._state:
            member.is_given_up, member.loaded = True, None
            left = [one for one in self.members if not one.is_given_up]
            self._state.notify_all()
        member.process.let_go()
        if left:
            self.notes.append(f"{member.place.name} is left out: {why}")
        elif self._refusal is not None:
            raise self._refusal
        else:
            raise DeviceError(f"no worker process is left; {member.place.name}: {why}")

    def _compare(self, member: Member, info: BackendInfo) -> None:
        """Say where a worker does not work as the first one: records name the kernels of that."""
        own: BackendInfo | None = getattr(self, "info", None)
        if own is not None and (own.dtype, own.attention) != (info.dtype, info.attention):
            self.notes.append(f"{member.place.name} works in {info.dtype} with attention {info.attention}")

    def ready(self) -> list[Member]:
        """The members that take batches now."""
        return [member for member in self.members if member.is_ready]

    def auto_batch_size(self, target: Size) -> int:
        """As a worker says; but no more than its share, where all items of the run are few.

        Raises StoppedError after the end of the run, and DeviceError where no worker is left.
        """
        if target not in self._batch_sizes:
            self._batch_sizes[target] = self._ask_any(lambda process: process.ask("batch size", target))
        share = None if self._expected is None else max(1, -(-self._expected // len(self.members)))
        return min(size for size in (self._batch_sizes[target], share, self._most) if size is not None)

    def _ask_any(self, ask: Callable[[WorkerProcess], Any]) -> int:
        while True:
            with self._state:
                ready = self.ready()
                if not ready:
                    if self._is_closed:
                        raise StoppedError
                    if all(member.is_given_up for member in self.members):
                        raise DeviceError("no worker process is left")
                    self._state.wait(_POLL)
                    continue
            try:
                return int(ask(ready[0].process).result())
            except WorkerEndedError:
                time.sleep(_POLL)  # until its end was heard of

    def matmul_tflops(self) -> float | None:
        """As one worker measures it; None where none answers."""
        for member in self.ready()[:1]:
            try:
                value: float | None = member.process.ask("matmul").result(timeout=_ANSWER_SECONDS)
                return value
            except Exception:  # it died, it is busy, or it cannot measure: a report without this figure
                return None
        return None

    def peak_memory(self) -> int | None:
        """The largest of the workers."""
        return max((member.peak for member in self.members if member.peak is not None), default=None)

    def predicted_peak(self) -> int | None:
        """The largest of the workers."""
        return max((member.predicted for member in self.members if member.predicted is not None), default=None)

    def close(self) -> None:
        """End all workers, and wait for that."""
        with self._state:
            self._is_closed = True
            self._state.notify_all()
        for member in self.members:
            member.process.let_go()
        end = time.monotonic() + PATIENCE  # for all of them together
        for member in self.members:
            member.process.close(max(0.0, end - time.monotonic()))
        if self._shared is not None:
            os.close(self._shared)
            self._shared = None


def config_of(config: RunConfig, place: Place, count: int) -> RunConfig:
    """The configuration of each of `count` processes: they share the memory of the machine."""
    free = machine_memory.available_bytes()
    spare = machine_memory.SPARE
    share = None if free is None else max(0, free - spare) // count + spare
    device = config.device if not place.devices else "cuda"
    return replace(config, device=device, workers=1, host_memory=share, shared_memory=free)


def name_of_device(device: str) -> str:
    """`2 x cuda (NVIDIA H200)`, as a group calls its devices, -> `NVIDIA H200`; `2 x cpu (1 threads)` -> `cpu`."""
    kind, _, name = (device.partition(" x ")[2] or device).partition(" ")
    return name.strip("()") if name and kind != "cpu" else kind


def of_several(device: str, count: int) -> str:
    """The device of `count` workers, from that of one: `cuda (NVIDIA H200)` -> `cuda (2 x NVIDIA H200)`."""
    found = re.fullmatch(r"(\S+) \((.*)\)", device)
    if count == 1:
        return device
    return f"{found[1]} ({count} x {found[2]})" if found else f"{device} ({count} workers)"
