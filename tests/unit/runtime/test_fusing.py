"""When the fused kernels are put in force: where they were asked for, run, and are right."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from torch import Tensor

from joyedit.errors import DeviceError
from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.vae import VAE, ResidualBlock
from joyedit.runtime import fusing
from joyedit.runtime.fusing import fault, fuse

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
CFG = DiTConfig(hidden_size=64, num_heads=2, num_layers=2, text_dim=16, rope_dims=(8, 12, 12), mlp_ratio=2)
NETWORKS = (DiT(CFG), VAE(VAEConfig(base_dim=8, decoder_base_dim=8, num_res_blocks=1)))


def in_force() -> bool:
    dit, vae = NETWORKS
    blocks = [module for module in vae.modules() if isinstance(module, ResidualBlock)]
    assert len({block.kernels for block in blocks} | {None}) <= 2
    assert (dit._fused is not None) == (blocks[0].kernels is not None)
    return dit._fused is not None


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
    monkeypatch.setattr(fusing, "fault", lambda *_: "they are wrong here")
    found = fuse("auto", *NETWORKS, CUDA, torch.bfloat16)
    assert (found.on, found.note) == (False, "no fused kernels: they are wrong here")
    assert not in_force()
    with pytest.raises(DeviceError, match="--fused on: they are wrong here"):
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
        pytest.importorskip("triton", reason="Triton is not installed")
        if torch.cuda.is_available():
            pytest.skip("tests/gpu runs the kernels themselves")
        monkeypatch.setattr(fusing, "GRIDS", ((1, 2), (2, 3)))
        monkeypatch.setattr("joyedit.models.fused_blocks.LARGE", 10)
        torch.manual_seed(0)

    def test_right_kernels_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        dit, vae = fusing._dit_error, fusing._vae_error
        monkeypatch.setattr(fusing, "_dit_error", lambda cfg, _, dtype: dit(cfg, CPU, dtype))
        monkeypatch.setattr(fusing, "_vae_error", lambda _, dtype: vae(CPU, dtype))
        assert fault(CFG, CUDA, torch.float32) == ""
        assert fuse("auto", *NETWORKS, CUDA, torch.float32).on
        assert in_force()

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    @pytest.mark.parametrize("wrong", [1.1, float("nan")])
    @pytest.mark.parametrize("name", ["norm_modulate", "join_heads", "norm_silu", "double"])
    def test_a_wrong_kernel_is_found(self, name: str, wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
        from joyedit.models import triton_kernels

        right = getattr(triton_kernels, name)

        def faulty(*args: Any, **words: Any) -> Tensor:
            out: Tensor = right(*args, **words)
            out.flatten()[0].mul_(wrong)
            return out * (1 + (wrong - 1) * (torch.arange(out.numel()) % 3 == 0).view(out.shape))

        monkeypatch.setattr(triton_kernels, name, faulty)
        error = (
            fusing._vae_error(CPU, torch.float32)
            if name in ("norm_silu", "double")
            else fusing._dit_error(CFG, CPU, torch.float32)
        )
        assert not error <= fusing.TOLERANCE[torch.float32]

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
