"""A `.pth` file: a zip archive of a pickle, which names the tensors, and of one record for each storage of elements.

The pickle is read as data (`state_dict_pickle`), and the records are mapped into memory. All sizes that the file claims
are held against its real size before anything is allocated: an archive whose entries are compressed, overlap or end
behind the file is refused.
"""

from __future__ import annotations

import mmap
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from joyedit.errors import CheckpointError, first_line
from joyedit.printable import brief
from joyedit.weights.regular_files import open_regular, printable_path, unreadable
from joyedit.weights.state_dict_pickle import Opaque, RefusedPickleError, Storage, StoredTensor, read_pickle
from joyedit.weights.stored import Stored

MOST_PICKLE = 16 << 20
"""The most bytes of the pickle. That of the published transformer has about 200,000."""
MOST_DIRECTORY = 4 << 20
"""The most bytes of the archive's list of records."""
MOST_SHARING = 2
"""How many times the size of the file all tensors together may have: tensors may share their elements."""

FLOATS = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
}
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class PickleFile:
    """The state dict of a `.pth` file, bare or under one of the usual keys. Raises CheckpointError."""

    WRAPPERS = ("model", "state_dict", "module")

    def __init__(self, path: Path) -> None:
        self.where = printable_path(path)
        self.others: list[str] = []
        """Names of what the state dict holds beside tensors."""
        try:
            with open_regular(path) as file:
                if not file.seek(0, 2):
                    raise EOFError("it is empty")
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # what is written to is copied
                with zipfile.ZipFile(_Bounded(file)) as archive:
                    self._records = self._records_of(archive)
            self._root = self._root_of(self._records)
            loaded = read_pickle(self._pickle())
        except RefusedPickleError as error:
            raise CheckpointError(
                f"{self.where}: refused, the file holds more than tensors, and its code is not run ({error})"
            ) from error
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, struct.error, EOFError) as error:
            reason = first_line(error)
            raise CheckpointError(f"{self.where}: not a readable PyTorch file ({reason}); download it again") from error
        except OSError as error:
            raise unreadable(path, error) from error
        self._tensors = self._tensors_of(loaded)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def other_types(self) -> Mapping[str, str]:
        return {name: _type_name(tensor) for name, tensor in self._tensors.items() if _dtype(tensor) is None}

    def read(self, device: torch.device, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        for name in self._tensors if names is None else names:
            tensor = self._tensors[name]
            dtype = _dtype(tensor)
            if dtype is not None:
                yield name, self._mapped(tensor, dtype).to(device)

    def stored(self, name: str) -> Stored | None:
        """Nowhere: elements may be shared and strided."""

    def _mapped(self, tensor: StoredTensor, dtype: torch.dtype) -> Tensor:
        if not tensor.elements:
            return torch.empty(tensor.shape, dtype=dtype)
        start, _ = self._records[self._place(tensor.storage)]
        elements = torch.frombuffer(self._data, dtype=dtype, count=tensor.end, offset=start)
        return elements.as_strided(tensor.shape, tensor.stride, tensor.offset)

    def _records_of(self, archive: zipfile.ZipFile) -> dict[str, tuple[int, int]]:
        """Offset and size of each record in the file. Raises ValueError for an archive that torch does not write."""
        records: dict[str, tuple[int, int]] = {}
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"its record {brief(entry.filename)} is compressed")
            header = self._data[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
            mark, name_size, extra_size = _LOCAL_HEADER.unpack(header)
            start = entry.header_offset + _LOCAL_HEADER.size + name_size + extra_size
            if mark != b"PK\x03\x04" or start + entry.file_size > len(self._data) or entry.filename in records:
                raise ValueError(f"its record {brief(entry.filename)} is not where the archive says")
            records[entry.filename] = (start, entry.file_size)
        return records

    @staticmethod
    def _root_of(records: Mapping[str, tuple[int, int]]) -> str:
        """The folder that all records of the archive are in: that of the pickle."""
        found = [name for name in records if name.rpartition("/")[2] == "data.pkl"]
        if len(found) != 1:
            raise ValueError(f"it holds {len(found)} pickles instead of one")
        return found[0].removesuffix("data.pkl")

    def _pickle(self) -> bytes:
        if self._record("byteorder", 16) not in (b"", sys.byteorder.encode()):
            raise ValueError("it was written on a machine with another byte order")
        return self._record("data.pkl", MOST_PICKLE)

    def _record(self, name: str, most: int) -> bytes:
        start, size = self._records.get(self._root + name, (0, 0))
        if size > most:
            raise ValueError(f"its record {name} has {size} bytes, {most} are allowed")
        return self._data[start : start + size]

    def _place(self, storage: Storage) -> str:
        return f"{self._root}data/{storage.key}"

    def _tensors_of(self, loaded: Any) -> dict[str, StoredTensor]:
        for key in self.WRAPPERS:
            if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
                loaded = loaded[key]
                break
        tensors: dict[str, StoredTensor] = {}
        total = 0
        for name, value in loaded.items() if isinstance(loaded, dict) else ():
            if isinstance(value, Opaque) and value.name.startswith("torch._utils."):
                raise CheckpointError(f"{self.where}: {brief(str(name))} is no plain tensor ({brief(value.name)})")
            if isinstance(name, str) and isinstance(value, StoredTensor):
                total += self._bytes(name, value)
                tensors[name] = value
            elif isinstance(name, str):
                self.others.append(name)
        if not tensors:
            raise CheckpointError(f"{self.where}: holds no state dict")
        if total > MOST_SHARING * len(self._data):
            raise CheckpointError(f"{self.where}: its tensors are larger than the file ({total} bytes); it is damaged")
        return tensors

    def _bytes(self, name: str, tensor: StoredTensor) -> int:
        """The bytes of a tensor of floats. Raises CheckpointError if its storage has fewer, or none."""
        dtype = _dtype(tensor)
        place = self._place(tensor.storage)
        if dtype is None:  # told, where a network needs it
            return 0
        if place not in self._records or max(tensor.end, tensor.elements) * dtype.itemsize > self._records[place][1]:
            raise CheckpointError(f"{self.where}: {brief(name)} is larger than its data; download the file again")
        return tensor.elements * dtype.itemsize


class _Bounded:
    """A file for zipfile, which reads the archive's list of records at once, however long that claims to be."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(MOST_DIRECTORY + 1 if size < 0 else min(size, MOST_DIRECTORY + 1))
        if len(data) > MOST_DIRECTORY:
            raise ValueError(f"its list of records has more than {MOST_DIRECTORY} bytes")
        return data

    def close(self) -> None:
        """The file stays open for its records."""


def _dtype(tensor: StoredTensor) -> torch.dtype | None:
    """The tensor's dtype; None if it is no floating-point type of at least 16 bits."""
    return FLOATS.get(tensor.storage.kind) if tensor.dtype is None else None


def _type_name(tensor: StoredTensor) -> str:
    return brief(tensor.dtype or tensor.storage.kind.removesuffix("Storage").lower())
