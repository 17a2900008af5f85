"""A layer of a network as one piece of memory: all its parameters, one behind the other.

One piece is one copy, and the copy of a layer runs at the full speed of the bus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ALIGNMENT = 256
"""Bytes. Matrix products choose their kernel by the alignment of their operands, and this is enough for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    owner: nn.Module
    attribute: str
    shape: torch.Size
    dtype: torch.dtype
    offset: int

    @property
    def nbytes(self) -> int:
        return self.shape.numel() * self.dtype.itemsize


class PackedLayer:
    """The parameters of one layer and their places in a buffer of `nbytes` bytes.

    The network that holds the layer must have none of these parameters elsewhere.
    """

    def __init__(
        self,
        module: nn.Module,
        dtype_of: Callable[[str], torch.dtype],
        *,
        prefix: str = "",
        left_out: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """`prefix` and a parameter's name are its name in the network, which `dtype_of` and `left_out` are asked for.

        A parameter that is left out stays where the rest of the network is.
        """
        self._entries: dict[str, _Entry] = {}
        end = 0
        for local, parameter in module.named_parameters():
            name = prefix + local
            if left_out(name):
                continue
            path, _, attribute = local.rpartition(".")
            entry = _Entry(
                owner=module.get_submodule(path),
                attribute=attribute,
                shape=parameter.shape,
                dtype=dtype_of(name),
                offset=end,
            )
            self._entries[name] = entry
            end += -(-entry.nbytes // ALIGNMENT) * ALIGNMENT
        self.nbytes = end

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters in the network."""
        return tuple(self._entries)

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """The parameters as they lie in a buffer, uint8 (nbytes or more,)."""
        with torch.inference_mode(False):
            return {
                name: buffer[e.offset : e.offset + e.nbytes].view(e.dtype).view(e.shape)
                for name, e in self._entries.items()
            }

    def point_to(self, tensors: Mapping[str, Tensor]) -> None:
        """Let the layer compute with these tensors. Nothing is copied."""
        with torch.inference_mode(False):
            for name, entry in self._entries.items():
                old = entry.owner._parameters[entry.attribute]
                if old is None or old.is_meta:
                    entry.owner._parameters[entry.attribute] = nn.Parameter(tensors[name], requires_grad=False)
                else:
                    old.data = tensors[name]

    def tensors(self) -> dict[str, Tensor]:
        """What the layer computes with now."""
        found = {name: entry.owner._parameters[entry.attribute] for name, entry in self._entries.items()}
        return {name: parameter.data for name, parameter in found.items() if parameter is not None}

    def point_nowhere(self, device: torch.device) -> None:
        """Let the layer hold no memory. Its parameters keep their shapes."""
        self.point_to(
            {name: torch.empty((), dtype=e.dtype, device=device).expand(e.shape) for name, e in self._entries.items()}
        )


def assign(network: nn.Module, name: str, tensor: Tensor) -> None:
    """Give a network's parameter its weights, as they are."""
    path, _, attribute = name.rpartition(".")
    network.get_submodule(path)._parameters[attribute] = nn.Parameter(tensor, requires_grad=False)


def numbered(prefix: str, layers: Sequence[nn.Module]) -> list[tuple[str, nn.Module]]:
    """Layers of a ModuleList, each with the prefix of its parameters' names."""
    return [(f"{prefix}.{number}.", layer) for number, layer in enumerate(layers)]
