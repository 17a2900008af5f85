"""Loading that goes on behind the first batch: what waits for it, and how its faults are told."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

import joyedit
from joyedit.errors import CheckpointError, DeviceError, JoyeditError
from joyedit.job.pictures import machine_memory
from joyedit.models.dit import DiT
from joyedit.models.strategies import ForwardPass, RunBlock
from joyedit.runtime.joyimage import backend as joyimage
from joyedit.runtime.joyimage import loading
from joyedit.runtime.joyimage.streams import Streams
from joyedit.runtime.placement import plan
from joyedit.runtime.placement.disk_layers import DiskLayers, ReadWeights
from joyedit.runtime.placement.placed_network import PlacedLayers
from joyedit.runtime.tuning.compile import Compilation
from joyedit.runtime.tuning.fused_check import Fusion
from joyedit.weights.files import SafetensorsFiles
from support import editing
from support.editing import Edit, batch_of, levels_apart, picture, run

READ = SafetensorsFiles.read


def edit() -> Edit:
    return Edit(text="Red.", images=[picture(256, 256)], steps=1)


def gated(monkeypatch: pytest.MonkeyPatch, fault: Exception | None = None) -> threading.Event:
    """The transformer's tensors come when the event is set; `fault` instead of the second one."""
    gate = threading.Event()

    def read(self: SafetensorsFiles, device: torch.device, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        for number, entry in enumerate(READ(self, device, names)):
            if "transformer" in self.where:
                assert gate.wait(20)
                if fault is not None and number == 1:
                    raise fault
            yield entry

    monkeypatch.setattr(SafetensorsFiles, "read", read)
    return gate


def test_the_encoder_works_while_the_transformer_loads(
    diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(editing.backend(diffusers_checkpoint), edit())[0]
    gate = gated(monkeypatch)
    backend = editing.backend(diffusers_checkpoint)
    encoded = backend.encode(batch_of([edit()]))
    assert backend.auto_batch_size((256, 256)) >= 1
    assert backend.operations(encoded)["encode"] > 0
    assert any(p.is_meta for p in backend._dit.parameters())
    threading.Timer(0.1, gate.set).start()
    latents = backend.denoise(encoded, lambda done, total: None)
    assert levels_apart(backend.decode(latents)[0], plain) == 0


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (SafetensorError("a shard ended"), CheckpointError, r"the transformer cannot be loaded \(a shard ended\)"),
        (OSError(5, "Input/output error"), CheckpointError, "Input/output error"),
        (torch.OutOfMemoryError("no room"), DeviceError, "the transformer takes 0.0 GiB, and cpu has no room for it"),
    ],
)
def test_a_transformer_that_cannot_be_loaded_ends_the_run_as_at_its_start(
    diffusers_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
    kind: type[JoyeditError],
    message: str,
) -> None:
    gated(monkeypatch, fault).set()
    picture(64, 64).save(tmp_path / "a.png")
    with pytest.raises(kind, match=message) as caught:
        joyedit.run(tmp_path / "a.png", model=diffusers_checkpoint, output=tmp_path / "out", prompt="x", basesize=256)
    assert caught.value.exit_code == 2
    assert not list((tmp_path / "out").glob("*.png"))
    assert (tmp_path / "out" / "results.jsonl").read_text() == ""


