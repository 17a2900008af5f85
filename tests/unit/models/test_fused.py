"""The Triton kernels, run on the CPU by Triton's own interpreter, against the plain networks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from joyedit.models import fused_blocks, triton_kernels
from joyedit.models.attention import TextLengths, join
from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.rope import apply_rope, rope_table
from joyedit.models.vae import VAE, ChannelNorm
from support.figures import EXHAUSTIVE

pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="without Triton's interpreter"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

EPS = 1e-6
DTYPES = [torch.float32, torch.bfloat16]
CFG = DiTConfig(hidden_size=96, num_heads=3, num_layers=3, text_dim=16, rope_dims=(8, 12, 12), mlp_ratio=2)

# Each number of references, of texts and each way to join the streams is met; `make soak` combines them all.
SHAPES = [
    (references, lengths, large)
    for references in (0, 1, 2)
    for lengths in ([5], [4, 9])
    for large in (1, 2048)
    if EXHAUSTIVE or (references, len(lengths), large) in ((0, 1, 1), (1, 2, 2048), (2, 2, 1))
]


def close(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """To rounding: of fp32 sums, or of two bf16 values next to each other."""
    assert got.dtype == dtype
    assert got.shape == expected.shape
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2**-6, "atol": 2**-6}
    torch.testing.assert_close(got.float(), expected.float(), **tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [64, 96])
def test_residual_norm_modulate(columns: int, dtype: torch.dtype) -> None:
    """With one update and with two, of samples of which only the first tokens count."""
    torch.manual_seed(0)
    x, attended, mlp = (torch.randn(2, n, columns).to(dtype) for n in (9, 5, 5))
    gate, other, shift, scale = (torch.randn(columns).to(dtype) for _ in range(4))

    def normed(total: Tensor) -> Tensor:
        return F.layer_norm(total, (columns,), scale.float(), shift.float(), EPS)

    one = torch.addcmul(x[:, :5].float(), gate.float(), attended.float())
    both = torch.addcmul(one, other.float(), mlp.float())
    for updates, expected in (([(attended, gate)], one), ([(attended, gate), (mlp, other)], both)):
        total, out = triton_kernels.residual_norm_modulate(x[:, :5], updates, shift, scale, EPS)
        close(total, expected, dtype)
        close(out, normed(expected), dtype)
        close(triton_kernels.norm_modulate(x[:, :5], updates, shift, scale, EPS), normed(expected), dtype)
    close(triton_kernels.norm_modulate(x[1], (), shift, scale, EPS), normed(x[1].float()), dtype)


def test_a_stream_is_rounded_once() -> None:
    """In bf16, 256 has neighbours 2 apart: 256 + 1.25 + 1.25 is 258, and 256 or 260 where it is rounded between."""
    x, update = torch.full((1, 64), 256.0).bfloat16(), torch.full((1, 64), 1.25).bfloat16()
    one, zero = torch.ones(64).bfloat16(), torch.zeros(64).bfloat16()
    total, _ = triton_kernels.residual_norm_modulate(x, [(update, one), (update, one)], zero, one, EPS)
    assert total.unique().tolist() == [258.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_join_heads(dtype: torch.dtype) -> None:
    """Columns of a wider product, three heads (no power of two), a text without tokens."""
    torch.manual_seed(1)
    heads, dim, lengths = 3, 32, [4, 0, 7]
    img, txt = torch.randn(3, 12, 3 * heads * dim).to(dtype), torch.randn(11, 3 * heads * dim).to(dtype)
    cos, sin = rope_table([(2, 3), (3, 2)], (8, 12, 12), 10000.0)
    img_weight, txt_weight = (torch.randn(dim).to(dtype) for _ in range(2))
    rows = triton_kernels.sources(12, lengths, img.device)
    for part, (i, t) in enumerate(zip(img.chunk(3, -1), txt.chunk(3, -1), strict=True)):
        img_heads, txt_heads = i.unflatten(-1, (heads, dim)), t.unflatten(-1, (heads, dim))
        if part == 2:
            close(triton_kernels.join_heads(i, t, rows, heads), join(img_heads, txt_heads, lengths), dtype)
            continue
        turned = apply_rope(F.rms_norm(img_heads.float(), (dim,), img_weight.float(), EPS), cos, sin)
        normed = F.rms_norm(txt_heads.float(), (dim,), txt_weight.float(), EPS)
        got = triton_kernels.join_heads(i, t, rows, heads, (img_weight, txt_weight, cos, sin), EPS)
        close(got, join(turned, normed, lengths), dtype)


def dits(layers: int = CFG.num_layers) -> tuple[DiT, DiT]:
    torch.manual_seed(2)
    cfg = replace(CFG, num_layers=layers)
    plain, fused = (DiT(cfg).eval().requires_grad_(False) for _ in range(2))
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    fused.load_state_dict(plain.state_dict())
    fused.fuse_blocks()
    return plain, fused


@pytest.mark.parametrize(("references", "lengths", "large"), SHAPES)
def test_the_dit(references: int, lengths: list[int], large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_blocks, "LARGE", large)
    plain, fused = dits()
    items = [torch.randn(len(lengths), 16, *size) for size in ((2, 6), (4, 2), (2, 4))[: references + 1]]
    txt = torch.randn(sum(lengths), CFG.hidden_size)
    given = txt.clone()
    with torch.inference_mode():
        mods = plain.modulations(torch.tensor([500.0]))
        expected = plain.predict(items, mods, txt, TextLengths.of(lengths))
        got = fused.predict(items, mods, txt, TextLengths.of(lengths))
        again = fused.predict(items, mods, txt, TextLengths.of(lengths))
    assert (got - expected).abs().max() <= 2e-5 * expected.abs().max()
    assert torch.equal(got, again)
    assert torch.equal(txt, given), "the text is read again at the next step"


def test_a_sample_that_fills_a_gpu_is_the_same_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each product has one sample's rows, as when it is alone: another number of rows may be another kernel."""
    monkeypatch.setattr(fused_blocks, "LARGE", 1)
    monkeypatch.setattr(fused_blocks, "FILLING", 1)
    _, fused = dits()
    lengths = [4, 9, 1]
    items = [torch.randn(3, 16, *size) for size in ((2, 6), (4, 2))]
    txt = torch.randn(sum(lengths), CFG.hidden_size)
    rows: list[int] = []
    for layer in (fused.img_in, fused.proj_out, *(block.img_mlp.net[2] for block in fused.blocks())):
        layer.register_forward_hook(lambda module, given, out: rows.append(given[0][..., 0].numel()))
    with torch.inference_mode():
        mods = fused.modulations(torch.tensor([500.0]))
        together = fused.predict(items, mods, txt, TextLengths.of(lengths))
        seen = set(rows)
        for sample, part in enumerate(txt.split(lengths)):
            alone = [item[sample : sample + 1] for item in items]
            got = fused.predict(alone, mods, part, TextLengths.of([len(part)]))
            assert torch.equal(got[0], together[sample])
    assert seen == {3, 5}  # target and reference of one sample, and the target alone


