"""What orders copies and computing on a GPU, held against stand-ins for its streams and events, without a GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from joyedit.runtime.joyimage import loading, placing
from joyedit.runtime.joyimage.memory import available_bytes
from joyedit.runtime.joyimage.networks import DeviceChoice
from joyedit.runtime.joyimage.streams import CudaTimestamp, Streams
from joyedit.runtime.placement import host_memory
from joyedit.runtime.placement.disk_layers import DiskLayers
from joyedit.runtime.placement.layer_sources import Arrivals, HostLayers
from joyedit.runtime.placement.layer_stream import LayerStream
from joyedit.runtime.placement.packed import PackedLayer
from joyedit.runtime.placement.placed_network import PlacedNetwork
from joyedit.runtime.tuning import bus_rate
from joyedit.weights.load import Loading

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
LOG: list[tuple[str, Any, Any]] = []


class Event:
    def __init__(self) -> None:
        self.recorded = 0

    def record(self, stream: Stream) -> None:
        self.recorded += 1
        LOG.append(("record", stream.name, self))

    def synchronize(self) -> None:
        LOG.append(("synchronize", None, self))


class Stream:
    device = CUDA

    def __init__(self, name: str) -> None:
        self.name = name

    def wait_event(self, event: Event) -> None:
        assert event.recorded
        LOG.append(("wait", self.name, event))

    def wait_stream(self, other: Stream) -> None:
        LOG.append(("wait stream", self.name, other.name))


@contextmanager
def on_stream(stream: Stream) -> Iterator[None]:
    LOG.append(("enter", stream.name, None))
    yield


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> LayerStream:
    """Three layers of which each holds its number, two buffers, on a device that behaves like a GPU."""
    LOG.clear()
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    modules = [nn.Linear(1, 1, bias=False) for _ in range(3)]
    layers = [PackedLayer(module, lambda name: torch.float32, prefix=f"{n}.") for n, module in enumerate(modules)]
    source = HostLayers(layers, Arrivals({n: 1 for n in range(3)}), CPU)
    for number in range(3):
        source.view(number, f"{number}.weight").fill_(number)
        source.close(number)
        source._arrivals.complete(number)
    made = LayerStream(layers, range(3), source, CPU, 2)
    made._cuda, made._work, made._copies = True, Stream("work"), Stream("copies")  # type: ignore[assignment]
    return made


def last(entry: tuple[str, Any, Any]) -> int:
    """The place in the log where this was done last."""
    return len(LOG) - 1 - LOG[::-1].index(entry)


def test_a_layer_is_used_behind_its_copy_and_replaced_behind_its_use(stream: LayerStream) -> None:
    for number in (0, 1, 2, 0):
        stream.need(number)
        weight = stream._layers[number].tensors()[f"{number}.weight"]
        assert float(weight) == number
        slot = stream._on_device[number]
        assert last(("record", "copies", slot.copied)) < last(("wait", "work", slot.copied))  # the copy, then the use
        begin = len(LOG)
        stream.used(number)
        assert LOG[begin:][:3] == [
            ("record", "work", slot.used),
            ("enter", "copies", None),
            ("wait", "copies", slot.used),
        ]
        assert LOG[begin:][3:] == [("record", "copies", slot.copied)]  # the next copy, behind the use


def test_buffers_go_when_the_last_copy_is_over(stream: LayerStream) -> None:
    stream.need(0)
    LOG.clear()
    stream.release()
    assert LOG == [("wait stream", "work", "copies")]
    assert stream._slots == []


def test_the_disk_writes_behind_the_copy_that_read_the_buffer() -> None:
    LOG.clear()
    layers = [PackedLayer(nn.Linear(1, 1, bias=False), lambda name: torch.float32, prefix=f"{n}.") for n in range(3)]
    disk = DiskLayers(layers, range(3), 1, CPU)
    reads: list[str] = []

    def read(views: dict[str, Tensor]) -> None:
        reads.extend(views)
        LOG.append(("read", None, None))

    disk.start(read)
    disk.get(0)
    event = Event()
    disk.copied(0, event)  # type: ignore[arg-type]
    disk.get(1)
    disk.stop()
    assert reads[:3] == ["0.weight", "0.weight", "1.weight"]
    assert LOG[2:4] == [("synchronize", None, event), ("read", None, None)]


@pytest.mark.parametrize("code", [0, 1])
def test_host_memory_is_pinned_where_the_driver_lets(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    def register(address: int, size: int, flags: int) -> int:
        calls.append((address, size))
        return code

    runtime = SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=lambda address: calls.append((address, 0)))
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    buffer = host_memory.host_bytes(5000)
    address = buffer.data_ptr()
    assert host_memory.pin(buffer, CUDA) is (code == 0)
    assert calls == [(address, 5000)]
    assert not host_memory.pin(host_memory.host_bytes(0), CUDA)
    del buffer
    assert calls[1:] == ([(address, 0)] if code == 0 else [])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, torch.device]]:
    """The threads that were told their device, by the first part of their names."""
    found: list[tuple[str, torch.device]] = []

    def set_device(device: torch.device) -> None:
        found.append((threading.current_thread().name.partition("_")[0], device))

    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("copies"))
    runtime = SimpleNamespace(cudaHostRegister=lambda address, size, flags: 1)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    return found


def test_threads_ask_the_device_that_is_theirs(told: list[tuple[str, torch.device]]) -> None:
    """One that is not told takes memory of the first GPU."""
    second = torch.device("cuda", 1)
    PlacedNetwork(nn.Linear(1, 1), [], second, lambda name: torch.float32)._pins.submit(lambda: None).result()
    assert told == [("joyedit-pin", second)]
    layers = [PackedLayer(nn.Linear(1, 1), lambda name: torch.float32, prefix="0.")]
    disk = DiskLayers(layers, [0], 1, second)
    disk.start(lambda views: None)
    disk.stop()
    assert told[1:] == [("joyedit-read-ahead", second)]
    Loading(partial(loading._load_all, [], DeviceChoice(device=second, dtype="bf16"))).wait()
    assert told[2:] == [("joyedit-load", second)]
    Loading(partial(loading._load_all, [], DeviceChoice(device=CPU, dtype="bf16"))).wait()
    assert len(told) == 3


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """Those of a second GPU: the work's, and two others in the order in which they are made."""
    second = torch.device("cuda", 1)

    @contextmanager
    def on_device(device: torch.device) -> Iterator[None]:
        LOG.append(("device", device, None))
        yield
        LOG.append(("device left", device, None))

    work, others = Stream("work"), iter([Stream("encoder"), Stream("copies")])
    work.device = second
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: Event())
    monkeypatch.setattr(torch.cuda, "Stream", lambda device, priority=0: next(others))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: work)
    monkeypatch.setattr(torch.cuda, "device", on_device)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    made = Streams(second)
    LOG.clear()
    return made


