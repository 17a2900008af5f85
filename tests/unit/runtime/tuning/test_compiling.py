"""When compiling repays, what it costs, and that a machine without a compiler edits all the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from joyedit.job.run_config import RunConfig
from joyedit.models.compiled_blocks import compiled_forward
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.runtime.tuning import compile as compiling
from joyedit.runtime.tuning.compile import compile_dit, keep_compiled_code, worth_compiling

# Torch's compiler warns of its own parts.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No compiled parts of another test, least of all broken ones."""
    compiled_forward.cache_clear()
    yield
    compiled_forward.cache_clear()


def config(compile_: str = "auto", expected_steps: float | None = None) -> RunConfig:
    return RunConfig(output=Path(), compile=compile_, expected_steps=expected_steps)  # type: ignore[arg-type]


def tiny(layers: int = 2) -> DiT:
    torch.manual_seed(0)
    dit = DiT(
        DiTConfig(hidden_size=64, num_heads=2, num_layers=layers, text_dim=16, rope_dims=(4, 14, 14), mlp_ratio=2)
    )
    return dit.eval().requires_grad_(False)


def test_auto_compiles_on_cuda_where_the_steps_repay_it() -> None:
    enough = compiling.COMPILE_SECONDS / compiling.SAVED_SECONDS
    assert worth_compiling(config(expected_steps=enough * 1.01), CUDA)
    assert not worth_compiling(config(expected_steps=enough), CUDA)
    assert not worth_compiling(config(expected_steps=enough * 1.01), CUDA, fused=True)
    assert not worth_compiling(config(expected_steps=None), CUDA)
    assert not worth_compiling(config(expected_steps=float("inf")), CPU)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_on_and_off_are_obeyed(device: torch.device) -> None:
    assert worth_compiling(config("on"), device)
    assert worth_compiling(config("on"), device, fused=True)
    assert not worth_compiling(config("off", float("inf")), device)


@pytest.mark.parametrize(
    "error", [RuntimeError("\nno compiler\nsecond line"), ImportError("no compiler"), OSError("no compiler")]
)
def test_without_a_compiler_the_blocks_run_as_they_are(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            raise error

        return call

    monkeypatch.setattr(torch, "compile", broken)
    dit = tiny()
    found = compile_dit(dit, CPU)
    assert not found.on
    assert found.note == "not compiled: the compiler does not work here (no compiler)"
    compiling._forward(dit, CPU)  # it runs, without a compiler


def test_memory_that_runs_out_is_no_fault_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> float:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(compiling, "_forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        compile_dit(tiny(), CPU)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler here")
def test_the_time_is_told_and_a_second_compilation_is_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    monkeypatch.setenv(compiling.INDUCTOR_CACHE, str(tmp_path))
    found = []
    for _ in range(2):
        torch._dynamo.reset()
        counters.clear()
        result = compile_dit(tiny(layers=1), CPU)  # its one block is the trimmed one: half as much to compile
        assert result.on
        assert result.seconds > 0
        found.append(counters["inductor"]["fxgraph_cache_miss"])
    assert found[0] > 0
    assert found[1] == 0


def test_the_caches_are_joyedits_unless_the_user_has_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"JOYEDIT_CACHE": str(tmp_path)}
    always = {compiling.TRITON_CACHE: "triton", compiling.FA4_CACHE: "fa4"}

    def kept(compile_: str, environment: dict[str, str]) -> dict[str, str]:
        monkeypatch.setattr(os, "environ", found := dict(environment))
        keep_compiled_code(config(compile_))
        return {name: value for name, value in found.items() if name != "JOYEDIT_CACHE"}

    folders = {name: str(tmp_path / folder) for name, folder in always.items()} | {compiling.FA4_CACHE_ENABLED: "1"}
    assert kept("off", own) == folders
    assert kept("auto", own) == folders | {compiling.INDUCTOR_CACHE: str(tmp_path / "inductor")}
    mine = dict.fromkeys([*folders, compiling.INDUCTOR_CACHE], "mine")
    assert kept("on", own | mine) == mine
