"""Which linear layers of the DiT's blocks are of 8 bits, and how they become so."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import nn

from joyedit.models.blocks import DoubleBlock
from joyedit.models.dit import DiT
from joyedit.models.quantised import QuantisedLinear

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


def replace_linears(
    dit: DiT, make: Callable[[int, str, nn.Linear], nn.Module], layers: Collection[str] = LAYERS
) -> None:
    """Let `make` give a module for these layers of each block: (number of the block, name, what is there)."""
    for number, block in enumerate(dit.blocks()):
        for name in layers:
            found = block.get_submodule(name)
            assert isinstance(found, nn.Linear)
            put_linear(block, name, make(number, name, found))


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


def quantise_blocks(dit: DiT, dtype: torch.dtype, layers: Collection[str] = LAYERS) -> None:
    """Quantise these layers of all blocks of a DiT that has its weights."""
    replace_linears(dit, lambda number, name, linear: QuantisedLinear.of(linear, dtype), layers)