def test_features_are_kept_until_both_streams_have_read_them(streams: Streams) -> None:
    """They are made on the encoder's stream: the allocator must know of the work that reads them."""
    features: Any = SimpleNamespace(record_stream=lambda stream: LOG.append(("record stream", stream.name, None)))
    with streams.encoding():
        assert LOG == [("enter", "encoder", None)]
    streams.work_waits_for_encoder([features])
    assert LOG[1:] == [("wait stream", "work", "encoder"), ("record stream", "work", None)]
    streams.encoder_waits_for_work()
    assert LOG[3:] == [("wait stream", "encoder", "work")]


def test_pictures_are_kept_until_they_are_on_the_host(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, **pinned: real(shape, dtype=dtype))
    monkeypatch.setattr(Tensor, "record_stream", lambda _, stream: LOG.append(("record stream", stream.name, None)))
    (copy,), copied = streams.to_host([torch.ones(3)])
    assert isinstance(copied, CudaTimestamp)
    assert copy.eq(1).all()
    assert [
        ("wait stream", "copies", "work"),
        ("enter", "copies", None),
        ("record stream", "copies", None),
        ("record", "copies", copied.event),
    ] == LOG


def test_work_is_done_on_one_stream_whatever_the_thread_has(streams: Streams) -> None:
    """So are its times asked for on its device."""
    second = torch.device("cuda", 1)
    with streams.working():
        assert [("device", second, None), ("enter", "work", None)] == LOG
    assert LOG[2:] == [("device left", second, None)]
    timestamp = streams.timestamp("denoise")
    assert isinstance(timestamp, CudaTimestamp)
    LOG.clear()
    with suppress(AttributeError):  # the stand-in has no times
        timestamp.seconds()
    assert [
        ("device", second, None),
        ("synchronize", None, timestamp.event),
        ("device left", second, None),
    ] == LOG[:3]


def test_a_budget_is_held_by_torch_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda fraction, device: given.append(fraction))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * 10**9))
    used = [0]
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: used[0])
    placing._bound(CUDA, 8 * 10**9)
    placing._bound(CUDA, 99 * 10**9)
    placing.lift_bound(CUDA)
    placing.lift_bound(CPU)
    used[0] = 32 * 10**9  # by another model of this process
    placing._bound(CUDA, 8 * 10**9)
    assert given == [0.1, 1.0, 1.0, 0.5]
    monkeypatch.setattr(placing, "available_bytes", lambda device: 20 * 10**9)
    assert placing.device_budget(CUDA, None) == 20 * 10**9
    assert placing.device_budget(CUDA, 8 * 10**9) == 8 * 10**9
    assert placing.device_budget(CUDA, 24 * 10**9) == 20 * 10**9


def test_what_another_model_uses_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 45)
    assert available_bytes(CUDA) == 25


def test_the_bus_is_measured_by_copies(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOYEDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    real = torch.empty
    monkeypatch.setattr(bus_rate.torch, "empty", lambda size, dtype, **where: real(size, dtype=dtype))
    monkeypatch.setattr(bus_rate, "SAMPLE", 1 << 12)
    measured = bus_rate.bus_rate(CUDA)
    assert measured is not None
    assert measured > 0
    assert bus_rate.known_bus_rate(CUDA) == measured
