"""The choice of an attention kernel: checked before it is trusted, measured once, remembered, refused with reason."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from joyedit.errors import DeviceError
from joyedit.models.attention import BACKENDS, Spans, sdpa_attention, varlen_kernel
from joyedit.runtime.tuning import attention_choice as kernels
from joyedit.runtime.tuning.attention_choice import AttentionChoice, check, choose_attention, measure
from joyedit.runtime.tuning.measurements import cache_folder

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SHAPE = (2, 32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("JOYEDIT_CACHE", str(tmp_path / "cache"))
    varlen_kernel.cache_clear()
    yield
    varlen_kernel.cache_clear()


def fp32(wish: str, device: torch.device = CPU) -> AttentionChoice:
    return choose_attention(wish, device, torch.float32, *SHAPE)  # type: ignore[arg-type]


def test_the_cpu_takes_sdpa_and_measures_nothing() -> None:
    assert fp32("auto") == AttentionChoice(name="sdpa", rates={}, faults={})
    assert fp32("auto").note == ""
    assert not cache_folder().exists()


@pytest.mark.parametrize("wish", ["fa4", "fa3", "fa2", "varlen", "flash"])
def test_a_wish_that_needs_cuda_is_refused_on_the_cpu(wish: str) -> None:
    with pytest.raises(DeviceError, match=rf"--attention {wish}: .*it needs bf16 on a CUDA device; use --attention"):
        fp32(wish)


def test_a_kernel_that_torch_does_not_have_here_is_refused() -> None:
    with pytest.raises(DeviceError, match="--attention cudnn: it does not run here"):
        fp32("cudnn")


def test_torchs_kernels_are_checked_against_fp32() -> None:
    assert check("sdpa", CPU, torch.float32, *SHAPE) == ""
    assert check("sdpa", CPU, torch.bfloat16, *SHAPE) == ""


@pytest.mark.parametrize(
    ("factor", "message"), [(1.1, "its result differs from fp32 by"), (float("nan"), "from fp32 by nan")]
)
def test_a_kernel_that_is_wrong_is_not_trusted(factor: float, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Tensor]:
        return [out * factor for out in sdpa_attention(query, key, value, spans)]

    monkeypatch.setitem(BACKENDS, "wrong", wrong)
    assert message in check("wrong", CPU, torch.float32, *SHAPE)
    choice = measure(["wrong", "sdpa"], CPU, torch.float32, *SHAPE, lengths=(40, 33))
    assert choice.name == "sdpa"
    assert list(choice.faults) == ["wrong"]
    with pytest.raises(DeviceError, match="no attention kernel works: wrong: its result differs"):
        measure(["wrong"], CPU, torch.float32, *SHAPE, lengths=(40, 33))


@pytest.mark.parametrize("first", [True, False], ids=["one sample", "where fewer ask"])
def test_a_nan_in_one_place_is_not_passed_over(first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def partly(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Tensor]:
        outs = sdpa_attention(query, key, value, spans)
        if first or spans.queries != spans.keys:
            outs[0] = outs[0] * float("nan")
        return outs

    monkeypatch.setitem(BACKENDS, "partly", partly)
    assert "from fp32 by nan" in check("partly", CPU, torch.float32, *SHAPE)


def test_a_kernel_that_fails_at_full_length_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Tensor]:
        if len(key) > 400:
            raise RuntimeError("too long\nfor this kernel")
        return sdpa_attention(query, key, value, spans)

    monkeypatch.setitem(BACKENDS, "short", short)
    choice = measure(["short", "sdpa"], CPU, torch.float32, *SHAPE, lengths=(300, 201))
    assert choice.name == "sdpa"
    assert choice.faults == {"short": "it does not run at full length (too long)"}


def test_the_fastest_is_taken_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A device")
    calls: list[tuple[str, ...]] = []

    def measured(names: tuple[str, ...], *_: object) -> AttentionChoice:
        calls.append(names)
        rates = {"cudnn": 612.0, "sdpa": 365.5}
        return AttentionChoice(name="cudnn", rates=rates, faults={"fa3": "not installed"})

    monkeypatch.setattr(kernels, "measure", measured)
    first = choose_attention("auto", CUDA, torch.bfloat16, 32, 128)
    again = choose_attention("auto", CUDA, torch.bfloat16, 32, 128)
    assert first.note == "attention: cudnn 612 TFLOP/s (sdpa 366), measured now"
    assert again.note == "attention: cudnn 612 TFLOP/s (sdpa 366), as measured in an earlier run"
    assert (again.name, again.rates, again.faults) == (first.name, first.rates, first.faults)
    assert calls == [tuple(BACKENDS)]
    choose_attention("auto", CUDA, torch.bfloat16, 16, 64)
    choose_attention("auto", CUDA, torch.float32, 32, 128)
    assert calls == [tuple(BACKENDS), tuple(BACKENDS), ("sdpa",)]
    assert len(json.loads((cache_folder() / "attention.json").read_text())) == 3
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Another device")
    choose_attention("auto", CUDA, torch.bfloat16, 32, 128)
    assert len(calls) == 4


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"KEY": 3}', '{"KEY": {"rates": {"magic": 9}}}'])
def test_a_damaged_memory_is_measured_anew(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A device")
    choice = AttentionChoice(name="sdpa", rates={"sdpa": 1.0}, faults={})
    monkeypatch.setattr(kernels, "measure", lambda *_: choice)
    file = cache_folder() / "attention.json"
    choose_attention("auto", CUDA, torch.bfloat16, 32, 128)
    (key,) = json.loads(file.read_text())
    file.write_text(content.replace("KEY", key))
    assert not choose_attention("auto", CUDA, torch.bfloat16, 32, 128).remembered
    assert choose_attention("auto", CUDA, torch.bfloat16, 32, 128).remembered


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JOYEDIT_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A device")
    monkeypatch.setattr(kernels, "measure", lambda *_: AttentionChoice(name="sdpa", rates={"sdpa": 1.0}, faults={}))
    assert choose_attention("auto", CUDA, torch.bfloat16, 32, 128).name == "sdpa"


def test_flash_is_the_first_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(name: str, *_: object) -> str:
        return "" if name == "varlen" else "not installed"

    monkeypatch.setattr(kernels, "check", stand_in)
    choice = choose_attention("flash", CUDA, torch.bfloat16, 32, 128)
    assert (choice.name, list(choice.faults)) == ("varlen", ["fa4", "fa3", "fa2"])


def test_an_installed_kernel_makes_another_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A device")
    choice = AttentionChoice(name="sdpa", rates={"sdpa": 1.0}, faults={})
    monkeypatch.setattr(kernels, "measure", lambda *_: choice)
    assert not choose_attention("auto", CUDA, torch.bfloat16, 32, 128).remembered
    package = types.ModuleType("flash_attn_interface")
    package.flash_attn_varlen_func = lambda *_: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn_interface", package)
    varlen_kernel.cache_clear()
    assert not choose_attention("auto", CUDA, torch.bfloat16, 32, 128).remembered
