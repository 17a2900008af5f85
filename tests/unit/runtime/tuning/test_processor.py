"""Which units for bf16 a processor has, by what the system says."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from joyedit.runtime.tuning import processor
from joyedit.runtime.tuning.processor import bf16_units, processor_name


def cpuinfo(root: Path, text: str) -> Path:
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("processor : 0\nflags\t: fpu avx512f avx512_bf16 amx_bf16 amx_tile\n", "AMX"),
        ("flags\t: fpu avx512f avx512_bf16\n", "AVX512-BF16"),
        ("Features\t: fp asimd bf16 i8mm\n", "ARM BF16"),
        ("flags\t: fpu avx2\nbugs : bf16\n", ""),
        ("", ""),
    ],
)
def test_linux(tmp_path: Path, text: str, units: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.sys, "platform", "linux")
    assert bf16_units(cpuinfo(tmp_path, text)) == units


def test_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.sys, "platform", "linux")
    assert processor_name(tmp_path) == ""
    assert processor_name(cpuinfo(tmp_path, "model name\t: A processor @ 3 GHz\n")) == "A processor @ 3 GHz"


def test_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"hw.optional.arm.FEAT_BF16": "1\n", "machdep.cpu.brand_string": "Apple M4\n"}

    def run(argv: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 0, stdout=told[argv[-1]])

    monkeypatch.setattr(processor.sys, "platform", "darwin")
    monkeypatch.setattr(processor.subprocess, "run", run)
    assert (bf16_units(), processor_name()) == ("ARM BF16", "Apple M4")
    told["hw.optional.arm.FEAT_BF16"] = ""
    assert bf16_units() == ""


def test_a_mac_without_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **more: Any) -> None:
        raise FileNotFoundError(argv[0])

    monkeypatch.setattr(processor.sys, "platform", "darwin")
    monkeypatch.setattr(processor.subprocess, "run", run)
    assert (bf16_units(), processor_name()) == ("", "")
