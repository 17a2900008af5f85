"""`--precision fp8` and `int8` from a checkpoint to latents: the same wherever weights lie, whatever the company."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from joyedit.errors import DeviceError
from joyedit.job.pictures import machine_memory
from joyedit.job.run_config import RunConfig
from joyedit.models.quantised import QuantisedLinear
from joyedit.models.quantised_blocks import LAYERS
from joyedit.models.quantised_rows import FP8, INT8, quantised_weight
from joyedit.models.schedule import sigmas
from joyedit.runtime.bench.batch import BenchConfig, batch_of
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.denoise import Conditioning, denoise
from joyedit.runtime.joyimage.loading import random_backend
from joyedit.runtime.placement import plan
from joyedit.runtime.tuning.precision import check_precision
from joyedit.weights.load import WeightReader
from joyedit.weights.lora_file import layer_shapes
from joyedit.weights.stored import Stored
from support import editing
from support.editing import Edit, picture
from support.loras import lora_of, matrices, named, write

IMAGE = picture(256, 256)
DTYPES = {"fp8": FP8, "int8": INT8}


@contextmanager
def loaded(folder: Path, **options: Any) -> Iterator[JoyImageBackend]:
    model = editing.backend(folder, device="cpu", **options)
    try:
        yield model
    finally:
        model.close()


def latents(model: JoyImageBackend, *edits: Edit) -> Tensor:
    return model.denoise(model.encode(editing.batch_of(edits)), lambda done, total: None)


def edit(*loras: Any, text: str = "Make it red.", **more: Any) -> Edit:
    return Edit(text=text, images=[IMAGE], loras=loras, steps=2, **more)


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_weights_lie_where_they_may(
    diffusers_checkpoint: Path, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device, passing through it, and from the disk each time: the same latents, in less memory."""
    edits = edit(), edit(text="Make it blue, all of it.", seed=7)
    with loaded(diffusers_checkpoint) as model:
        exact, weights = latents(model, *edits), model.placement.weights
    with loaded(diffusers_checkpoint, precision=precision) as model:
        assert model.info.precision == precision
        assert precision in model.info.notes[0]
        expected = latents(model, *edits)
        assert model.placement.weights < weights
        layer = model.dit.blocks()[1].get_submodule(LAYERS[3])
        assert isinstance(layer, QuantisedLinear)
        assert layer.weight.dtype == DTYPES[precision]
        _same_in_company(model, *edits)
    assert 1e-4 < apart(expected, exact) < 0.1
    with loaded(diffusers_checkpoint, precision=precision, offload="blocks") as model:
        assert model.placement.streams_blocks
        assert latents(model, *edits).equal(expected)
        host = model.placement.host
    monkeypatch.setattr(plan, "HOST_SPARE", 0)
    monkeypatch.setattr(plan, "FEWEST_SLOTS", 1)
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: host - 1)
    with loaded(diffusers_checkpoint, precision=precision, offload="blocks") as model:
        assert model.placement.from_disk > 0
        assert latents(model, *edits).equal(expected)


