"""The parts of an examination: packages, the machine, the device and its kernels. GPUs are played by stand-ins."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from joyedit.errors import CheckpointError
from joyedit.job.run_config import RunConfig
from joyedit.models.config import DiTConfig
from joyedit.runtime.doctor import checkpoint, device, host, nvidia, software
from joyedit.runtime.doctor.findings import Examination
from joyedit.runtime.joyimage.networks import DeviceChoice
from joyedit.runtime.tuning.attention_choice import AttentionChoice
from joyedit.weights.defaults import HUB_EDIT

CUDA = torch.device("cuda", 0)


def config(**more: Any) -> RunConfig:
    return RunConfig(output=Path("edited"), **more)


@pytest.fixture
def report() -> Examination:
    return Examination()


def broken(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these modules fail when they are imported."""
    real = importlib.import_module

    def load(name: str, package: str | None = None) -> Any:
        if name in names:
            raise OSError(f"lib{name}.so: undefined symbol")
        return real(name, package)

    monkeypatch.setattr(software.importlib, "import_module", load)


def test_every_fault_becomes_a_finding(report: Examination) -> None:
    for error in (CheckpointError("wrong\ndo this"), OSError(2, "No such file"), ValueError("odd")):
        with report.part("part", stops=isinstance(error, ValueError)):
            raise error
    first, second, third = report.findings
    assert first.lines() == ["part: wrong", "  do this"]
    assert second.message == "it cannot be examined (No such file)"
    assert third.message == "it cannot be examined (ValueError: odd)"
    assert report.problems == [third]
    assert report.advice == [first, second]
    assert "ValueError: odd" in report.traces[0]
    assert report.to_dict()["can_start"] is False


def test_packages_that_work(report: Examination) -> None:
    assert software.tell_software(report)
    assert report.problems == []
    assert report.facts["packages"]["versions"]["torch"] == torch.__version__
    assert software.version_of("no_such_module", "no-such-package") == "?"


def test_a_broken_optional_package(report: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "gguf")
    assert software.tell_software(report)
    (found,) = report.advice
    assert found.message == "gguf is installed, but cannot be imported (libgguf.so: undefined symbol)"
    assert "pip install --force-reinstall gguf" in found.remedy
    assert report.facts["packages"]["versions"]["gguf"] is None


def test_a_broken_torch(report: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "torch")
    assert not software.tell_software(report)
    (found,) = report.problems
    assert found.remedy == "pip install --force-reinstall torch"


