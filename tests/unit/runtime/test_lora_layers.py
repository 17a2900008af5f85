"""Changed weights of a block while it runs: the same as merged ones, in every way to run the blocks; then put back."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from joyedit.models.attention import TextLengths
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.models.lora import LowRank, merge
from joyedit.models.quantised_blocks import quantise_blocks
from joyedit.models.quantised_rows import FP8
from joyedit.runtime.placement.lora_layers import LoraLayers

CFG = DiTConfig(hidden_size=96, num_heads=3, num_layers=3, text_dim=16, rope_dims=(8, 12, 12), mlp_ratio=2)
LAYERS = (
    "double_blocks.0.attn.img_attn_qkv", "double_blocks.1.img_mlp.net.0.proj", "double_blocks.2.attn.img_attn_qkv",
    "double_blocks.2.attn.txt_attn_qkv", "double_blocks.0.txt_mlp.net.2", "proj_out", "condition_embedder.time_proj",
)  # fmt: skip
FUSED = pytest.param(
    "fuse_blocks",
    marks=[
        pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="without Triton's interpreter"),
        pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    ],
)


def network(dtype: torch.dtype) -> DiT:
    generator = torch.Generator().manual_seed(0)
    dit = DiT(CFG).eval().requires_grad_(False)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)
    return dit.to(dtype)


def changes(dit: DiT) -> dict[str, list[LowRank]]:
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name in LAYERS:
        outputs, inputs = dit.get_parameter(f"{name}.weight").shape
        down = torch.randn(3, inputs, generator=generator)
        made[name] = [LowRank(down=down, up=torch.randn(outputs, 3, generator=generator) / 4, factor=0.5)]
    return made


@torch.inference_mode()
def velocity(dit: DiT) -> Any:
    generator = torch.Generator().manual_seed(2)
    items = [torch.randn(2, 16, 8, 8, generator=generator) for _ in range(2)]
    txt = torch.randn(12, 16, generator=generator)
    return dit(items, torch.full((1,), 500.0), dit.embed_text(txt), TextLengths.of([5, 7]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("room", [0, 60_000, 10**9])
@pytest.mark.parametrize("way", ["plain_blocks", FUSED])
def test_as_merged_bit_for_bit(way: str, room: int, dtype: torch.dtype) -> None:
    merged, dit = network(dtype), network(dtype)
    for name, low_rank in changes(merged).items():
        weight = merged.get_parameter(f"{name}.weight")
        merge(weight.data, low_rank, weight.data)
    for one in (merged, dit):
        getattr(one, way)()
    plain, expected = velocity(dit), velocity(merged)
    assert not plain.equal(expected)
    layers = LoraLayers(dit, room)
    before = {name: parameter.data_ptr() for name, parameter in dit.named_parameters()}
    for _ in range(2):
        with layers.changed("one", changes(dit)):
            assert velocity(dit).equal(expected)
            assert velocity(dit).equal(expected)
        assert velocity(dit).equal(plain)
        with layers.changed("none", {}):
            assert velocity(dit).equal(plain)
    assert {name: parameter.data_ptr() for name, parameter in dit.named_parameters()} == before
    assert layers.kept_bytes > 0
    assert room > 10**8 or layers.kept_bytes < room + 2**18


@pytest.mark.parametrize("room", [0, 30_000, 10**9])
def test_layers_of_8_bits_are_changed_before_they_are_quantised(room: int) -> None:
    merged, dit, exact = (network(torch.float32) for _ in range(3))
    for name, low_rank in changes(merged).items():
        weight = merged.get_parameter(f"{name}.weight")
        merge(weight.data, low_rank, weight.data)
    for one in (merged, dit):
        quantise_blocks(one, FP8)
    plain, expected = velocity(dit), velocity(merged)
    assert not plain.equal(expected)
    read: list[str] = []

    def read_exact(name: str) -> torch.Tensor:
        read.append(name)
        return exact.get_parameter(name).data.clone()

    layers = LoraLayers(dit, room, read_exact)
    before = {name: parameter.data_ptr() for name, parameter in dit.named_parameters()}
    for _ in range(2):
        with layers.changed("one", changes(dit)):
            assert velocity(dit).equal(expected)
            assert velocity(dit).equal(expected)
        assert velocity(dit).equal(plain)
    assert {name: parameter.data_ptr() for name, parameter in dit.named_parameters()} == before
    assert sorted(read) == sorted(f"{name}.weight" for name in LAYERS if name.startswith("double_blocks"))
    layers.keep_nothing()
    with layers.changed("one", changes(dit)):
        assert velocity(dit).equal(expected)


def test_a_fault_in_the_middle_leaves_the_plain_weights() -> None:
    dit = network(torch.float32)
    plain = velocity(dit)
    layers = LoraLayers(dit)

    def fails() -> None:
        with layers.changed(1, changes(dit)):
            layers.need(0)
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fails()
    assert velocity(dit).equal(plain)
