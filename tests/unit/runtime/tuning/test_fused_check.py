"""When the fused kernels are put in force: where they were asked for, run, and are right."""

from __future__ import annotations

import builtins
import os
from typing import Any

import pytest
import torch
from torch import Tensor

from joyedit.errors import DeviceError
from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.strategies import InPlaceBlocks
from joyedit.models.vae import VAE, ResidualBlock
from joyedit.runtime.tuning import fused_check as fusing
from joyedit.runtime.tuning.fused_check import fault, fuse
from support.figures import EXHAUSTIVE

try:
    from joyedit.models import triton_kernels
except ImportError:
    INTERPRETED = False
else:
    INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
CFG = DiTConfig(hidden_size=64, num_heads=2, num_layers=2, text_dim=16, rope_dims=(8, 12, 12), mlp_ratio=2)
NETWORKS = (DiT(CFG), VAE(VAEConfig(base_dim=8, decoder_base_dim=8, num_res_blocks=1)))

KERNELS = (
    "norm_modulate", "residual_norm_modulate", "join_heads",
    "norm_silu", "biased_sum", "double", "wide_attention",
)  # fmt: skip


def in_force() -> bool:
    dit, vae = NETWORKS
    blocks = [module for module in vae.modules() if isinstance(module, ResidualBlock)]
    assert len({block.kernels for block in blocks} | {None}) <= 2
    fused = dit.strategy is not InPlaceBlocks
    assert fused == (blocks[0].kernels is not None)
    return fused


@pytest.fixture(autouse=True)
def _plain() -> None:
    NETWORKS[0].plain_blocks()
    NETWORKS[1].plain()


def test_the_cpu_runs_the_plain_networks() -> None:
    for wish in ("auto", "off"):
        assert fuse(wish, *NETWORKS, CPU, torch.float32) == fusing.Fusion(on=False)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="--fused on: they need a CUDA device; use --fused auto or off"):
        fuse("on", *NETWORKS, CPU, torch.float32)
    assert not in_force()


