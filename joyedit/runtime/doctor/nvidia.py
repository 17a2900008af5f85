"""NVIDIA's GPUs and driver as the system knows them, without torch; and why torch does not see them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SMI = "nvidia-smi"
_SMI_IN_WSL = "/usr/lib/wsl/lib/nvidia-smi"
_VENDOR, _DISPLAY = "0x10de", "0x03"
"""In sysfs: NVIDIA, and the class of what computes pictures."""
_LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""The oldest driver (its main number) that runs programs of each main version of CUDA."""
NEWEST_CUDA = max(_LEAST_DRIVER)
_INDEX = "https://download.pytorch.org/whl"
_BUILDS = (("cu130", 13, 7.5, 99.0), ("cu126", 12, 5.0, 9.0))
"""torch's builds that all of its releases since 2.9 have: name, main version of CUDA, and the least and greatest
compute capability of a GPU that they have kernels for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Nvidia:
    """The names of the GPUs, the version of the driver (None without one), and the GPUs' least compute capability."""

    gpus: tuple[str, ...] = ()
    driver: str | None = None
    capability: float | None = None

    @property
    def driver_number(self) -> int:
        """The main number of the driver's version; 0 if it is not known."""
        found = re.match(r"\d+", self.driver or "")
        return int(found[0]) if found else 0


def look(root: Path = Path("/")) -> Nvidia:
    """What is there. `root` is for tests of what the system says without nvidia-smi."""
    return _asked() or _read(root)


def names_by_smi() -> tuple[str, ...] | None:
    """The names of the GPUs as nvidia-smi says them; None where it is missing or fails."""
    found = _asked()
    return None if found is None else found.gpus


def _asked() -> Nvidia | None:
    """What nvidia-smi says; None where it is missing or fails."""
    program = shutil.which(_SMI) or (_SMI_IN_WSL if os.access(_SMI_IN_WSL, os.X_OK) else None)
    if program is None:
        return None
    query = [program, "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [[part.strip() for part in line.split(",")] for line in told.stdout.splitlines()]
    rows = [row for row in rows if len(row) == 3]
    if told.returncode or not rows:
        return None
    capabilities = [float(row[2]) for row in rows if re.fullmatch(r"\d+\.\d+", row[2])]
    return Nvidia(
        gpus=tuple(row[0] for row in rows), driver=rows[0][1], capability=min(capabilities) if capabilities else None
    )


def _read(root: Path) -> Nvidia:
    """What the kernel says: the driver's own files, else the devices on the bus."""
    version = _text(root / "proc/driver/nvidia/version")
    found = re.search(r"\s(\d{3,}\.\d+(?:\.\d+)?)\s", version)
    models = [_text(path) for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))]
    names = [line.partition(":")[2].strip() for text in models for line in text.splitlines() if "Model:" in line]
    if not names:
        devices = (root / "sys/bus/pci/devices").glob("*")
        on_bus = [d for d in devices if _text(d / "vendor").strip() == _VENDOR and _text(d / "class")[:4] == _DISPLAY]
        names = ["NVIDIA GPU"] * len(on_bus)
    return Nvidia(gpus=tuple(names), driver=found[1] if found else None)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def why_unseen(found: Nvidia, cuda: str | None, reason: str) -> tuple[str, str] | None:
    """Why torch sees no CUDA device although an NVIDIA GPU is there, and the remedy; None if there is none.

    `cuda` is the version of CUDA that torch was built for, None for a build without it; `reason` is torch's own word.
    """
    if not found.gpus:
        return None
    name = found.gpus[0]
    if found.driver is None:
        return (
            f"an {name} is there, but no driver of it" if name == "NVIDIA GPU" else f"{name} is there, but no driver",
            f"install NVIDIA's driver, {_LEAST_DRIVER[NEWEST_CUDA]} or newer; start a container with --gpus all",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if cuda is None:
        return f"{name} is there, but torch is a build without CUDA", install(found)
    main = int(cuda.partition(".")[0])
    least = _LEAST_DRIVER.get(main, 0)
    if found.driver_number < least:
        message = f"{name}: the driver {found.driver} is too old for torch, which was built for CUDA {cuda}"
        update = f"update the driver to {least} or newer"
        build = _build_for(found)
        return message, update if build is None else f"{update}, or install another build of torch:\n{_pip(build)}"
    if hidden is not None:
        return f"{name} is there, but CUDA_VISIBLE_DEVICES={hidden} hides it", "unset CUDA_VISIBLE_DEVICES"
    return (
        f"{name} and its driver {found.driver} are there, but CUDA does not start ({reason or 'torch says no more'})",
        "see whether nvidia-smi works; after an update of the driver, start the machine again",
    )


def install(found: Nvidia) -> str:
    """How to get a torch that runs on this GPU with this driver."""
    build = _build_for(found)
    if build is not None:
        return f"install torch's build for CUDA:\n{_pip(build)}"
    return (
        f"update the driver from {found.driver} to {_LEAST_DRIVER[NEWEST_CUDA]} or newer, then install torch's build"
        f" for CUDA:\n{_pip(_BUILDS[0][0])}"
    )


def _build_for(found: Nvidia) -> str | None:
    """The newest build of torch for this GPU and this driver; None if the driver is too old for all of them."""
    capability = found.capability
    for name, main, least, most in _BUILDS:
        has_kernels = capability is None or least <= capability <= most
        if has_kernels and found.driver_number >= _LEAST_DRIVER[main]:
            return name
    return None


def _pip(build: str) -> str:
    return f"pip install --force-reinstall torch --index-url {_INDEX}/{build}"