def test_closing_does_not_wait_for_the_whole_transformer(
    diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = gated(monkeypatch)
    backend = editing.backend(diffusers_checkpoint)
    dit = backend._dit
    threading.Timer(0.1, gate.set).start()
    backend.close()
    assert all(p.is_meta for p in dit.parameters())


@pytest.mark.parametrize("offload", ["none", "blocks"])
def test_all_is_computed_on_the_stream_of_the_model(
    offload: Any, diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever calls: a thread has a stream and a device of its own, and weights are ordered on the model's."""
    depth = [0]

    @contextmanager
    def working(self: Streams) -> Iterator[None]:
        depth[0] += 1
        yield
        depth[0] -= 1

    monkeypatch.setattr(Streams, "working", working)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)  # only a GPU is measured
    model = editing.backend(diffusers_checkpoint, device="cpu", offload=offload)
    seen: list[int] = []
    for network in (model.dit, model.vae, model.text_encoder):
        for module in network.modules():
            module.register_forward_pre_hook(lambda *_: seen.append(depth[0]))
    for work in (
        lambda: model.prepare([batch_of([edit()])]),
        lambda: run(model, edit()),
        lambda: model._measure_batch_size((256, 256), (1,)),
    ):
        before = len(seen)
        work()
        assert min(seen[before:], default=1) == 1
    assert len(seen) > 100
    give_way = PlacedLayers.give_way
    monkeypatch.setattr(
        PlacedLayers, "give_way", lambda self, count: (seen.append(2 * depth[0]), give_way(self, count))[1]
    )
    model.free_memory()
    assert (seen[-1] == 2) == (offload == "blocks")
    model.close()


@pytest.mark.parametrize("precision", ["exact", "fp8"])
@pytest.mark.parametrize("offload", ["none", "blocks"])
def test_closing_gives_all_weights_back(offload: Any, precision: Any, diffusers_checkpoint: Path) -> None:
    """At once, and also where somebody holds the model still."""
    backend = editing.backend(diffusers_checkpoint, device="cpu", offload=offload, precision=precision)
    run(backend, edit())
    networks = backend.dit, backend.vae, backend.text_encoder
    weights = [weakref.ref(parameter) for network in networks for parameter in network.parameters()]
    del networks
    gc.disable()
    try:
        backend.close()
        assert not [one() for one in weights if one() is not None]
    finally:
        gc.enable()


def test_a_model_that_cannot_be_loaded_leaves_nothing(
    diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a thread that reads ahead, nor a bound of memory for the next model."""
    monkeypatch.setattr(plan, "HOST_SPARE", 0)
    monkeypatch.setattr(plan, "FEWEST_SLOTS", 1)
    model = editing.backend(diffusers_checkpoint, device="cpu", offload="blocks")
    host = model.placement.host
    model.close()
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: host - 1)
    begun, lifted = [0], []
    start = DiskLayers.start

    def starts(self: DiskLayers, read: ReadWeights) -> float:
        begun[0] += 1
        return start(self, read)

    monkeypatch.setattr(DiskLayers, "start", starts)
    monkeypatch.setattr(loading, "lift_bound", lifted.append)
    with pytest.raises(DeviceError, match="they need a CUDA device"):
        editing.backend(diffusers_checkpoint, device="cpu", offload="blocks", fused="on")
    assert begun == [1]
    assert lifted == [torch.device("cpu")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("joyedit-read-ahead")]


def fused_stand_in(_: ForwardPass) -> RunBlock:
    raise AssertionError("nothing runs here")


@pytest.mark.parametrize("compiles", [True, False])
def test_fused_blocks_give_way_to_a_compiler_that_works(
    compiles: bool, diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are back in force where it does not. The report names what runs."""

    def fuse(wish: str, dit: DiT, *_: object) -> Fusion:
        dit.strategy = fused_stand_in
        return Fusion(on=True)

    def compile_dit(dit: DiT, *_: object) -> Compilation:
        dit.plain_blocks()
        return Compilation(on=compiles, note="" if compiles else "not compiled")

    monkeypatch.setattr(joyimage, "fuse", fuse)
    monkeypatch.setattr(joyimage, "compile_dit", compile_dit)
    monkeypatch.setattr(DiT, "fuse_blocks", lambda self: fuse("on", self))
    backend = editing.backend(diffusers_checkpoint, compile="on")
    assert (backend.info.fused, backend.info.compiled) == (not compiles, compiles)
    assert (backend.dit.strategy is fused_stand_in) == backend.info.fused
    assert backend._block_kind() == ("compiled" if compiles else "fused")


def test_fused_and_compiled_blocks_exclude_each_other(diffusers_checkpoint: Path) -> None:
    with pytest.raises(DeviceError, match="--fused on and --compile on exclude each other"):
        editing.backend(diffusers_checkpoint, fused="on", compile="on")
