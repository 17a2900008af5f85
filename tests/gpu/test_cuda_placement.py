"""What only a CUDA device shows of weights that are placed: memory that another stream still reads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from joyedit.runtime.placement.placed_network import PlacedNetwork
from support.cuda import cuda

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
WIDE = 2048


def test_a_weight_that_takes_another_dtype_is_read_before_its_memory_goes() -> None:
    """The stream that changes dtypes is behind, and the next weights come meanwhile."""
    network = nn.Sequential(*(nn.Linear(WIDE, WIDE, bias=False, device="meta") for _ in range(6)))
    placed = PlacedNetwork(network, [], cuda(), lambda name: torch.bfloat16)
    assert placed._copies is not None
    with torch.cuda.stream(torch.cuda.Stream(cuda())):
        for number in range(6):
            with torch.cuda.stream(placed._copies):
                torch.cuda._sleep(50_000_000)
            placed.place(f"{number}.weight", torch.full((WIDE, WIDE), float(number), device=cuda()))
    placed.wait_for_rest()
    for number, layer in enumerate(network):
        assert isinstance(layer, nn.Linear)
        assert layer.weight.dtype == torch.bfloat16
        assert layer.weight.eq(number).all(), number
    placed.close()
