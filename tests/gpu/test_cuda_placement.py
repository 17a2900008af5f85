"""What only a CUDA device shows of weights that are placed: memory that another stream still reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from joyedit.runtime.placement.placed_network import PlacedNetwork
from support import editing
from support.cuda import cuda
from support.editing import Edit, picture

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


def test_an_edit_in_another_stream_waits_for_its_weights(diffusers_checkpoint: Path) -> None:
    """The copies of passing blocks are behind, and the caller has a stream of its own."""
    options: dict[str, Any] = {"device": "cuda", "attention": "sdpa", "fused": "off", "compile": "off"}
    model = editing.backend(diffusers_checkpoint, offload="blocks", **options)
    edit = Edit(text="Make it red.", images=[picture(256, 256)], steps=2)
    encoded = model.encode(editing.batch_of([edit]))
    expected = model.denoise(encoded, lambda done, total: None).cpu()
    assert model._placed.dit is not None
    (blocks,) = model._placed.dit.groups
    model.synchronize()
    for slot in blocks.stream._slots:  # weights that are read too early are other ones
        slot.buffer.zero_()
    blocks.stream.release()
    with torch.cuda.stream(torch.cuda.Stream(cuda())):
        with torch.cuda.stream(blocks.stream._copies):
            torch.cuda._sleep(200_000_000)
        found = model.denoise(encoded, lambda done, total: None)
    model.synchronize()
    assert found.cpu().equal(expected)
    model.close()
