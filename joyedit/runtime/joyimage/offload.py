"""Networks that take turns on a device which does not hold all of them.

Weights never change, so nothing is copied back: each network keeps its weights in the host's memory
(pinned, so that they come at the full speed of the bus), and on the device lies a copy of the one whose turn it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

ENCODE_AHEAD = 16
"""Batches that are encoded before the first is denoised. At full size one change of turns moves some 50 GB;
behind sixteen edits of 1024 pixels that is well under a hundredth of their time."""


class NetworkSwapper:
    """Some networks and their device; at most one of them is there."""

    def __init__(self, device: torch.device, networks: Mapping[str, nn.Module]) -> None:
        """The networks' weights may still be loading: each is looked at when its turn comes for the first time."""
        self._device = device
        self._networks = networks
        self._host: dict[str, dict[str, Tensor]] = {}
        self._here: str | None = None

    def activate(self, name: str) -> bool:
        """Put one network on the device, after the others have left it; whether anything moved.

        The copies are queued on the current stream, behind what was queued there.
        """
        if self._here == name:
            return False
        with torch.inference_mode(False):
            if self._here is not None:
                self._point(self._here, self._host[self._here])
                self._here = None
            if name not in self._host:
                self._host[name] = self._settle(name)
            self._point(name, {key: self._copied(tensor) for key, tensor in self._host[name].items()})
        self._here = name
        return True

    def _settle(self, name: str) -> dict[str, Tensor]:
        """Move a network to its place in the host's memory, one tensor at a time: no second copy of it all."""
        home = {}
        for key, parameter in self._networks[name].named_parameters():
            home[key] = parameter.data = self._pinned(parameter.data)
        return home

    def _point(self, name: str, weights: Mapping[str, Tensor]) -> None:
        for key, parameter in self._networks[name].named_parameters():
            parameter.data = weights[key]

    def _copied(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)

    def _pinned(self, tensor: Tensor) -> Tensor:
        if self._device.type != "cuda":
            return tensor.cpu()
        return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)
