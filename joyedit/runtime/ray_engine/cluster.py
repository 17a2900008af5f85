"""The connection to a Ray cluster, what it has, and whether its machines see what the run needs.

Which cluster that is, Ray itself decides: the one of RAY_ADDRESS, else one that runs on this machine, else a new one of
this machine alone. A program that has connected to Ray already keeps its connection.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from joyedit.errors import DeviceError, JoyeditError, UsageError, first_line, os_reason
from joyedit.job.pictures.budget import PlainCaller
from joyedit.job.pictures.decoder_messages import caught_messages
from joyedit.job.results.report import joyedit_version
from joyedit.printable import printable
from joyedit.runtime.ray_engine import environment
from joyedit.runtime.ray_engine.look import Looked, look

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray's C++ part writes past Python, into the middle of a progress bar
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # its new behaviour, without a warning about it
}
_LOOK_SECONDS = 120.0
_CONNECT_SECONDS = 20.0
_CAUSE = "The above exception was the direct cause of the following exception:"
"""What stands in a text of Ray between two errors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Actors:
    """How many actors there are, and what each of them gets: a GPU, or this many CPUs."""

    count: int
    is_gpu: bool
    cpus: int = 1

    def resources(self) -> dict[str, float]:
        """As Ray has them."""
        return {"num_gpus": 1} if self.is_gpu else {"num_cpus": self.cpus}


class Cluster:
    """An open connection. Raises JoyeditError where Ray cannot be reached."""

    def __init__(self) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        self._owns = not ray.is_initialized()
        if not self._owns:
            return
        _refuse_silent_address()
        try:
            with _own_signals(), caught_messages(PlainCaller()):
                ray.init(
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except Exception as error:
            where = os.environ.get("RAY_ADDRESS")
            remedy = f"RAY_ADDRESS is {printable(where)}" if where else "ray status says whether one runs here"
            raise JoyeditError(f"there is no connection to a Ray cluster: {first_line(error)} ({remedy})") from error
        silence()

    def actors(self, wish: str | int, device: str, *, is_fake: bool) -> Actors:
        """The actors that `--gpus` stands for. Raises DeviceError where the cluster has not so much."""
        import ray

        if device == "cpu" or is_fake:
            count = wish if isinstance(wish, int) else 1
            machines = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
            share = cpus_of_each(machines, count)
            if not share:
                raise DeviceError(
                    f"--gpus {count}: the Ray cluster has {sum(machines)} CPUs (take fewer, or add machines)"
                )
            return Actors(count=count, is_gpu=False, cpus=share)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = wish if isinstance(wish, int) else gpus
        if not gpus:
            raise DeviceError(
                "--engine ray: the Ray cluster has no GPU (ray status shows what it has; --device cpu --gpus 2 tries it"
                " on CPUs)"
            )
        if count > gpus:
            raise DeviceError(f"--gpus {count}: the Ray cluster has {gpus} GPUs; --gpus all takes what there is")
        return Actors(count=count, is_gpu=True)

    def check(self, output: str, token: bytes, paths: Sequence[str]) -> None:
        """See whether every machine has this joyedit, the output folder with its lock, and these files and folders.

        `token` is what the lock file holds; of an address of an object store it is in the lock there. Raises
        UsageError, which names the machine and what it lacks.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = ray.remote(look)
        asked: dict[Any, str] = {}
        for node in ray.nodes():
            if node["Alive"]:
                here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                made = task.options(num_cpus=0, max_retries=0, scheduling_strategy=here)
                asked[made.remote(output, token, tuple(paths), environment.own())] = str(node["NodeManagerHostname"])
        faults = []
        ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK_SECONDS)
        for one in ready:
            try:
                faults += _faults(asked[one], ray.get(one))
            except Exception as error:
                if not is_lost(error):
                    faults.append(f"{asked[one]}: joyedit cannot run there: {why(error)}")
        faults += [f"{asked[one]}: it does not answer" for one in late]
        if faults:
            told = "\n".join(dict.fromkeys(faults))
            raise UsageError(f"--engine ray: not all machines of the cluster can do this run\n{told}")

    def close(self) -> None:
        """Give the connection back; a cluster that was started for it ends."""
        import ray

        if self._owns and ray.is_initialized():
            with _own_signals():
                ray.shutdown()


def _refuse_silent_address() -> None:
    """Raises JoyeditError where nobody answers under RAY_ADDRESS: Ray itself would try for many minutes."""
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit()):  # `auto`, `local`, or what Ray itself refuses
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else first_line(error)
        raise JoyeditError(
            f"there is no connection to a Ray cluster: {printable(address)} does not answer: {reason} (RAY_ADDRESS"
            " names it; correct it, or start Ray there)"
        ) from error


def cpus_of_each(machines: Sequence[int], count: int) -> int:
    """The CPUs of each of `count` actors on machines with so many CPUs: the most with which all actors have a place.
    0 where they have none.

    An actor is on one machine. One that asks for more CPUs than any machine has would never start.
    """
    most = max(1, (sum(machines) - 1) // count)
    return next((cpus for cpus in range(most, 0, -1) if sum(one // cpus for one in machines) >= count), 0)


def _faults(node: str, found: Looked) -> list[str]:
    own = joyedit_version()
    if found.version != own:
        return [f"{node}: it has joyedit {found.version}, and this machine has {own}"]
    return [f"{node}: {fault}" for fault in found.faults]


def why(error: BaseException) -> str:
    """What Ray says went wrong on another machine, in one line: of a traceback the one that names the error, else the
    last one. Ray Data puts an error of its own behind that of a task, which says how to program retries.
    """
    text, is_wrapped, wrapper = str(error).rpartition(_CAUSE)
    if not (is_wrapped and "UserCodeException" in wrapper):
        text = str(error)
    lines = [line for line in text.splitlines() if line.strip()]
    traced = next((place for place in range(len(lines) - 1, -1, -1) if lines[place].startswith("  File ")), None)
    told = lines[-1:] if traced is None else [line for line in lines[traced:] if not line[0].isspace()][:1]
    return printable(told[0].strip())[:300] if told else type(error).__name__


def is_lost(error: BaseException) -> bool:
    """Whether a task failed because its machine or process is gone."""
    import ray

    lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError)
    return isinstance(error, lost)


def silence() -> None:
    """Keep Ray's remarks away from the terminal; Ray writes them into its own files as well."""
    importlib.import_module("ray.data")  # sets up its own logging
    for name in ("ray", "ray.data"):
        for handler in logging.getLogger(name).handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.CRITICAL + 1)
    # What machines report Ray prints to stdout, also without log_to_driver. It has no public switch for that.
    worker: Any = importlib.import_module("ray._private.worker")
    if hasattr(worker, "_worker_logs_enabled"):
        worker._worker_logs_enabled = False


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray sets a handler for SIGTERM. A run has its own, which it gets back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.getsignal(name) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            if handler is not None:
                signal.signal(name, handler)
