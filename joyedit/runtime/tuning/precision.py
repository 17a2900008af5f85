"""Whether a device computes products of 8 bits. It is asked before anything is loaded."""

from __future__ import annotations

import functools

import torch

from joyedit.errors import DeviceError, first_line
from joyedit.job.spec import PrecisionName
from joyedit.models.quantised import product
from joyedit.models.quantised_rows import FP8, INT8, quantise, quantised_weight

LEAST_CAPABILITY = {"fp8": (8, 9), "int8": (7, 5)}
"""The first GPUs with units for such products: Ada, and Turing."""
TOLERANCE = 0.01
"""How far a product may be from the sum of the same values in fp32: several roundings to bf16."""


def check_precision(precision: PrecisionName, device: torch.device) -> str:
    """A note for the user, or nothing. Raises DeviceError, which names the GPU, where it lacks what is asked for."""
    if precision == "exact":
        return ""
    if device.type == "cpu":
        return f"{precision} is emulated on the CPU: it shows what pictures lose, and is slower than exact"
    if device.type != "cuda":
        raise DeviceError(f"--precision {precision}: an Apple GPU has no such products; use --precision exact")
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    if torch.version.hip is not None:
        raise DeviceError(f"--precision {precision}: not for AMD GPUs such as {name}; use --precision exact")
    if capability < LEAST_CAPABILITY[precision]:
        other = "int8 or exact" if precision == "fp8" and capability >= LEAST_CAPABILITY["int8"] else "exact"
        what = "FP8 (Ada, Hopper, Blackwell and newer have it)" if precision == "fp8" else "products of integers"
        version = f"{capability[0]}.{capability[1]}"
        raise DeviceError(
            f"--precision {precision}: {name} (compute capability {version}) has no {what}; use --precision {other}"
        )
    fault = _fault(precision, device)
    if fault:
        raise DeviceError(f"--precision {precision}: {fault} on {name} with torch {torch.__version__}; "
                          "update torch, or use --precision exact")  # fmt: skip
    if precision == "int8" and capability >= LEAST_CAPABILITY["fp8"]:
        return f"int8 is slower than exact on {name}, as measured on an H200; --precision fp8 is faster"
    return ""


@functools.cache
def _fault(precision: str, device: torch.device) -> str:
    """Why products of 8 bits cannot be computed here, by a small one; empty if they can."""
    dtype = FP8 if precision == "fp8" else INT8
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, 256, generator=generator) for rows in (48, 64))
    bias = torch.randn(64, generator=generator).bfloat16()
    given, kept = quantise(x, dtype), quantised_weight(weight, dtype)
    expected = given.wide() @ kept.wide().t() + bias.float()
    moved = [type(one)(*(part.to(device) for part in one)) for one in (given, kept)]
    try:
        found = product(moved[0], moved[1], bias.to(device), torch.bfloat16, None).float().cpu()
    except (RuntimeError, ValueError, TypeError) as error:
        return f"products do not run ({first_line(error)})"
    apart = float((found - expected).norm() / expected.norm())
    # A comparison with NaN is false.
    return "" if apart <= TOLERANCE else f"products are wrong by {apart:.3g}"
