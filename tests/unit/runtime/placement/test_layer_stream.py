"""Layers that pass through a few buffers: each use sees the layer's own weights, whatever the order and the delays."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from joyedit.runtime.placement.disk_layers import DiskLayers
from joyedit.runtime.placement.host_memory import host_bytes, pin
from joyedit.runtime.placement.layer_sources import Arrivals, HostLayers
from joyedit.runtime.placement.layer_stream import LayerStream
from joyedit.runtime.placement.packed import ALIGNMENT, PackedLayer
from joyedit.runtime.placement.placed_network import Passing, PlacedNetwork

CPU = torch.device("cpu")


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 3)
        self.table = nn.Parameter(torch.zeros(2))


class Network(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(5 + number % 2) for number in range(layers))
        self.head = nn.Linear(2, 2)


def dtype_of(name: str) -> torch.dtype:
    return torch.float64 if name.endswith("bias") else torch.float32


def placed(layers: int, streamed: list[int], slots: int, from_disk: list[int] | None = None) -> PlacedNetwork:
    with torch.device("meta"):
        network = Network(layers)
    passing = Passing(
        prefix="layers",
        streamed=streamed,
        slots=slots,
        from_disk=from_disk or [],
        left_out=lambda n: n.endswith("table"),
    )
    return PlacedNetwork(network, [passing], CPU, dtype_of)


def weights(layers: int) -> dict[str, Tensor]:
    """Each weight holds a number of its own."""
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in Network(layers).named_parameters()}
    return {name: torch.full(shape, float(n + 1)) for n, (name, shape) in enumerate(shapes.items())}


def check(network: PlacedNetwork, layer: int) -> None:
    """The layer computes with its own weights."""
    for name, parameter in network._network.named_parameters():
        if name.startswith(f"layers.{layer}."):
            assert parameter.dtype == dtype_of(name)
            assert torch.equal(parameter, weights(len(network.groups[0].layers))[name].to(parameter.dtype)), name


def use(network: PlacedNetwork, *layers: int) -> None:
    (group,) = network.groups
    for layer in layers:
        group.need(layer)
        check(network, layer)
        group.used(layer)


def test_a_packed_layer_has_every_weight_apart_and_aligned() -> None:
    layer = PackedLayer(Layer(5), dtype_of, prefix="a.", left_out=lambda name: name == "a.table")
    assert layer.names == ("a.linear.weight", "a.linear.bias")
    views = layer.views(torch.zeros(layer.nbytes, dtype=torch.uint8))
    assert {name: (v.shape, v.dtype) for name, v in views.items()} == {
        "a.linear.weight": ((3, 5), torch.float32), "a.linear.bias": ((3,), torch.float64),
    }  # fmt: skip
    first = min(v.data_ptr() for v in views.values())
    assert all((v.data_ptr() - first) % ALIGNMENT == 0 for v in views.values())
    views["a.linear.weight"].fill_(7)
    assert not views["a.linear.bias"].any()


@pytest.mark.parametrize("slots", [1, 2, 3, 9])
@pytest.mark.parametrize("streamed", [[0, 1, 2, 3, 4, 5], [1, 3, 5], [4]])
def test_each_use_sees_its_own_layer(streamed: list[int], slots: int) -> None:
    network = placed(6, streamed, slots)
    for name, tensor in weights(6).items():
        network.place(name, tensor)
    network.wait_for_rest()
    use(network, *range(6), *range(6))
    use(network, 3, 0, 5, 5, 1, *range(2, 6), *range(6))  # another order costs time, and nothing else
    network.release()
    assert all(
        p.untyped_storage().nbytes() < 64 for n, p in network._network.named_parameters() if "layers.4.linear" in n
    )
    use(network, *range(6))
    assert network.host_bytes == sum(network.groups[0].layers[layer].nbytes for layer in streamed)
    assert network.groups[0].stream.pass_bytes == network.host_bytes


def test_weights_may_come_in_any_order_while_layers_are_used() -> None:
    network = placed(6, [0, 2, 3, 5], 2)
    names = sorted(weights(6), key=network.order)
    rest = [name.endswith("table") or name.startswith("head") for name in names]
    assert rest == sorted(rest, reverse=True)  # it comes first
    numbers = [int(name.split(".")[1]) for name in names if ".linear." in name]
    assert numbers == sorted(numbers)
    told: list[str] = []

    def load() -> None:
        for name in names:
            network.place(name, weights(6)[name])
            told.append(name)

    thread = threading.Thread(target=load)
    thread.start()
    network.wait_for_rest()
    use(network, *range(6))
    thread.join()
    assert len(told) == len(names)


def test_a_layer_that_will_not_come_is_told_to_who_waits() -> None:
    network = placed(4, [0, 1, 2, 3], 2)
    half = [name for name in weights(4) if name.startswith(("layers.0", "head")) or name.endswith("table")]
    for name in half:
        network.place(name, weights(4)[name])
    threading.Timer(0.05, network.fail, [ValueError("torn")]).start()
    use(network, 0)
    with pytest.raises(ValueError, match="torn"):
        use(network, 1)


def test_resident_layers_give_way() -> None:
    network = placed(6, [1, 4], 2)
    for name, tensor in weights(6).items():
        network.place(name, tensor)
    use(network, *range(6))
    (group,) = network.groups
    assert group.resident == [0, 2, 3, 5]
    assert group.give_way(2) == 2
    assert len(group.resident) == 2
    use(network, *range(6), *range(6))
    assert group.give_way(9) == 2
    assert group.resident == []
    use(network, *range(6), 2, 5)
    assert group.give_way(1) == 0
    assert network.host_bytes == sum(layer.nbytes for layer in group.layers)


def test_weights_fill_memory_that_is_given_out() -> None:
    network = placed(2, [1], 1)
    assert network.host_view("layers.0.linear.weight") is None
    assert network.host_view("head.weight") is None
    for name in ("layers.1.linear.weight", "layers.1.linear.bias"):
        view = network.host_view(name)
        assert view is not None
        view.copy_(weights(2)[name])
        network.filled(name)
    network.place("layers.1.table", weights(2)["layers.1.table"])
    use(network, 1)


def test_hooks_need_and_use() -> None:
    with torch.device("meta"):
        network = nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(2, 2) for _ in range(3))})
    passing = Passing(prefix="layers", streamed=[0, 1, 2], slots=2)
    through = PlacedNetwork(network, [passing], CPU, lambda name: torch.float32)
    for number in range(3):
        through.place(f"layers.{number}.weight", torch.full((2, 2), float(number)))
        through.place(f"layers.{number}.bias", torch.zeros(2))
    through.groups[0].hook()
    with torch.inference_mode():
        found = [float(layer(torch.ones(2))[0]) for _ in range(2) for layer in network["layers"]]
    assert found == [0.0, 2.0, 4.0] * 2


def read_from(all_weights: dict[str, Tensor], log: list[str]) -> Callable[..., None]:
    def read(views: dict[str, Tensor]) -> None:
        log.append(next(iter(views)))
        for name, view in views.items():
            view.copy_(all_weights[name])

    return read


@pytest.mark.parametrize("from_disk", [[1], [0, 2, 4], [0, 1, 2, 3, 4, 5]])
def test_layers_from_the_disk(from_disk: list[int]) -> None:
    network = placed(6, [0, 1, 2, 3, 4, 5], 2, from_disk)
    log: list[str] = []
    closed: list[bool] = []
    assert network.reads_later
    network.read_ahead(read_from(weights(6), log), lambda: closed.append(True))
    for name, tensor in weights(6).items():
        if not network.is_read_later(name):
            network.place(name, tensor)
    use(network, *range(6), *range(6), 4, 2, *range(6))
    disk = network.groups[0].disk
    assert disk is not None
    assert disk.read_bytes >= 2 * sum(network.groups[0].layers[layer].nbytes for layer in from_disk)
    held = [number for number in range(6) if network.groups[0].host._buffers.get(number) is not None]
    assert held == [number for number in range(6) if number not in from_disk]
    network.close()
    assert closed == [True]
    assert not disk._thread.is_alive()  # type: ignore[union-attr]


def test_a_disk_that_fails_is_told() -> None:
    network = placed(2, [0, 1], 2, [0, 1])

    log: list[str] = []

    def fail(views: dict[str, Tensor]) -> None:
        log.append("read")
        if len(log) > 1:
            raise OSError("gone")

    assert network.read_ahead(fail, lambda: None) > 0
    with pytest.raises(OSError, match="gone"):
        use(network, 0)
    network.close()


def test_a_layer_that_did_not_come_is_not_taken_to_be_there() -> None:
    """After an error, the layer's buffer still holds another one."""
    network = placed(4, [0, 1, 2, 3], 2)
    for name, tensor in weights(4).items():
        network.place(name, tensor)
    (group,) = network.groups
    get, fails = group.host.get, {2}

    def gets(layer: int) -> Tensor:
        if layer in fails:
            raise MemoryError("there is none")
        return get(layer)

    group.host.get = gets  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        use(network, 0)  # the buffer that is free now takes layer 2
    fails.clear()
    use(network, 1, 2, 3, 0, 1, 2)
    network.close()