@pytest.mark.parametrize("layers", [1, 3])
def test_samples_with_the_same_image_share_its_first_products(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both branches of an item begin with the same image tokens. Their numbers are those without sharing."""
    monkeypatch.setattr(fused_blocks, "LARGE", 1)
    monkeypatch.setattr(fused_blocks, "FILLING", 1)
    monkeypatch.setattr(fused_blocks, "_linear_into", counted(rows := [], fused_blocks._linear_into))
    _, fused = dits(layers)
    images, lengths = [0, 1, 0, 1, 0], [4, 9, 1, 5, 9]
    few = [torch.randn(2, 16, *size) for size in ((2, 6), (4, 2))]
    txt = torch.randn(sum(lengths), CFG.hidden_size)
    with torch.inference_mode():
        mods = fused.modulations(torch.tensor([500.0]))
        expected = fused.predict([item[images] for item in few], mods, txt, TextLengths.of(lengths))
        plain = sorted(rows)
        rows.clear()
        found = fused.predict(few, mods, txt, TextLengths.of(lengths), images=images)
    assert torch.equal(found, expected)
    if layers > 1:  # the last block does not join in place, as only its target asks
        for _ in range(3):
            plain.remove(5)
    assert sorted(rows) == plain


def counted(rows: list[int], linear_into: Callable[..., None]) -> Callable[..., None]:
    """`linear_into`, which counts the rows of each product."""

    def call(linear: Any, x: Tensor, out: Tensor) -> None:
        rows.append(len(x))
        linear_into(linear, x, out)

    return call


def test_several_timesteps_run_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = dits()

    def never(*_: object) -> Tensor:
        raise AssertionError("not for this")

    monkeypatch.setattr(fused_blocks, "FusedBlocks", never)
    items, txt, text = [torch.randn(2, 16, 4, 4)], torch.randn(7, CFG.hidden_size), TextLengths.of([3, 4])
    with torch.inference_mode():
        times = torch.tensor([500.0, 20.0])  # a timestep a sample
        assert torch.equal(fused(items, times, txt, text), plain(items, times, txt, text))
        with pytest.raises(AssertionError, match="not for this"):
            fused(items, times[:1], txt, text)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [24, 64])
def test_norm_silu_and_biased_sum(channels: int, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    x, residual = (torch.randn(2, channels, 5, 7).to(dtype).to(memory_format=torch.channels_last) for _ in range(2))
    bias = torch.randn(channels).to(dtype)
    norm = ChannelNorm(channels)
    torch.nn.init.normal_(norm.gamma)
    norm = norm.to(dtype).requires_grad_(False)
    gamma = norm.gamma.flatten()
    x[0, :, 2, 3] = 0.0  # nothing is divided by zero
    wide = x.float() + bias.float().view(1, -1, 1, 1)
    with torch.inference_mode():
        plain = F.silu(norm.float()(x.float()))
        biased = F.silu(norm(wide))
    close(triton_kernels.norm_silu(x, gamma, 1e-24), plain, dtype)
    close(triton_kernels.norm_silu(x, gamma, 1e-24, bias), biased, dtype)
    close(triton_kernels.biased_sum(x, bias, residual), wide + residual.float(), dtype)
    with pytest.raises(ValueError, match="next to each other"):
        triton_kernels.norm_silu(x.contiguous(), gamma, 1e-24)


@pytest.mark.parametrize("dtype", DTYPES)
def test_double(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    x = torch.randn(2, 24, 3, 5).to(dtype).to(memory_format=torch.channels_last)
    out = triton_kernels.double(x)
    assert torch.equal(out, F.interpolate(x, scale_factor=2, mode="nearest"))
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_heads_in_place(dtype: torch.dtype) -> None:
    """The same as joining with a norm, where the rows are joined already; values stay."""
    torch.manual_seed(6)
    heads, dim, lengths = 3, 32, [4, 0, 7]
    rows = triton_kernels.sources(12, lengths, torch.device("cpu"))
    qkv = torch.randn(len(rows), 3, heads, dim).to(dtype)
    table = rope_table([(2, 3), (3, 2)], (8, 12, 12), 10000.0)
    weights = [torch.randn(dim).to(dtype) for _ in range(4)]
    apart = qkv[rows >= 0].unflatten(0, (3, 12)).flatten(3), qkv[rows < 0].flatten(2)
    expected = [
        triton_kernels.join_heads(apart[0][:, :, n], apart[1][:, n], rows, heads, (i, t, *table), EPS)
        for n, (i, t) in enumerate(zip(weights[:2], weights[2:], strict=True))
    ]
    given = qkv.clone()
    triton_kernels.norm_heads_(qkv, rows, 12, weights, table, EPS)
    assert torch.equal(qkv[:, 0], expected[0])
    assert torch.equal(qkv[:, 1], expected[1])
    assert torch.equal(qkv[:, 2], given[:, 2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_attention(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in several goes, columns that are no power of two."""
    monkeypatch.setattr(triton_kernels, "WIDE_SCORES", 8 * 21)
    torch.manual_seed(7)
    q, k, v = torch.randn(2, 21, 3 * 40).to(dtype).chunk(3, -1)
    expected = F.scaled_dot_product_attention(*(x.float() for x in (q, k, v)))
    close(triton_kernels.wide_attention(q, k, v), expected, dtype)


def test_the_vae() -> None:
    torch.manual_seed(4)
    vae = VAE(VAEConfig(base_dim=8, decoder_base_dim=68, num_res_blocks=1)).eval().requires_grad_(False)
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = (torch.rand(1, 3, 16, 24) * 2 - 1).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        latent = vae.encode(pixels)
        picture = vae.decode(latent)
        vae.fuse()
        fused = vae.encode(pixels), vae.decode(latent)
        vae.plain()
        torch.testing.assert_close(vae.decode(latent), picture, rtol=0, atol=0)
    torch.testing.assert_close(fused[0], latent, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fused[1], picture, rtol=1e-4, atol=1e-4)
    assert not torch.equal(fused[1], picture), "rounded elsewhere: the kernels did run"
