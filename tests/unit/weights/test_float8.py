"""8-bit floats with scales: what is value times scale is read, anything else is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from joyedit.errors import CheckpointError
from joyedit.models.quantised_rows import Quantised
from joyedit.weights.files import SafetensorsFiles
from joyedit.weights.float8 import Float8Files, is_quantised
from support.single_files import save

VALUES = torch.tensor([[1.0, -2.0, 448.0], [0.5, 0.001953125, -448.0]])
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def mark(format: str) -> torch.Tensor:
    return torch.tensor(list(json.dumps({"format": format}).encode()), dtype=torch.uint8)


def opened(folder: Path, state: dict[str, torch.Tensor], **metadata: str) -> Float8Files:
    files = SafetensorsFiles([save(folder / "x.safetensors", state, **metadata)])
    assert is_quantised(files)
    return Float8Files(files)


def quantised(files: Float8Files) -> Quantised:
    """The values and scales of `a.weight` as they lie in the file."""
    cpu = torch.device("cpu")
    return Quantised(files.kept_values("a.weight", cpu), files.kept_scales("a.weight", cpu))


def refusal(folder: Path, state: dict[str, torch.Tensor], **metadata: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        opened(folder, state, **metadata)
    reason, _, remedy = str(caught.value).removeprefix(f"{folder}/x.safetensors: ").partition("; ")
    assert remedy.startswith("joyedit reads weights in bf16, fp16, fp32, GGUF, and fp8 or int8 with one scale")
    return reason


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("scale", ["weight_scale", "scale_weight"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_value_times_scale(tmp_path: Path, dtype: torch.dtype, scale: str, shape: tuple[int, ...]) -> None:
    state = {
        "a.weight": VALUES.to(dtype), f"a.{scale}": torch.full(shape, 0.37), "a.input_scale": torch.ones(()),
        "a.bias": torch.ones(2, dtype=torch.bfloat16), "plain.weight": VALUES.to(dtype),
    }  # fmt: skip
    files = opened(tmp_path, state)
    assert files.shapes() == {"a.weight": (2, 3), "a.bias": (2,), "plain.weight": (2, 3)}
    assert files.other_types() == {}
    found = dict(files.read(torch.device("cpu")))
    assert torch.equal(found["a.weight"], VALUES.to(dtype).float() * torch.tensor(0.37))
    assert torch.equal(found["plain.weight"], VALUES.to(dtype).float())
    assert found["a.bias"].dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_a_scale_for_each_output_channel(tmp_path: Path, shape: tuple[int, ...]) -> None:
    scales = torch.tensor([0.5, 3.0]).reshape(shape)
    files = opened(tmp_path, {"a.weight": VALUES.to(E4M3), "a.weight_scale": scales})
    found = dict(files.read(torch.device("cpu")))["a.weight"]
    assert torch.equal(found, VALUES.to(E4M3).float() * scales.reshape(2, 1))
    assert files.is_kept_as("a.weight", E4M3)
    assert not files.is_kept_as("a.weight", torch.int8)
    kept = quantised(files)
    assert kept.values.dtype == E4M3
    assert torch.equal(kept.wide(), found)


def whole_numbers(group: int | None, columns: int = 32) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A weight, and what ComfyUI writes of it: int8 with a scale for each row, rotated in groups."""
    weight = torch.randn(6, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    four = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]) / 2
    turned, said = weight, {"format": "int8_tensorwise"}
    if group:
        matrix = {4: four, 16: np.kron(four, four)}[group]
        turned = (weight.unflatten(1, (-1, group)) @ torch.from_numpy(matrix)).flatten(1)
        said |= {"convrot": True, "convrot_groupsize": group}
    scale = turned.abs().amax(1, keepdim=True) / 127
    mark = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)
    values = (turned / scale).round().to(torch.int8)
    return weight.float(), {"a.weight": values, "a.weight_scale": scale.float(), "a.comfy_quant": mark}


@pytest.mark.parametrize("group", [None, 4, 16])
def test_whole_numbers_and_rotations(tmp_path: Path, group: int | None) -> None:
    weight, state = whole_numbers(group)
    files = opened(tmp_path, state)
    assert files.shapes() == {"a.weight": (6, 32)}
    assert files.other_types() == {}
    found = dict(files.read(torch.device("cpu")))["a.weight"]
    assert 0 < (found - weight).norm() < 0.01 * weight.norm()
    assert files.is_kept_as("a.weight", torch.int8) == (group is None)
    if group is None:
        assert torch.equal(quantised(files).wide(), found)


@pytest.mark.parametrize(("group", "columns"), [(16, 24), (8, 32), (0, 32), ("16", 32), (4**7, 32)])
def test_rotations_that_do_not_fit(tmp_path: Path, group: object, columns: int) -> None:
    _, state = whole_numbers(None, columns)
    said = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": group}
    state["a.comfy_quant"] = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)
    assert refusal(tmp_path, state) == f"a.comfy_quant says a rotation that does not fit: groups of {group}"


@pytest.mark.parametrize("format", ["nvfp4", "mxfp8", "int8_tensorwise"])
def test_other_formats(tmp_path: Path, format: str) -> None:
    state = {"a.weight": VALUES.to(E4M3), "a.weight_scale": torch.ones(()), "a.comfy_quant": mark(format)}
    assert refusal(tmp_path, state) == f"a.comfy_quant is quantised as {format}"


@pytest.mark.parametrize("layers", ['{"layers": {"a": {"format": "nvfp4"}}}', '{"layers": 3}', "{"])
def test_formats_in_the_header(tmp_path: Path, layers: str) -> None:
    state = {"a.weight": VALUES.to(E4M3)}
    assert "is quantised as" in refusal(tmp_path, state, _quantization_metadata=layers)
    fine = opened(tmp_path, state, _quantization_metadata='{"layers": {"a": {"format": "float8_e4m3fn"}}}')
    assert fine.shapes() == {"a.weight": (2, 3)}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            {"a.weight_scale": torch.ones(3, 1)},
            "a.weight_scale has neither one number nor one for each output channel",
        ),
        ({"b.weight_scale": torch.ones(())}, "b.weight_scale belongs to no weight of 8 bits"),
        ({"scaled_fp8": torch.zeros(2).to(E4M3)}, "a.weight has no scale"),
        ({"a.comfy_quant": torch.zeros(3, dtype=torch.uint8)}, "a.comfy_quant is quantised as an unreadable mark"),
        ({"a.comfy_quant": torch.zeros(5000, dtype=torch.uint8)}, "a mark comfy_quant is too long"),
        (
            {"a.comfy_quant": torch.tensor(list(b"[1]"), dtype=torch.uint8)},
            "a.comfy_quant is quantised as an unreadable",
        ),
    ],
)
def test_what_is_not_value_times_scale(tmp_path: Path, more: dict[str, Any], reason: str) -> None:
    assert refusal(tmp_path, {"a.weight": VALUES.to(E4M3)} | more).startswith(reason)


def test_integers_stay_what_they_are(tmp_path: Path) -> None:
    """Strict loading tells them."""
    files = opened(tmp_path, {"a.weight": VALUES.to(E4M3), "b.weight": torch.ones(2, 2, dtype=torch.int8)})
    assert files.other_types() == {"b.weight": "I8"}


def test_ordinary_weights_are_not_quantised(tmp_path: Path) -> None:
    assert not is_quantised(SafetensorsFiles([save(tmp_path / "x.safetensors", {"a.weight": VALUES})]))
