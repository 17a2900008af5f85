"""joyedit's packages: which are installed, and which of them cannot be imported. No torch in here, unless it works."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from importlib import metadata
from importlib.util import find_spec

from joyedit.errors import first_line
from joyedit.job.results.report import joyedit_version
from joyedit.runtime.doctor.findings import Examination

NEEDED = {
    "torch": "torch", "transformers": "transformers", "safetensors": "safetensors", "numpy": "numpy", "PIL": "pillow",
    "huggingface_hub": "huggingface_hub", "simplejpeg": "simplejpeg",
}  # fmt: skip
"""Modules that every run imports, and the packages that bring them."""
OPTIONAL = {
    "triton": ("triton", "joyedit's fused kernels and torch.compile"),
    "flash_attn": ("flash-attn", "FlashAttention"),
    "flash_attn_interface": ("flash-attn-3", "FlashAttention 3"),
    "gguf": ("gguf", "weights in GGUF"),
    "pillow_heif": ("pillow-heif", "HEIC pictures"),
}
"""Modules that some runs import, their packages, and what they are for."""
OLDEST_TORCH = (2, 8)


def tell_software(report: Examination) -> bool:
    """Import every package once; whether all of those work that every run needs."""
    report.tell(
        "joyedit",
        f"{joyedit_version()}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        version=joyedit_version(), python=platform.python_version(), system=platform.system(),
    )  # fmt: skip
    works, versions = True, {}
    for module, package in NEEDED.items():
        fault = _fault(module)
        versions[package] = None if fault else version_of(module, package)
        if fault is not None:
            works = False
            report.add("packages", f"{package} {fault}", f"pip install --force-reinstall {package}", stops=True)
    if works and _is_old(versions["torch"]):
        works = False
        least = ".".join(map(str, OLDEST_TORCH))
        report.add("packages", f"torch {versions['torch']} is too old", f"pip install 'torch>={least}'", stops=True)
    absent = []
    for module, (package, purpose) in OPTIONAL.items():
        fault = _fault(module)
        versions[package] = None if fault else version_of(module, package)
        if fault == _ABSENT:
            absent.append(package)
        elif fault is not None:
            remedy = f"{purpose} will be missing; pip install --force-reinstall {package}, or pip uninstall {package}"
            report.add("packages", f"{package} {fault}", remedy, stops=False)
    there = ", ".join(f"{package} {version}" for package, version in versions.items() if version is not None)
    report.tell(
        "packages", there + (f"; not installed: {', '.join(absent)} (optional)" if absent else ""), versions=versions
    )
    return works


_ABSENT = "is not installed"


def _fault(module: str) -> str | None:
    """Why a module cannot be used; None if it can."""
    try:
        if module not in sys.modules and find_spec(module) is None:
            return _ABSENT
        importlib.import_module(module)
    except Exception as error:  # a package for another torch, Python or system raises whatever it likes
        return f"is installed, but cannot be imported ({first_line(error)})"
    return None


def version_of(module: str, package: str) -> str:
    """The version of an installed package; `?` where it does not say."""
    own = getattr(sys.modules.get(module), "__version__", None)  # torch's own has its build: 2.9.0+cpu
    if own is not None:
        return str(own)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "?"


def _is_old(version: str | None) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < OLDEST_TORCH