def test_reading_ahead_is_bounded() -> None:
    layers = [PackedLayer(Layer(5), dtype_of, prefix=f"layers.{n}.") for n in range(8)]
    log: list[str] = []
    disk = DiskLayers(layers, range(8), 3, CPU)
    full = {f"layers.{n}.{name}": torch.zeros(p.shape) for n in range(8) for name, p in Layer(5).named_parameters()}
    disk.start(read_from(full, log))
    disk.get(0)
    for _ in range(100):
        if len(log) == 4:
            break
        threading.Event().wait(0.01)
    assert log == [f"layers.{n}.table" for n in (0, 0, 1, 2)]  # the first one tells the rate
    assert disk.nbytes == 3 * layers[0].nbytes
    disk.copied(0, None)
    disk.get(1)
    disk.stop()


def test_host_memory_is_exact() -> None:
    assert host_bytes(1000).numel() == 1000
    assert host_bytes(0).numel() == 0
    buffer = host_bytes(5000)
    buffer.fill_(3)
    assert int(buffer.sum()) == 15000
    assert not pin(buffer, CPU)


def test_a_stream_takes_no_more_buffers_than_layers() -> None:
    layers = [PackedLayer(Layer(5), dtype_of, prefix=f"{n}.") for n in range(2)]
    source = HostLayers(layers, Arrivals({}), CPU)
    stream = LayerStream(layers, [0, 1], source, CPU, 5)
    assert stream.buffer_bytes == 2 * layers[0].nbytes
    stream.release()  # nothing is there yet