def test_an_old_torch(report: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.7.1+cu126")
    assert not software.tell_software(report)
    assert report.problems[0].message == "torch 2.7.1+cu126 is too old"


def test_disks(report: Examination, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host.shutil, "disk_usage", lambda place: SimpleNamespace(free=10**6))
    monkeypatch.setattr(host, "cache_note", lambda: "no cache folder: it is not ours")
    host.tell_disks(report, tmp_path / "new" / "edited")
    assert not (tmp_path / "new").exists()
    assert [one.about for one in report.advice] == ["output folder", "cache folder"]
    assert "has 1 MB left" in report.advice[0].message
    (tmp_path / "file").write_text("")
    host.tell_disks(report, tmp_path / "file")
    assert "cannot be a folder" in report.problems[0].message


def test_a_disk_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(place: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(host.shutil, "disk_usage", fails)
    assert host.free_bytes(tmp_path) is None


def test_the_host(report: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "bf16_units", lambda: "")
    monkeypatch.setattr(host.machine_memory, "available_bytes", lambda: None)
    host.tell_host(report)
    assert "has no units for bf16" in report.facts["processor"]["text"]
    assert report.facts["memory"]["text"].startswith("unknown available")


def test_a_model_that_is_to_be_downloaded(report: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "cached_snapshot", lambda model: None)
    monkeypatch.setattr("joyedit.weights.describe.cached_snapshot", lambda model: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(checkpoint, "free_bytes", lambda folder: 10**9)
    checkpoint.tell_checkpoint(report, config(model=HUB_EDIT))
    assert report.facts["model"]["downloaded"] is False
    assert [one.message for one in report.problems] == [
        "HF_HUB_OFFLINE forbids the download",
        "the download takes about 50.0 GB, and the disk of the hub cache has 1.0 GB left",
    ]


def test_parts_of_a_model(report: Examination, tmp_path: Path) -> None:
    assert checkpoint.tell_checkpoint(report, config(dit="a.safetensors")) is None
    assert checkpoint.tell_checkpoint(report, config(model=str(tmp_path / "nowhere"))) is None
    (tmp_path / "empty").mkdir()
    assert checkpoint.tell_checkpoint(report, config(model=str(tmp_path / "empty"))) is not None
    messages = [one.message for one in report.problems]
    assert "--encoder and --vae must be given too" in messages[0]
    assert "no such folder, and not a hub id" in messages[1]
    assert "no known checkpoint layout" in messages[2]


@pytest.fixture
def cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(nvidia, "look", lambda: nvidia.Nvidia())


@pytest.mark.usefixtures("cpu_only")
def test_without_a_gpu(report: Examination) -> None:
    assert device.tell_device(report, config()) == torch.device("cpu")
    assert report.findings == []
    assert report.facts["gpu"]["text"] == "no NVIDIA GPU"
    assert device.tell_device(report, config(device="cuda")) is None
    assert [one.message for one in report.problems] == ["--device cuda: no NVIDIA GPU is there"]
    assert device.tell_device(report, config(device="mps")) is None
    assert "--device mps: torch sees no Apple GPU here" in report.problems[1].message


@pytest.mark.usefixtures("cpu_only")
@pytest.mark.parametrize(("wish", "stops"), [("auto", False), ("cuda", True), ("cpu", None)])
def test_a_gpu_that_torch_does_not_see(
    report: Examination, wish: Any, stops: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = nvidia.Nvidia(gpus=("a GPU",), driver="580.1", capability=9.0)
    monkeypatch.setattr(nvidia, "look", lambda: found)
    device.tell_device(report, config(device=wish))
    assert [one.stops for one in report.findings] == ([] if stops is None else [stops])
    if stops is not None:
        assert report.findings[0].message == "a GPU is there, but torch is a build without CUDA"


@pytest.mark.usefixtures("cpu_only")
def test_an_apple_gpu(report: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 48 * 10**9)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 10**9)
    assert device.tell_device(report, config()) == torch.device("cpu")
    assert device.tell_device(report, config(device="mps")) == torch.device("mps")
    assert [one.stops for one in report.findings] == [False, False]
    assert report.findings[0].remedy.startswith("--device mps uses it")
    assert report.facts["device"]["available"] == 47 * 10**9


def test_cudas_own_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("Found no NVIDIA driver")

    monkeypatch.setattr(torch.cuda, "init", fails)
    assert device._reason(["a warning"]) == "Found no NVIDIA driver"
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert device._reason(["a warning"]) == "a warning"
    assert device._reason([]) == ""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A GPU as torch tells of it; a test may change what it tells."""
    facts: dict[str, Any] = {"capability": (9, 0), "free": 70, "bf16": True, "archs": ["sm_80", "sm_90"]}
    properties = SimpleNamespace(name="H100", total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: facts["capability"])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: facts["archs"])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: facts["bf16"])
    monkeypatch.setattr(device, "available_bytes", lambda device: facts["free"] * 10**9)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(nvidia, "look", lambda: nvidia.Nvidia(gpus=("H100",), driver="580.1", capability=9.0))
    return facts


@pytest.mark.usefixtures("gpu")
def test_a_gpu(report: Examination) -> None:
    assert device.tell_device(report, config()) == CUDA
    assert report.findings == []
    assert report.facts["device"]["text"] == (
        "cuda (H100), 70.0 GB of 80.0 GB free, compute capability 9.0; GPU 0 of 2, CUDA_VISIBLE_DEVICES chooses, "
        "--gpus all takes all"
    )
    assert report.facts["torch"]["text"].endswith("built for CUDA 13.0, sees CUDA device")


def test_a_gpu_that_is_taken_and_old(report: Examination, gpu: dict[str, Any]) -> None:
    gpu.update(capability=(6, 1), free=10, bf16=False)
    device.tell_device(report, config())
    messages = [one.message for one in report.findings]
    assert messages == [
        "other programs take 70.0 GB of its memory",
        "torch has no kernels for compute capability 6.1, only for sm_80, sm_90",
        "it has no units for bf16",
    ]
    assert report.problems[0].remedy.endswith("/whl/cu126")


@pytest.mark.parametrize(
    ("archs", "capability", "expected"),
    [
        (["sm_80", "sm_90"], (8, 9), True), (["sm_80"], (9, 0), False), (["sm_90"], (8, 0), False),
        (["sm_80", "compute_90"], (12, 0), True), (["sm_90a"], (9, 0), True), (["gfx"], (9, 0), True),
    ],
)  # fmt: skip
def test_kernels_for_a_gpu(
    archs: list[str], capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: archs)
    assert device._has_kernels(capability) is expected


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_does_not_answer(report: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(device: torch.device) -> int:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nmore")

    monkeypatch.setattr(device, "available_bytes", fails)
    assert device.tell_device(report, config()) is None
    (found,) = report.problems
    assert "the GPU does not answer (CUDA error: all CUDA-capable devices are busy" in found.message
    assert "end other programs that hold it" in found.remedy


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("fault", "remedy"), [("Triton is not installed (x)", "pip install triton"), ("no run", "install a C compiler")]
)
def test_kernels_on_a_gpu(report: Examination, fault: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = AttentionChoice(name="sdpa", rates={"sdpa": 300.0}, faults={"fa4": "not installed (no module)"})
    monkeypatch.setattr(DeviceChoice, "attention", lambda self, wish, dit: choice)
    monkeypatch.setattr(device.fused_check, "fault", lambda *more: fault)
    device.tell_kernels(report, config(), DeviceChoice(device=CUDA, dtype="bf16"), DiTConfig())
    assert report.facts["attention"]["text"] == "sdpa 300 TFLOP/s, measured now; not fa4: not installed (no module)"
    assert report.facts["compiling"]["text"] == "off: auto compiles for long runs alone"
    flash, fused = report.advice
    assert flash.remedy.startswith('pip install "flash-attn-4[cu13]"')
    assert fused.remedy.startswith(remedy)
    monkeypatch.setattr(device.fused_check, "fault", lambda *more: "")
    device.tell_kernels(report, config(), DeviceChoice(device=CUDA, dtype="bf16"), DiTConfig())
    assert report.facts["compiling"]["text"] == "off: the fused kernels run"
    assert report.facts["fused_kernels"]["on"] is True


def test_the_oldest_torch_is_that_of_the_package() -> None:
    text = (Path(__file__).resolve().parents[4] / "pyproject.toml").read_text()
    assert f'"torch>={".".join(map(str, software.OLDEST_TORCH))}"' in text
