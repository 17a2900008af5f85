"""What the system says of NVIDIA's GPUs, and the remedy where torch sees none."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from joyedit.runtime.doctor import nvidia
from joyedit.runtime.doctor.nvidia import Nvidia, install, look, why_unseen

CARD = "NVIDIA GeForce RTX 4090"


def smi(monkeypatch: pytest.MonkeyPatch, out: str, code: int = 0) -> None:
    """An nvidia-smi that prints this."""
    monkeypatch.setattr(nvidia.shutil, "which", lambda name: f"/usr/bin/{name}")

    def run(argv: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, code, stdout=out, stderr="")

    monkeypatch.setattr(nvidia.subprocess, "run", run)


@pytest.fixture
def without_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia.shutil, "which", lambda name: None)
    monkeypatch.setattr(nvidia, "_SMI_IN_WSL", "/no/such/program")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_nvidia_smi_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    smi(monkeypatch, f"{CARD}, 580.65.06, 8.9\nTesla P40, 580.65.06, 6.1\n")
    found = look(tmp_path)
    assert found == Nvidia(gpus=(CARD, "Tesla P40"), driver="580.65.06", capability=6.1)
    assert found.driver_number == 580
    smi(monkeypatch, f"{CARD}, 470.1, [N/A]\n")
    assert look(tmp_path) == Nvidia(gpus=(CARD,), driver="470.1", capability=None)


@pytest.mark.parametrize(("out", "code"), [("No devices were found", 0), (f"{CARD}, 1.2, 8.9", 9), ("", 0)])
def test_an_nvidia_smi_that_fails(out: str, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    smi(monkeypatch, out, code)
    assert look(tmp_path) == Nvidia()


def test_an_nvidia_smi_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    smi(monkeypatch, "")

    def run(argv: list[str], **more: Any) -> None:
        raise subprocess.TimeoutExpired(argv, 10)

    monkeypatch.setattr(nvidia.subprocess, "run", run)
    assert look(tmp_path) == Nvidia()


@pytest.mark.usefixtures("without_smi")
def test_the_kernel_is_read(tmp_path: Path) -> None:
    assert look(tmp_path) == Nvidia()
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    write(device / "vendor", "0x10de\n")
    (device / "class").write_text("0x030000\n")
    write(tmp_path / "sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n")  # the sound of that card
    (tmp_path / "sys/bus/pci/devices/0000:01:00.1/class").write_text("0x040300\n")
    assert look(tmp_path) == Nvidia(gpus=("NVIDIA GPU",))
    write(
        tmp_path / "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.223.02  Sat Oct  7 15:39:11 UTC 2023\n",
    )
    write(tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0/information", f"Model: \t\t {CARD}\nIRQ:  16\n")
    assert look(tmp_path) == Nvidia(gpus=(CARD,), driver="470.223.02")


def test_no_gpu_is_no_problem() -> None:
    assert why_unseen(Nvidia(), None, "") is None


def test_a_gpu_without_a_driver() -> None:
    message, remedy = why_unseen(Nvidia(gpus=("NVIDIA GPU",)), "13.0", "") or ("", "")
    assert message == "an NVIDIA GPU is there, but no driver of it"
    assert "install NVIDIA's driver, 580 or newer" in remedy
    message, _ = why_unseen(Nvidia(gpus=(CARD,)), None, "") or ("", "")
    assert message == f"{CARD} is there, but no driver"


INDEX = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/"


@pytest.mark.parametrize(
    ("driver", "capability", "expected"),
    [
        ("580.65", 8.9, f"install torch's build for CUDA:\n{INDEX}cu130"),
        ("580.65", 12.0, f"install torch's build for CUDA:\n{INDEX}cu130"),
        ("595.10", None, f"install torch's build for CUDA:\n{INDEX}cu130"),
        ("580.65", 6.1, f"install torch's build for CUDA:\n{INDEX}cu126"),
        ("550.54", 8.9, f"install torch's build for CUDA:\n{INDEX}cu126"),
        ("575.10", 12.0, f"update the driver from 575.10 to 580 or newer, then install .*\n{INDEX}cu130"),
        ("470.22", 8.6, f"update the driver from 470.22 to 580 or newer, then install .*\n{INDEX}cu130"),
    ],
)
def test_a_torch_without_cuda(driver: str, capability: float | None, expected: str) -> None:
    found = Nvidia(gpus=(CARD,), driver=driver, capability=capability)
    message, remedy = why_unseen(found, None, "") or ("", "")
    assert message == f"{CARD} is there, but torch is a build without CUDA"
    assert remedy == install(found)
    start, _, end = expected.partition(".*")
    assert remedy.startswith(start)
    assert remedy.endswith(end)


def test_a_driver_that_is_too_old() -> None:
    message, remedy = why_unseen(Nvidia(gpus=(CARD,), driver="550.54", capability=8.9), "13.0", "old") or ("", "")
    assert message == f"{CARD}: the driver 550.54 is too old for torch, which was built for CUDA 13.0"
    assert remedy == f"update the driver to 580 or newer, or install another build of torch:\n{INDEX}cu126"
    _, remedy = why_unseen(Nvidia(gpus=(CARD,), driver="470.1", capability=8.9), "12.8", "") or ("", "")
    assert remedy == "update the driver to 525 or newer"


def test_a_hidden_gpu_and_one_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Nvidia(gpus=(CARD,), driver="580.1", capability=8.9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert why_unseen(found, "13.0", "") == (
        f"{CARD} is there, but CUDA_VISIBLE_DEVICES= hides it",
        "unset CUDA_VISIBLE_DEVICES",
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    message, remedy = why_unseen(found, "13.0", "CUDA unknown error") or ("", "")
    assert message.endswith("are there, but CUDA does not start (CUDA unknown error)")
    assert "nvidia-smi" in remedy
