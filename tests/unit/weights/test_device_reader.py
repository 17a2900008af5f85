"""Weights that go to a CUDA device through pinned memory: the pieces, and that none is overwritten on its way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.weights import device_reader
from joyedit.weights.device_reader import SLOTS, DeviceReader
from joyedit.weights.stored import Stored, StoredReader


class Copied:
    """Stands for an event of CUDA, and notes what happens."""

    calls: list[str]

    def record(self, stream: object) -> None:
        self.calls.append("copy")

    def synchronize(self) -> None:
        self.calls.append("wait")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(Copied, "calls", found, raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(device_reader, "_Slot", lambda memory: Slot(memory))
    monkeypatch.setattr(device_reader, "_pinned", lambda size: torch.empty(size, dtype=torch.uint8))
    monkeypatch.setattr(device_reader, "SLOT_BYTES", 16)
    return found


class Slot:
    def __init__(self, memory: Tensor) -> None:
        self.memory, self.copied = memory, Copied()


def stored(path: Path, tensor: Tensor, offset: int = 0) -> Stored:
    data = tensor.view(torch.uint8).numpy().tobytes()
    path.write_bytes(bytes(offset) + data)
    return Stored(path=path, offset=offset, nbytes=len(data), dtype=tensor.dtype)


def test_a_tensor_comes_in_pieces_and_each_slot_is_waited_for(calls: list[str], tmp_path: Path) -> None:
    expected = torch.arange(45, dtype=torch.bfloat16)  # 90 bytes: five whole pieces and a part
    reader = StoredReader()
    got = DeviceReader(reader, torch.device("cpu")).read(stored(tmp_path / "a", expected, offset=7))
    reader.close()
    assert torch.equal(got, expected)
    assert SLOTS == 4  # two pieces are always read ahead of the one that is copied
    assert calls == ["copy", "copy", "wait", "copy", "wait", "copy", "copy", "copy"]


def test_a_file_that_ends_too_early(calls: list[str], tmp_path: Path) -> None:
    place = stored(tmp_path / "a", torch.ones(40))
    (tmp_path / "a").write_bytes(b"short")
    reader = StoredReader()
    with pytest.raises(CheckpointError, match="became shorter"):
        DeviceReader(reader, torch.device("cpu")).read(place)
    reader.close()


class SlowDisk:
    """Stands for a `StoredReader`: the first tensor's first piece fails, and its others come when the next is read."""

    def __init__(self) -> None:
        self.late: list[Tensor] = []
        self.has_failed = False

    def start(self, stored: Stored, target: Tensor) -> Callable[[], None]:
        if not self.has_failed:
            self.late.append(target)
            return self._fail
        target.fill_(7)
        return self._come_late

    def _fail(self) -> None:
        self.has_failed = True
        raise OSError("the disk is slow")

    def _come_late(self) -> None:
        for target in self.late:
            target.fill_(1)


@pytest.mark.usefixtures("calls")
def test_what_is_read_after_an_error_is_not_overwritten(tmp_path: Path) -> None:
    disk = SlowDisk()
    reader = DeviceReader(disk, torch.device("cpu"))  # type: ignore[arg-type]
    place = Stored(path=tmp_path, offset=0, nbytes=90, dtype=torch.uint8)
    with pytest.raises(OSError, match="slow"):
        reader.read(place)
    assert len(disk.late) == SLOTS - 1
    assert reader.read(place).eq(7).all()
