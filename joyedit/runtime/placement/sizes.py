"""The bytes of a checkpoint's networks, part by part, from networks without weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.vae import VAE

DtypeOf = Callable[[str, str], torch.dtype]
"""The dtype of a parameter, by the network's name and its own."""

BLOCKS = "double_blocks"
TEXT_LAYERS = "model.language_model.layers"
VISION_BLOCKS = "model.visual.blocks"
EMBEDDING = "model.language_model.embed_tokens.weight"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """Equal layers: how many, and the bytes of one."""

    count: int
    nbytes: int

    @property
    def total(self) -> int:
        """Bytes of all of them."""
        return self.count * self.nbytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Bytes of the networks' weights in the run's dtype. `*_rest` is what is in no layer."""

    blocks: Layers
    dit_rest: int
    text_layers: Layers
    vision_blocks: Layers
    text_rest: int
    embedding: int
    """The table of the text encoder's tokens. A lookup in it needs no device."""
    vae: int

    @property
    def dit(self) -> int:
        """The whole DiT."""
        return self.blocks.total + self.dit_rest

    @property
    def encoder(self) -> int:
        """The whole text encoder."""
        return self.text_layers.total + self.vision_blocks.total + self.text_rest + self.embedding

    @property
    def total(self) -> int:
        """All three networks."""
        return self.dit + self.encoder + self.vae

    @classmethod
    def of(cls, dit: DiT, encoder: TextEncoder, vae: VAE, dtype_of: DtypeOf) -> Sizes:
        """The networks may be on the meta device."""
        blocks, dit_rest = _split(dit, BLOCKS, lambda name: dtype_of("transformer", name), stays_with_rest)
        text, vision = (
            _split(encoder, prefix, lambda name: dtype_of("text encoder", name))
            for prefix in (TEXT_LAYERS, VISION_BLOCKS)
        )
        embedding = encoder.get_parameter(EMBEDDING).numel() * dtype_of("text encoder", EMBEDDING).itemsize
        whole = text[0].total + text[1]
        return cls(
            blocks=blocks,
            dit_rest=dit_rest,
            text_layers=text[0],
            vision_blocks=vision[0],
            text_rest=whole - text[0].total - vision[0].total - embedding,
            embedding=embedding,
            vae=sum(p.numel() * dtype_of("vae", name).itemsize for name, p in vae.named_parameters()),
        )


def stays_with_rest(name: str) -> bool:
    """Modulations are made for all blocks at once, so their small tables are never streamed."""
    return name.endswith("modulate_table")


def _split(
    network: nn.Module,
    prefix: str,
    dtype_of: Callable[[str], torch.dtype],
    left_out: Callable[[str], bool] = lambda name: False,
) -> tuple[Layers, int]:
    """The layers below a prefix, and the bytes of all other parameters."""
    inside = outside = 0
    for name, nbytes in _bytes(network, dtype_of):
        if name.startswith(prefix + ".") and not left_out(name):
            inside += nbytes
        else:
            outside += nbytes
    count = len(network.get_submodule(prefix))  # type: ignore[arg-type]
    return Layers(count=count, nbytes=-(-inside // max(1, count))), outside


def _bytes(network: nn.Module, dtype_of: Callable[[str], torch.dtype]) -> Iterator[tuple[str, int]]:
    for name, parameter in network.named_parameters():
        yield name, parameter.numel() * dtype_of(name).itemsize
