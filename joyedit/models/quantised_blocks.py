"""Which linear layers of the DiT's blocks are of 8 bits, and how they become so."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import torch
from torch import nn

from joyedit.models.blocks import DoubleBlock
from joyedit.models.dit import DiT
from joyedit.models.quantised import QuantisedLinear
from joyedit.models.quantised_rows import FP8, INT8

LAYERS = (
    "attn.img_attn_qkv",
    "attn.img_attn_proj",
    "img_mlp.net.0.proj",
    "img_mlp.net.2",
    "attn.txt_attn_qkv",
    "attn.txt_attn_proj",
    "txt_mlp.net.0.proj",
    "txt_mlp.net.2",
)
"""The linear layers of a block, by their names in it."""
QUANTISED = {"fp8": (FP8, LAYERS), "int8": (INT8, LAYERS)}
"""Dtype and layers of each precision but the exact one. A change of it changes pictures: see OUTPUT_VERSION."""

SCALE = "weight_scale"
_PARAMETER = re.compile(r"double_blocks\.\d+\.(.+)\.(weight|weight_scale)")


def dtype_of_quantised(name: str, precision: str) -> torch.dtype | None:
    """The dtype of a parameter of the DiT that belongs to the quantised layers of a precision; None for others."""
    found = _PARAMETER.fullmatch(name) if precision in QUANTISED else None
    if found is None:
        return None
    dtype, layers = QUANTISED[precision]
    return None if found[1] not in layers else torch.float32 if found[2] == SCALE else dtype


def quantise_blocks_of_no_weights(dit: DiT, precision: str) -> None:
    """Let the layers of a precision be of 8 bits in a DiT on the meta device. Twice is as once."""
    if precision in QUANTISED:
        dtype, layers = QUANTISED[precision]
        replace_linears(dit, lambda linear: QuantisedLinear(linear.in_features, linear.out_features, dtype), layers)


def quantise_blocks(dit: DiT, dtype: torch.dtype, layers: Collection[str] = LAYERS) -> None:
    """Quantise these layers of all blocks of a DiT that has its weights."""
    replace_linears(dit, lambda linear: QuantisedLinear.of(linear, dtype), layers)


def replace_linears(dit: DiT, make: Callable[[nn.Linear], nn.Module], layers: Collection[str]) -> None:
    """Let `make` give a module for these layers of each block, where they are linear layers still."""
    for block in dit.blocks():
        for name in layers:
            found = block.get_submodule(name)
            if isinstance(found, nn.Linear):
                put_linear(block, name, make(found))


def put_linear(block: DoubleBlock, name: str, linear: nn.Module) -> None:
    """Let `linear` be this layer of a block."""
    path, _, attribute = name.rpartition(".")
    owner = block.get_submodule(path)
    if isinstance(owner, nn.ModuleList):
        owner[int(attribute)] = linear
    elif isinstance(owner, nn.ModuleDict):
        owner[attribute] = linear
    else:
        setattr(owner, attribute, linear)
