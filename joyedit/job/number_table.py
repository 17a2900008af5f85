"""Numbers by name, in little memory: where a dict takes 120 to 250 bytes for a name of its own, this takes about 30.

It keeps no name, only 16 bytes of a hash with a secret key: two names have the same ones with a chance of 1 to 10^38,
also where somebody chooses the names.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from hashlib import blake2b

_DIGEST = 16
_NUMBER = struct.Struct("<q")
_ENTRY = _DIGEST + _NUMBER.size
_BUCKETS = 1 << 14
"""A million names are 61 entries each, which `find` of bytes looks through in less than a microsecond."""


class NumberTable:
    """A mapping of names to whole numbers of 64 bits. One thread writes at a time, any may read meanwhile."""

    def __init__(self) -> None:
        self._key = os.urandom(_DIGEST)
        self._buckets: dict[int, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> int | None:
        """The number of this name; None if it has none."""
        digest, bucket = self._place(name)
        if bucket is None:
            return None
        entries = bytes(bucket)  # another thread may write meanwhile
        at = _find(entries, digest)
        return None if at < 0 else int(_NUMBER.unpack_from(entries, at + _DIGEST)[0])

    def __getitem__(self, name: str) -> int:
        number = self.get(name)
        if number is None:
            raise KeyError(name)
        return number

    def __setitem__(self, name: str, number: int) -> None:
        digest, bucket = self._place(name)
        entry = digest + _NUMBER.pack(number)
        if bucket is None:
            self._buckets[_number_of(digest)] = bytearray(entry)
            self._count += 1
            return
        at = _find(bucket, digest)
        if at < 0:
            bucket += entry
            self._count += 1
        else:
            bucket[at : at + _ENTRY] = entry

    def pop(self, name: str) -> int | None:
        """Take a name out; gives its number, None if it had none."""
        digest, bucket = self._place(name)
        at = -1 if bucket is None else _find(bucket, digest)
        if bucket is None or at < 0:
            return None
        number = int(_NUMBER.unpack_from(bucket, at + _DIGEST)[0])
        del bucket[at : at + _ENTRY]
        self._count -= 1
        return number

    def values(self) -> Iterator[int]:
        """All numbers, in no order. Nothing may be written meanwhile."""
        for bucket in self._buckets.values():
            for at in range(_DIGEST, len(bucket), _ENTRY):
                yield int(_NUMBER.unpack_from(bucket, at)[0])

    def _place(self, name: str) -> tuple[bytes, bytearray | None]:
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_DIGEST, key=self._key).digest()
        return digest, self._buckets.get(_number_of(digest))


def _number_of(digest: bytes) -> int:
    """The bucket that a digest belongs to."""
    return (digest[0] | digest[1] << 8) % _BUCKETS


def _find(bucket: bytes | bytearray, digest: bytes) -> int:
    """Where the entry of a digest begins; -1 if there is none."""
    at = bucket.find(digest)
    while at >= 0 and at % _ENTRY:  # the bytes stand across two entries
        at = bucket.find(digest, at + 1)
    return at
