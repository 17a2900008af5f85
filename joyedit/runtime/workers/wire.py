"""Messages between a parent and its workers on pipes: pickled, each with its length in front.

Both ends are the same program of the same user, so what comes is trusted.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<Q")


def send(file: BinaryIO, message: object) -> None:
    """Write one message. Raises OSError where nobody reads any more."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    file.write(_LENGTH.pack(len(data)))
    file.write(data)
    file.flush()


def receive(file: BinaryIO) -> Any:
    """Read one message; None at the end, also in the middle of a message: its sender died."""
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = file.read(length)
    return pickle.loads(data) if len(data) == length else None
