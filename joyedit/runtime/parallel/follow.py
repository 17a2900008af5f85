"""Any rank but the first of a group of devices that make pictures together: it does what rank 0 says.

`lead.py` says what the ranks agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from joyedit.job.run_config import RunConfig
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.denoise import PartSpec
from joyedit.runtime.joyimage.encoded import EncodedShare
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.runtime.parallel.links import link_to_first
from joyedit.runtime.parallel.outcome import OK, Outcome
from joyedit.runtime.parallel.place import Place
from joyedit.runtime.parallel.ranks import GroupRanks
from joyedit.runtime.parallel.room import check_room


def follow(
    config: RunConfig, place: Place, load: Callable[[RunConfig], JoyImageBackend] = load_backend
) -> None:  # fmt: skip
    """Load the model as one of the other ranks of a group, and serve rank 0 until it closes the group, or is gone.

    Raises what `load` raises, and what happens in the midst of what the ranks do together; the process should end then.
    """
    use_device(place)
    link = link_to_first(place)
    try:
        backend = _loaded(config, load, link)
        if backend is None:
            return
        try:
            _serve(backend, place, link)
        finally:
            backend.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):  # rank 0 is gone, and nobody wants anything more
        return
    finally:
        link.close()


def use_device(place: Place) -> None:
    """Let the process's CUDA device be that of its place."""
    if place.device is not None and torch.cuda.is_available():
        torch.cuda.set_device(place.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What has to be equal in all ranks, so that they compute the same."""

    dtype: str
    precision: str
    schedule: str
    attention: str
    fused: bool
    compiled: bool

    @classmethod
    def of(cls, backend: JoyImageBackend) -> Facts:
        """Those of a loaded backend."""
        info = backend.info
        return cls(
            dtype=info.dtype,
            precision=info.precision,
            schedule=info.schedule,
            attention=info.attention,
            fused=info.fused,
            compiled=info.compiled,
        )


@dataclass(frozen=True, slots=True)
class EncodedHere:
    """What rank 0 has to know of the parts of a batch that another rank has encoded: specs by number, operations."""

    specs: Mapping[int, PartSpec]
    operations: int


def _loaded(
    config: RunConfig, load: Callable[[RunConfig], JoyImageBackend], link: Connection
) -> JoyImageBackend | None:
    """The backend with the attention kernel of rank 0. None where rank 0 is gone meanwhile."""
    try:
        backend = load(config)
    except Exception as error:
        link.send(Outcome.of(error))
        raise
    link.send(Facts.of(backend))
    try:
        backend.use_attention(link.recv())
    except EOFError:
        backend.close()
        return None
    except Exception as error:
        link.send(Outcome.of(error))
        backend.close()
        raise
    link.send(OK)
    return backend


def _serve(backend: JoyImageBackend, place: Place, link: Connection) -> None:
    ranks = GroupRanks(place, backend.device)
    try:
        backend.ranks = ranks
        Follower(backend, ranks, link).serve()
    except BaseException:
        ranks.close(lost=True)
        raise
    ranks.close()


class _Refused(Exception):  # noqa: N818 - it is no fault
    """Rank 0 said that what was to be done together is not done."""


class Follower:
    """Does what rank 0 says, one call after the other."""

    def __init__(self, backend: JoyImageBackend, ranks: GroupRanks, link: Connection) -> None:
        self._backend = backend
        self._ranks = ranks
        self._link = link
        self._encoded: dict[int, EncodedShare] = {}

    def serve(self) -> None:
        """Until rank 0 closes the group. Raises EOFError when it is gone, and what fails in a denoising."""
        while True:
            name, given, forgotten = self._link.recv()
            self._forget(forgotten)
            if name == "close":
                return
            if name == "denoise":
                self._denoise(*given)
            else:
                self._link.send(self._outcome(name, given))

    def _forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._encoded.pop(number, None)

    def _outcome(self, name: str, given: Any) -> Outcome:
        """What became of a call that each rank does alone."""
        try:
            if name == "encode":
                number, batch = given
                share = self._encoded[number] = self._backend.encode_share(batch)
                return Outcome(value=EncodedHere(share.parts.specs(self._ranks.rank), share.operations))
            elif name == "prepare":
                self._backend.prepare(given)
            elif name == "ready":
                self._backend.ready()
            else:
                self._backend.free_memory()
        except Exception as error:  # told to rank 0, which knows what to do
            return Outcome.of(error)
        return OK

    def _denoise(self, number: int, specs: Mapping[int, PartSpec]) -> None:
        begun = False
        encoded = self._encoded[number].encoded(specs, 0)

        def begin() -> None:
            nonlocal begun
            check_room(self._backend, encoded, self._ranks)
            self._link.send(OK)
            if not self._link.recv():
                raise _Refused
            begun = True

        try:
            self._backend.denoise(encoded, lambda done, total: None, begin)
        except _Refused:
            return
        except Exception as error:
            self._link.send(Outcome.of(error))
            if begun:  # the others wait for exchanges that do not come: this process ends, and they notice
                raise
            self._link.recv()
            return
        self._link.send(OK)
