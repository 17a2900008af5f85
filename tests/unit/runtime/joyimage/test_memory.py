"""Torch's ways to say that there is no room, and latents that are not finite, as the real backend tells them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.batch_size import seconds_a_forward
from joyedit.runtime.joyimage.memory import CACHE_LEAST, CACHE_MOST, memory_faults
from joyedit.runtime.protocol import OutOfMemory
from support import editing
from support.editing import Edit, batch_of, picture


@pytest.fixture(scope="module")
def backend(diffusers_checkpoint: Path) -> JoyImageBackend:
    return editing.backend(diffusers_checkpoint)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nmore"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError("MPS backend out of memory (MPS allocated: 40 GiB, max allowed: 48 GiB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_out_of_memory(error: Exception) -> None:
    with pytest.raises(OutOfMemory) as caught, memory_faults():
        raise error
    assert "\n" not in str(caught.value)


def test_other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_faults():
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize("stage", ["see", "predict", "decoder"])
def test_each_stage_of_the_backend_tells_it(
    backend: JoyImageBackend, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    owner = {"see": backend.conditioner, "predict": backend.dit, "decoder": backend.vae}[stage]
    batch = batch_of([Edit(text="x", images=[picture(256, 256, seed=321)], steps=1)])
    backend.free_memory()
    with monkeypatch.context() as patch:
        patch.setattr(owner, "decode" if stage == "decoder" else stage, full)
        with pytest.raises(OutOfMemory):
            backend.decode(backend.denoise(backend.encode(batch), lambda done, total: None))
    assert len(backend.decode(backend.denoise(backend.encode(batch), lambda done, total: None))) == 1


def test_freeing_memory_empties_the_cache(backend: JoyImageBackend) -> None:
    backend.encode(batch_of([Edit(text="x", images=[picture(256, 256)])]))
    assert len(backend.cache) > 0
    backend.free_memory()
    assert len(backend.cache) == 0


def test_latents_that_are_not_finite(backend: JoyImageBackend) -> None:
    latents = torch.zeros(4, 16, 4, 4)
    latents[1, 0, 0, 0] = float("nan")
    latents[3, 1, 2, 2] = float("inf")
    pending = backend.decode_later(latents)
    assert [pending.is_finite(place) for place in range(len(pending))] == [True, False, True, False]
    assert pending.picture(0).size == (32, 32)


def test_the_cache_takes_a_bounded_share(backend: JoyImageBackend) -> None:
    assert CACHE_LEAST <= backend.cache.capacity <= CACHE_MOST


def test_a_forward_for_the_choice_of_a_batch_runs_and_its_memory_is_modelled(backend: JoyImageBackend) -> None:
    assert seconds_a_forward(backend.dit, backend.memory, (256, 320), backend.synchronize, 2) > 0
    assert backend.memory.batch_bytes((256, 320), 4) > backend.memory.batch_bytes((256, 320), 1) > 0
    assert backend._weights == 4 * sum(
        p.numel() for network in (backend.dit, backend.vae, backend.text_encoder) for p in network.parameters()
    )


def test_on_the_cpu_the_batch_follows_from_the_tokens(backend: JoyImageBackend) -> None:
    assert [backend.auto_batch_size(size) for size in ((256, 256), (512, 512), (1024, 1024))] == [4, 1, 1]
