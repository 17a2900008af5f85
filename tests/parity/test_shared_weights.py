"""One copy of the weights that pass, for several workers: the same pictures, and the memory of one copy."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from joyedit.job.pictures.machine_memory import SPARE
from joyedit.job.run_config import RunConfig
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.runtime.joyimage.loras import Merger
from joyedit.runtime.placement.shared_host import SharedHost, digest_of
from joyedit.runtime.placement.sizes import BLOCKS, TEXT_LAYERS
from joyedit.runtime.workers import fleet as fleet_module
from joyedit.runtime.workers.fleet import Fleet, config_of
from joyedit.runtime.workers.place import Place
from joyedit.runtime.workers.shared_weights import open_shared
from joyedit.weights.lora_file import layer_shapes
from support.editing import Edit, levels_apart, picture, run
from support.loras import lora_of, matrices, named, write


@pytest.fixture
def handle() -> Iterator[int]:
    found = open_shared()
    if found is None:
        pytest.skip("this system has no files in memory without a name")
    yield found
    os.close(found)


def config(folder: Path, handle: int | None, share: int | None = SPARE) -> RunConfig:
    """Of a worker whose own share of the machine's memory has room for so many bytes."""
    return RunConfig(
        output=Path("unused"),
        model=str(folder),
        device="cpu",
        offload="blocks",
        host_memory=share,
        shared_weights=handle,
    )


def test_layers_of_several_processes(handle: int) -> None:
    one, other = SharedHost(handle), SharedHost(os.dup(handle))
    sizes = [5000, 0, 3000]
    ours, theirs = one.place(BLOCKS, sizes), other.place(BLOCKS, sizes)
    assert one.nbytes == 0
    for layer, size in enumerate(sizes):
        assert ours(layer).shape == (size,)
        ours(layer).fill_(7 + layer)
    assert theirs(0).eq(7).all()
    assert theirs(2).eq(9).all()
    assert other.place(TEXT_LAYERS, [4096])(0).eq(0).all()
    assert one.nbytes == other.nbytes
    assert 0 < one.nbytes <= 4 * 4096 + (1 << 21)  # what was touched, also where pages are large


def test_only_the_same_weights_are_shared(handle: int) -> None:
    network = nn.Linear(3, 2)
    same = [digest_of({"dit": network}, lambda *_: torch.bfloat16, "a GPU") for _ in range(2)]
    wide = digest_of({"dit": network}, lambda *_: torch.float32, "a GPU")
    elsewhere = digest_of({"dit": network}, lambda *_: torch.bfloat16, "another GPU")
    assert SharedHost(handle).agree(same[0])
    assert SharedHost(os.dup(handle)).agree(same[1])
    assert not SharedHost(handle).agree(wide)
    assert not SharedHost(handle).agree(elsewhere)


def host_bytes(backend: JoyImageBackend) -> int:
    placed = [one for one in (backend._placed.dit, backend._placed.encoder) if one is not None]
    return sum(one.host_bytes for one in placed)


def test_pictures_of_backends_that_share(handle: int, diffusers_checkpoint: Path) -> None:
    edit = Edit(text="Turn the sky red.", images=[picture(256, 320)])
    alone = load_backend(config(diffusers_checkpoint, None, None))
    (expected,) = run(alone, edit)
    backends = [load_backend(config(diffusers_checkpoint, handle)) for _ in range(2)]
    for backend in backends:
        (got,) = run(backend, edit)
        assert levels_apart(got, expected) == 0
    one = host_bytes(alone)
    assert one > 0
    assert [host_bytes(backend) for backend in backends] == [one, one]
    assert 0.9 * one < SharedHost(handle).nbytes < 1.5 * one  # whole pages
    for backend in (alone, *backends):
        backend.close()


def test_weights_with_loras_lie_there_as_all_use_them(
    handle: int, diffusers_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a second worker loads, the first one computes with what lies there."""
    plain = load_backend(config(diffusers_checkpoint, None, None))
    lora = lora_of(write(tmp_path / "a.safetensors", named(matrices(layer_shapes(plain.dit)))))
    plain.close()
    given = replace(config(diffusers_checkpoint, handle), merged_loras=(lora,))
    first = load_backend(given)
    first.ready()
    in_use = layers_of(first)
    expected = [layer.clone() for layer in in_use]
    merge, disturbed = Merger.__call__, []

    def merges(self: Merger, name: str, tensor: Tensor) -> Tensor:
        disturbed.append(not all(map(torch.equal, in_use, expected)))
        return merge(self, name, tensor)

    monkeypatch.setattr(Merger, "__call__", merges)
    second = load_backend(given)
    assert all(map(torch.equal, layers_of(second), expected))
    assert len(disturbed) > 10
    assert not any(disturbed)
    first.close()
    second.close()


def layers_of(backend: JoyImageBackend) -> list[Tensor]:
    """The blocks in the host's memory, when all are there."""
    assert backend._placed.dit is not None
    (blocks,) = backend._placed.dit.groups
    return [blocks.host.get(layer) for layer in sorted(blocks.on_host)]


def test_where_there_is_room_each_has_its_own(handle: int, diffusers_checkpoint: Path) -> None:
    backend = load_backend(config(diffusers_checkpoint, handle, share=SPARE + 10**9))
    backend.ready()
    assert host_bytes(backend) > 0
    assert SharedHost(handle).nbytes == 0
    backend.close()


def test_workers_inherit_it_and_leave_nothing(diffusers_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(given: RunConfig, place: Place, count: int) -> RunConfig:
        return replace(config_of(given, place, count), host_memory=SPARE, shared_memory=None)

    monkeypatch.setattr(fleet_module, "config_of", short)
    fleet = Fleet([Place(number=0), Place(number=1)], config(diffusers_checkpoint, None, None))
    try:
        until = time.monotonic() + 120
        while len(fleet.ready()) < 2 and time.monotonic() < until:
            fleet._first_loaded()
        shared = fleet._shared
        if shared is None:
            pytest.skip("this system has no files in memory without a name")
        alone = load_backend(config(diffusers_checkpoint, None, None))
        alone.ready()
        one = host_bytes(alone)
        while SharedHost(shared).nbytes < 0.9 * one and time.monotonic() < until:
            time.sleep(0.05)
        assert 0.9 * one < SharedHost(shared).nbytes < 1.5 * one
        alone.close()
    finally:
        fleet.close()
    assert fleet._shared is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(shared)
