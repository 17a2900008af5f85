"""What only a CUDA device shows of layers of 8 bits: products on tensor cores, compiled kernels, streams, company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from joyedit.errors import DeviceError
from joyedit.models.attention import TextLengths
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.models.quantised import product
from joyedit.models.quantised_rows import FP8, INT8, Quantised, quantise, quantised_weight
from joyedit.runtime.tuning.fused_check import fault
from joyedit.runtime.tuning.precision import check_precision
from joyedit.weights.defaults import nano_folder
from joyedit.weights.lora_file import layer_shapes
from support import editing
from support.cuda import cuda, quantised_dit
from support.editing import Edit, picture
from support.loras import lora_of, matrices, named, write

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]
DTYPES = {"fp8": FP8, "int8": INT8}


@pytest.fixture(params=["fp8", "int8"])
def precision(request: pytest.FixtureRequest) -> Any:
    """Each precision that this GPU has."""
    try:
        check_precision(request.param, cuda())
    except DeviceError as error:
        pytest.skip(str(error))
    return request.param


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("rows", [1, 16, 17, 77, 1060])
def test_products_are_those_of_the_values(precision: Any, rows: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(rows, 512, device=cuda()), torch.randn(768, 512, device=cuda())
    bias = torch.randn(768, device=cuda()).bfloat16()
    a, b = quantise(x, DTYPES[precision]), quantised_weight(weight, DTYPES[precision])
    expected = F.linear(a.wide(), b.wide(), bias.float())
    assert apart(product(a, b, bias, torch.bfloat16, None), expected) < 0.01
    assert apart(product(a, b, None, torch.bfloat16, None), expected - bias.float()) < 0.01
    out = torch.zeros(rows + 2, 768, device=cuda(), dtype=torch.bfloat16)
    product(a, b, bias, torch.bfloat16, out[1:-1])
    assert apart(out[1:-1], expected) < 0.01
    assert out[[0, -1]].eq(0).all()


@pytest.mark.parametrize("columns", [512, 4096, 16384])
def test_kernels_quantise_as_plain_torch(precision: Any, columns: int) -> None:
    from joyedit.models.quantising_kernels import quantise_rows

    torch.manual_seed(0)
    x = (3 * torch.randn(40, columns, device=cuda())).bfloat16()
    x[5] = 0
    for found, expected in (
        (quantise_rows(x, DTYPES[precision]), quantise(x, DTYPES[precision])),
        (
            quantise_rows(x, DTYPES[precision], gelu=True),
            quantise(F.gelu(x.float(), approximate="tanh"), DTYPES[precision]),
        ),
    ):
        torch.testing.assert_close(found.scales, expected.scales, rtol=1e-5, atol=0)
        assert (found.values.float() != expected.values.float()).float().mean() < 0.01
        assert found.wide()[5].eq(0).all()
    x[3, 1], x[4, 1] = float("nan"), float("inf")
    wide: Quantised = quantise_rows(x, DTYPES[precision])
    assert wide.wide()[[3, 4]].isnan().all()
    assert wide.wide()[5:].isfinite().all()


@torch.inference_mode()
def velocity(dit: DiT, lengths: list[int], side: int = 64, number: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    items = [torch.randn(len(lengths), 16, side, side, generator=generator).to(cuda()) for _ in range(2)]
    texts = [torch.randn(length, 64, generator=generator).to(cuda()) for length in lengths]
    if number is not None:
        items, texts = [item[number : number + 1] for item in items], texts[number : number + 1]
    txt = torch.cat([dit.embed_text(text) for text in texts])
    timestep = torch.full((1,), 500.0, device=cuda())
    return dit(items, timestep, txt, TextLengths.of([len(text) for text in texts]))


def test_fused_kernels_are_trusted(precision: Any) -> None:
    assert fault(DiTConfig(), cuda(), torch.bfloat16, precision) == ""


@pytest.mark.parametrize("side", [16, 64, 128], ids=["small", "in place", "one by one"])
def test_fused_blocks_are_the_plain_ones(precision: Any, side: int) -> None:
    dit, exact = quantised_dit(precision), velocity(quantised_dit("exact"), [33, 60], side)
    plain = velocity(dit, [33, 60], side)
    dit.fuse_blocks()
    fused = velocity(dit, [33, 60], side)
    print(f"{precision}: plain {apart(plain, exact):.4f}, fused {apart(fused, exact):.4f} from exact")
    assert apart(fused, plain) < 0.1
    assert 1e-4 < apart(fused, exact) < 0.08


def test_a_sample_is_the_same_alone_and_in_company(precision: Any) -> None:
    """Bit for bit, where each sample is computed by itself: from 4096 image tokens on."""
    dit = quantised_dit(precision)
    dit.fuse_blocks()
    together = velocity(dit, [33, 60], 128)
    for number in range(2):
        assert velocity(dit, [33, 60], 128, number).equal(together[number : number + 1])


@pytest.mark.parametrize("files", ["fp32", "bf16"])
@pytest.mark.parametrize("fused", ["auto", "off"])
def test_weights_lie_where_they_may(
    precision: Any, fused: Any, files: str, diffusers_checkpoint: Path, tmp_path: Path
) -> None:
    """Resident or passing, LoRAs merged for the run or for a batch: the same latents, bit for bit.

    Files of bf16, as nano's are, are read by their place where they stay of bf16.
    """
    folder = nano_folder() if files == "bf16" else diffusers_checkpoint
    options: dict[str, Any] = {"device": "cuda", "precision": precision, "fused": fused, "attention": "sdpa"}
    exact = editing.backend(folder, device="cuda")
    lora = lora_of(write(tmp_path / "a.safetensors", named(matrices(layer_shapes(exact.dit)))))

    def latents(model: Any, *loras: Any) -> Tensor:
        edit = Edit(text="Make it red.", images=[picture(256, 256)], loras=loras, steps=2)
        made: Tensor = model.denoise(model.encode(editing.batch_of([edit])), lambda done, total: None)
        return made.cpu()  # behind all that reads the weights, which go with their model

    found = latents(editing.backend(folder, **options))
    assert apart(found, latents(exact)) < 0.2  # nano in fp8, emulated on a CPU: 0.143
    assert latents(editing.backend(folder, offload="blocks", **options)).equal(found)
    merged = latents(editing.backend(folder, merged_loras=(lora,), **options), lora)
    for offload in ("none", "blocks"):
        beside = editing.backend(folder, lora_sets=((lora,), ()), offload=offload, **options)
        assert latents(beside, lora).equal(merged)
        assert latents(beside).equal(found)