def test_a_fault_is_told_and_nothing_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "fault", lambda *_: "the results differ")
    found = fuse("auto", *NETWORKS, CUDA, torch.bfloat16)
    assert (found.on, found.note) == (False, "no fused kernels: the results differ")
    assert not in_force()
    with pytest.raises(DeviceError, match="--fused on: the results differ"):
        fuse("on", *NETWORKS, CUDA, torch.bfloat16)
    assert fuse("off", *NETWORKS, CUDA, torch.bfloat16) == fusing.Fusion(on=False)


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "triton":
            raise ImportError("No module named 'triton'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert fault(CFG, CUDA, torch.bfloat16) == "Triton is not installed (No module named 'triton')"


class TestWithTritonsInterpreter:
    """The check itself, on the CPU."""

    @pytest.fixture(autouse=True)
    def _triton(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if not INTERPRETED:
            pytest.skip("without Triton's interpreter")
        monkeypatch.setattr(fusing, "GRIDS", ((1, 2), (2, 3)))
        if not EXHAUSTIVE:
            monkeypatch.setattr(fusing, "LATENT", (2, 3))
        monkeypatch.setattr("joyedit.models.fused_blocks.LARGE", 10)
        torch.manual_seed(0)

    def test_right_kernels_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        dit, vae = fusing._dit_error, fusing._vae_error
        monkeypatch.setattr(fusing, "_dit_error", lambda cfg, _, dtype: dit(cfg, CPU, dtype))
        monkeypatch.setattr(fusing, "_vae_error", lambda _, dtype: vae(CPU, dtype))
        assert fuse("auto", *NETWORKS, CUDA, torch.float32) == fusing.Fusion(on=True)
        assert in_force()

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            (name, wrong)
            for name in KERNELS
            for wrong in (1.1, float("nan"))
            if EXHAUSTIVE or wrong == 1.1 or name in ("norm_modulate", "norm_silu")  # NaN once in each network
        ],
    )
    def test_a_wrong_result_is_found(self, name: str, wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
        """A third of the values is off."""
        right = getattr(triton_kernels, name)

        def off(out: Tensor) -> Tensor:
            return out * (1 + (wrong - 1) * (torch.arange(out.numel()) % 3 == 0).view(out.shape))

        def faulty(*args: Any) -> Any:
            out = right(*args)
            return tuple(map(off, out)) if isinstance(out, tuple) else off(out)

        monkeypatch.setattr(triton_kernels, name, faulty)
        assert not self.error_of(name) <= fusing.TOLERANCE[torch.float32]

    def error_of(self, name: str) -> Tensor:
        if name in ("norm_silu", "biased_sum", "double", "wide_attention"):
            return fusing._vae_error(CPU, torch.float32)
        if not EXHAUSTIVE:
            fusing.GRIDS = ((1, 2),)  # restored by the fixture: so small that samples are joined by the kernel
        return fusing._dit_error(CFG, CPU, torch.float32)

    @pytest.mark.parametrize(
        ("way", "fault"),
        [
            (way, fault)
            for way in ("join_heads", "norm_heads_")
            for fault in ("not rotated", "rotated backwards", "text's weights for the image")
            if EXHAUSTIVE or (way == "join_heads") == (fault != "rotated backwards")  # each way and each fault
        ],
    )
    def test_a_wrong_query_or_key_is_found(self, way: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even by the tolerance of bf16."""
        grid, large = ((2, 3), 10**6) if way == "join_heads" else ((2, 3), 10)
        monkeypatch.setattr(fusing, "GRIDS", (grid,))
        monkeypatch.setattr("joyedit.models.fused_blocks.LARGE", large)
        right = getattr(triton_kernels, way)

        def table(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
            if fault == "not rotated":
                return torch.ones_like(cos), torch.zeros_like(sin)
            return (cos, -sin) if fault == "rotated backwards" else (cos, sin)

        def weights(img: list[Tensor], txt: list[Tensor]) -> list[Tensor]:
            return [*(txt if fault.startswith("text") else img), *txt]

        def join(img: Tensor, txt: Tensor, rows: Tensor, heads: int, norm: Any, eps: float) -> Tensor:
            if norm is not None:
                norm = (*weights([norm[0]], [norm[1]]), *table(*norm[2:]))
            return right(img, txt, rows, heads, norm, eps)  # type: ignore[no-any-return]

        def in_place(qkv: Tensor, rows: Tensor, tokens: int, given: Any, pe: Any, eps: float) -> None:
            right(qkv, rows, tokens, weights(given[:2], given[2:]), table(*pe), eps)

        monkeypatch.setattr(triton_kernels, way, join if way == "join_heads" else in_place)
        assert fusing._dit_error(CFG, CPU, torch.float32) > fusing.TOLERANCE[torch.bfloat16]

    def test_an_even_softmax_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(triton_kernels, "_attention_weights", lambda q, k: torch.full((len(q), len(k)), 1 / len(k)))
        assert fusing._vae_error(CPU, torch.float32) > fusing.TOLERANCE[torch.bfloat16]

    @pytest.mark.parametrize("error", [RuntimeError("no C compiler\nmore"), OSError("no C compiler")])
    def test_kernels_that_do_not_run(self, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> Tensor:
            raise error

        monkeypatch.setattr(fusing, "_dit_error", broken)
        assert fault(CFG, CUDA, torch.bfloat16) == "they do not run here (no C compiler)"

    def test_memory_that_runs_out_is_no_fault_of_the_kernels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> Tensor:
            raise torch.OutOfMemoryError("no room")

        monkeypatch.setattr(fusing, "_dit_error", full)
        with pytest.raises(torch.OutOfMemoryError):
            fault(CFG, CUDA, torch.bfloat16)