@pytest.mark.parametrize("precision", ["exact", "fp8", "int8"])
def test_weights_that_lie_in_their_file_as_they_are(
    diffusers_checkpoint: Path, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CUDA device reads them by their place in the file, also those whose shape is another one there."""
    with loaded(diffusers_checkpoint, precision=precision) as model:
        expected = latents(model, edit())
    read = _read_by_place(monkeypatch)
    with loaded(diffusers_checkpoint, precision=precision) as model:
        assert latents(model, edit()).equal(expected)
        assert sum(one.nbytes for one in read) > model.placement.weights / 2


def _read_by_place(monkeypatch: pytest.MonkeyPatch) -> list[Stored]:
    """Let weights be read as for a CUDA device; gives what is read so."""
    read: list[Stored] = []
    begin = WeightReader.__init__

    def begins(self: WeightReader, *given: Any) -> None:
        begin(self, *given)
        self._to_device = FromTheFile(read)  # type: ignore[assignment]

    monkeypatch.setattr(WeightReader, "__init__", begins)
    return read


class FromTheFile:
    """Stands for the `DeviceReader` of a CUDA device."""

    def __init__(self, read: list[Stored]) -> None:
        self._read = read

    def read(self, stored: Stored) -> Tensor:
        self._read.append(stored)
        data = stored.path.read_bytes()[stored.offset : stored.offset + stored.nbytes]
        return torch.frombuffer(bytearray(data), dtype=stored.dtype)


def _same_in_company(model: JoyImageBackend, *edits: Edit) -> None:
    """Items that are encoded alone have the same latents, bit for bit, alone and in one batch."""
    given = [model.encode(editing.batch_of([one])).conditioning for one in edits]
    together = Conditioning(
        noise=torch.cat([one.noise for one in given]),
        references=tuple(torch.cat(parts) for parts in zip(*(one.references for one in given), strict=True)),
        positive=tuple(one.positive[0] for one in given),
        negative=tuple(one.negative[0] for one in given),
        scales=tuple(one.scales[0] for one in given),
    )
    levels = sigmas(2, "original")
    with torch.inference_mode():
        found = denoise(model.dit, together, levels)
        for number, one in enumerate(given):
            assert denoise(model.dit, one, levels).equal(found[number : number + 1])


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_files_of_8_bits_are_taken_as_they_are(
    diffusers_checkpoint: Path, tmp_path: Path, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that holds what joyedit would make gives the same latents, also where its layers pass."""
    folder = Path(shutil.copytree(diffusers_checkpoint, tmp_path / "checkpoint"))
    path = next((folder / "transformer").glob("*.safetensors"))
    state, made = load_file(path), {}
    for name, tensor in state.items():
        made[name] = tensor
        if any(name.endswith(f".{layer}.weight") for layer in LAYERS):
            values, made[f"{name}_scale"] = quantised_weight(tensor.float(), DTYPES[precision])
            made[name] = values
            if precision == "int8":
                mark = b'{"format": "int8_tensorwise"}'
                made[name.replace(".weight", ".comfy_quant")] = torch.tensor(list(mark), dtype=torch.uint8)
    with loaded(folder, precision=precision) as model:
        expected = latents(model, edit())
    save_file(made, path)
    for from_the_file in (False, True):  # as a CPU reads them, and as a CUDA device does
        if from_the_file:
            read = _read_by_place(monkeypatch)
        for offload in ("none", "blocks"):
            with loaded(folder, precision=precision, offload=offload) as model:
                assert latents(model, edit()).equal(expected)
                assert model._originals is not None
                assert not model._originals._pending  # the device holds no values beside the network's
    assert sum(one.nbytes for one in read if one.dtype == DTYPES[precision]) > 0
    with loaded(folder) as model:
        assert apart(latents(model, edit()), expected) < 0.1


@pytest.mark.parametrize("offload", ["none", "blocks"])
def test_loras_are_merged_before(diffusers_checkpoint: Path, tmp_path: Path, offload: Any) -> None:
    """For the run, or for a batch of items that differ: the same latents, bit for bit."""
    with loaded(diffusers_checkpoint) as model:
        shapes = layer_shapes(model.dit)
        some = lora_of(write(tmp_path / "some.safetensors", named(matrices(shapes))))
        exact = latents(model, edit(some))
    with loaded(diffusers_checkpoint, precision="fp8", offload=offload) as model:
        plain = latents(model, edit())
    with loaded(diffusers_checkpoint, precision="fp8", offload=offload, merged_loras=(some,)) as model:
        expected = latents(model, edit(some))
    assert apart(expected, exact) < 0.1
    assert not expected.equal(plain)
    with loaded(diffusers_checkpoint, precision="fp8", offload=offload, lora_sets=((), (some,))) as model:
        assert latents(model, edit(some)).equal(expected)
        assert latents(model, edit()).equal(plain)
        assert latents(model, edit(some)).equal(expected)


def test_random_weights_are_those_of_the_exact_network() -> None:
    found = []
    for precision in ("exact", "fp8"):
        config = RunConfig(output=Path(), device="cpu", precision=precision)  # type: ignore[arg-type]
        backend = random_backend("tiny", config)
        batch = batch_of(BenchConfig(size="tiny", basesize=256, steps=1))
        encoded = backend.encode(batch)
        found.append(backend.dit.blocks()[0].attn.img_attn_qkv)
        del encoded
        backend.close()
    exact, narrow = found
    assert isinstance(narrow, QuantisedLinear)
    expected = QuantisedLinear.of(exact, FP8)
    assert expected.weight.data.view(torch.uint8).equal(narrow.weight.data.view(torch.uint8))
    assert expected.weight_scale.equal(narrow.weight_scale)


class FakeGPU:
    """What torch says of a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr("joyedit.runtime.tuning.precision._fault", lambda precision, device: "")


@pytest.mark.parametrize(
    ("name", "capability", "precision", "refusal"),
    [
        ("NVIDIA A100", (8, 0), "fp8", "NVIDIA A100 (compute capability 8.0) has no FP8 (Ada, Hopper, Blackwell and "
         "newer have it); use --precision int8 or exact"),
        ("Tesla V100", (7, 0), "fp8", "Tesla V100 (compute capability 7.0) has no FP8 (Ada, Hopper, Blackwell and "
         "newer have it); use --precision exact"),
        ("Tesla V100", (7, 0), "int8", "Tesla V100 (compute capability 7.0) has no products of integers; use "
         "--precision exact"),
        ("NVIDIA L4", (8, 9), "fp8", ""),
        ("NVIDIA H200", (9, 0), "fp8", ""),
        ("NVIDIA GeForce RTX 5090", (12, 0), "fp8", ""),
        ("NVIDIA A100", (8, 0), "int8", ""),
        ("Tesla T4", (7, 5), "int8", ""),
    ],
)  # fmt: skip
def test_gpus(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int], precision: Any, refusal: str
) -> None:
    FakeGPU(monkeypatch, name, capability)
    if not refusal:
        assert check_precision(precision, torch.device("cuda")) == ""
        return
    with pytest.raises(DeviceError) as caught:
        check_precision(precision, torch.device("cuda"))
    assert str(caught.value) == f"--precision {precision}: {refusal}"


def test_a_fault_of_the_products_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGPU(monkeypatch, "NVIDIA L4", (8, 9))
    monkeypatch.setattr("joyedit.runtime.tuning.precision._fault", lambda precision, device: "products are wrong by 1")
    with pytest.raises(DeviceError, match=r"--precision fp8: products are wrong by 1 on NVIDIA L4 with torch"):
        check_precision("fp8", torch.device("cuda"))


def test_other_devices() -> None:
    assert check_precision("exact", torch.device("mps")) == ""
    assert "emulated" in check_precision("fp8", torch.device("cpu"))
    with pytest.raises(DeviceError, match="Apple GPU"):
        check_precision("int8", torch.device("mps"))


def test_compiling_is_for_exact_blocks(diffusers_checkpoint: Path) -> None:
    with pytest.raises(DeviceError, match="--compile on and --precision fp8 exclude each other"):
        editing.backend(diffusers_checkpoint, device="cpu", precision="fp8", compile="on")
