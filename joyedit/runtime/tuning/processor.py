"""What the processor has for bf16. No torch in here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "bf16": "ARM BF16"}
"""Flags of /proc/cpuinfo, the fastest first, and what the units are called."""


def bf16_units(root: Path = Path("/")) -> str:
    """The name of the processor's units for products in bf16; empty if it has none. `root` is for tests."""
    if sys.platform == "darwin":
        return _UNITS["bf16"] if _sysctl("hw.optional.arm.FEAT_BF16") == "1" else ""
    flags = set(_value(root, ("flags", "Features")).split())
    return next((name for flag, name in _UNITS.items() if flag in flags), "")


def processor_name(root: Path = Path("/")) -> str:
    """What the system calls the processor; empty where it does not say."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    return _value(root, ("model name",))


def _value(root: Path, names: tuple[str, ...]) -> str:
    """The first value with one of these names in /proc/cpuinfo."""
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() in names), "")


def _sysctl(name: str) -> str:
    try:
        asked = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()
