"""The way of words between rank 0 and the other ranks of a group: a socket of the file system for each. No torch here.

It tells at once when the process on the other side is gone. Tensors go another way.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Container
from contextlib import suppress
from multiprocessing.connection import Client, Connection, wait
from pathlib import Path
from typing import Any, cast

from joyedit.runtime.parallel.place import Place
from joyedit.runtime.protocol import GroupLost

ADDRESS = "address"
"""The file with the path of rank 0's socket."""
PAUSE = 0.02
"""Seconds between two looks for it."""
LONGEST = 90
"""Bytes that a socket's path may have, with room to spare: systems allow 104 or more."""


class Links:
    """Rank 0's side: a connection to each other rank, in order."""

    def __init__(self, connections: list[Connection], timeout: float) -> None:
        self._connections = connections
        self._timeout = timeout

    @classmethod
    def to_all(cls, place: Place) -> Links:
        """Wait for all other ranks. Raises GroupLost if one does not come in time."""
        folder = _private_folder()
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(folder / "s"))
                listener.listen(place.layout.world)
                written = place.folder / f"{ADDRESS}.part"
                written.write_text(str(folder / "s"), encoding="utf-8")
                os.replace(written, place.folder / ADDRESS)
                return cls(_accepted(listener, place), place.timeout)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def tell(self, message: Any) -> None:
        """Send the same to all. Raises GroupLost if one is gone."""
        for rank, connection in self._ranks().items():
            try:
                connection.send(message)
            except OSError as error:
                raise gone(rank) from error

    def hear(self) -> list[Any]:
        """What each rank says next. Raises GroupLost if one is gone, or says nothing in time."""
        found: dict[int, Any] = {}
        until = time.monotonic() + self._timeout
        while len(found) < len(self._connections):
            new = self.hear_some(found, max(0.0, until - time.monotonic()))
            if not new:
                silent = ", ".join(str(rank) for rank in self._ranks() if rank not in found)
                raise GroupLost(f"rank {silent} of the group does not answer")
            found |= new
        return [found[rank] for rank in sorted(found)]

    def hear_some(self, but: Container[int], seconds: float) -> dict[int, Any]:
        """By rank, what ranks `but` some say first; empty where none says anything within the time.

        Raises GroupLost if one is gone, unless another has something to say.
        """
        asked = {connection: rank for rank, connection in self._ranks().items() if rank not in but}
        found, lost = {}, None
        for ready in wait(list(asked), seconds):
            rank = asked[cast("Connection", ready)]
            try:
                found[rank] = self._ranks()[rank].recv()
            except (EOFError, OSError) as error:
                lost = gone(rank)
                lost.__cause__ = error
        if lost is not None and not found:
            raise lost
        return found

    def _ranks(self) -> dict[int, Connection]:
        return dict(enumerate(self._connections, 1))

    def close(self) -> None:
        """The other ranks see it, and end."""
        for connection in self._connections:
            connection.close()


def link_to_first(place: Place) -> Connection:
    """The connection of another rank to rank 0. Raises GroupLost if that does not listen in time."""
    until = time.monotonic() + place.timeout
    while time.monotonic() < until:
        with suppress(OSError):  # it does not listen yet
            connection = Client((place.folder / ADDRESS).read_text(encoding="utf-8"), "AF_UNIX")
            connection.send(place.rank)
            return connection
        time.sleep(PAUSE)
    raise GroupLost("rank 0 of the group did not come")


def gone(rank: int) -> GroupLost:
    """The error for a process that is gone."""
    return GroupLost(f"the process of rank {rank} of the group is gone")


def _private_folder() -> Path:
    """A new folder that only this user may enter, with a path short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="joyedit-"))
    if len(os.fsencode(folder)) > LONGEST:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="joyedit-", dir="/tmp"))
    return folder


def _accepted(listener: socket.socket, place: Place) -> list[Connection]:
    """A connection from each other rank, by rank."""
    found: dict[int, Connection] = {}
    until = time.monotonic() + place.timeout
    while len(found) < place.layout.world - 1:
        listener.settimeout(max(PAUSE, until - time.monotonic()))
        try:
            accepted, _ = listener.accept()
            accepted.setblocking(True)
            connection = Connection(accepted.detach())
            found[connection.recv()] = connection
        except TimeoutError as error:
            missing = ", ".join(str(rank) for rank in range(1, place.layout.world) if rank not in found)
            raise GroupLost(f"rank {missing} of the group did not come") from error
        except (EOFError, OSError) as error:
            raise GroupLost("a rank of the group ended before all were there") from error
    return [found[rank] for rank in sorted(found)]
