"""Whether joyedit's own Triton kernels run between the networks' products and convolutions.

They run only after a check: on small networks, on this device and in this dtype, their result must agree with the
plain one. If it does not, or if the kernels do not run, the plain networks run, and a note says why.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from joyedit.errors import DeviceError, first_line
from joyedit.job.spec import PrecisionName, SwitchName
from joyedit.models.attention import TextLengths
from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.quantised_blocks import QUANTISED, quantise_blocks
from joyedit.models.vae import VAE

TOLERANCE = {torch.bfloat16: 0.025, torch.float32: 5e-3}
"""Largest norm of the difference, relative to the norm of the plain result. It is several times what rounding causes:
below 1% in bf16; in fp32, convolutions round to TF32."""

TOLERANCE_OF_8_BITS = 0.1
"""The same for layers of 8 bits, where a rounding in front of them may make a value the next one of so few: it causes
0.03 in bf16."""

GRIDS = ((4, 6), (32, 32), (64, 32))
"""Rows and columns of tokens of the pictures that check the DiT: small, large enough to be joined in place, and large
enough for samples to be computed one by one."""

LATENT = (8, 12)
"""Rows and columns of the latent that the VAE's decoder is checked on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fusion:
    """Whether the kernels run. `note` says why not, if they were wanted."""

    on: bool
    note: str = ""


def fuse(
    wish: SwitchName,
    dit: DiT,
    vae: VAE,
    device: torch.device,
    dtype: torch.dtype,
    precision: PrecisionName = "exact",
) -> Fusion:
    """Switch the kernels on in both networks. auto: on CUDA, if they pass the check.

    Raises DeviceError for "on" if they do not.
    """
    if wish == "off" or (wish == "auto" and device.type != "cuda"):
        return Fusion(on=False)
    found = fault(dit.cfg, device, dtype, precision)
    if found and wish == "on":
        raise DeviceError(f"--fused on: {found}; use --fused auto or off")
    if not found:
        dit.fuse_blocks()
        vae.fuse()
    return Fusion(on=not found, note=found and f"no fused kernels: {found}")


def fault(cfg: DiTConfig, device: torch.device, dtype: torch.dtype, precision: PrecisionName = "exact") -> str:
    """Why the kernels cannot run a DiT with such heads on this device; empty if they pass the check."""
    if device.type != "cuda":
        return "they need a CUDA device"
    try:
        import triton
    except ImportError as error:
        return f"Triton is not installed ({error})"
    try:
        errors = [_dit_error(cfg, device, dtype), _vae_error(device, dtype)]
        worst = float(torch.stack(errors).max())
        of_8_bits = 0.0 if precision == "exact" else float(_dit_error(cfg, device, dtype, precision))
    # Triton has no compiler for its launcher, does not support this GPU or these heads, or is another version.
    except (triton.TritonError, RuntimeError, ValueError, TypeError, OSError, subprocess.SubprocessError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return f"they do not run here ({first_line(error)})"
    # A comparison with NaN is false.
    if not worst <= TOLERANCE[dtype]:
        return f"the result differs from the plain networks by {worst:.3g}"
    return "" if of_8_bits <= TOLERANCE_OF_8_BITS else f"with {precision} the result differs by {of_8_bits:.3g}"


@torch.inference_mode()
def _dit_error(cfg: DiTConfig, device: torch.device, dtype: torch.dtype, precision: PrecisionName = "exact") -> Tensor:
    """Error of a DiT, for texts of two lengths, with pictures that a kernel joins and pictures that a product joins."""
    heads = {"hidden_size": 4 * cfg.head_dim, "num_heads": 4, "num_layers": 2, "mlp_ratio": 2}
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator)
    dit = _random(DiT(replace(cfg, **heads)), generator).to(device, dtype)  # type: ignore[arg-type]
    if precision != "exact":
        quantise_blocks(dit, *QUANTISED[precision])
    timestep = torch.full((1,), 500.0, device=device)
    txt = draw(24, 4 * cfg.head_dim).to(device, dtype)
    errors = []
    for rows, columns in GRIDS:
        sides = rows * cfg.patch[0], columns * cfg.patch[1]
        items = [draw(2, cfg.in_channels, *sides).to(device) for _ in range(2)]
        forward = partial(dit, items, timestep, txt, TextLengths.of([9, 15]))
        errors.append(_apart(forward, dit.plain_blocks, dit.fuse_blocks))
    return torch.stack(errors).max()


@torch.inference_mode()
def _vae_error(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Error of a VAE whose decoder has an attention as wide as the published one's."""
    generator = torch.Generator().manual_seed(1)
    vae = _random(VAE(VAEConfig(base_dim=24, decoder_base_dim=96, num_res_blocks=1)), generator).to(device, dtype)
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    latent = torch.randn(1, vae.cfg.z_dim, *LATENT, generator=generator).to(device)
    return _apart(partial(vae.decode, latent), vae.plain, vae.fuse)


Network = TypeVar("Network", bound=nn.Module)


def _random(network: Network, generator: torch.Generator) -> Network:
    """Fill a network with weights so large that every part changes the result. They depend on `generator` only.

    Queries and keys get larger ones: where attention is nearly even, errors in them do not show.
    """
    for name, parameter in network.named_parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5
        sharp = name.endswith(("q_norm.weight", "k_norm.weight", "attentions.0.norm.gamma"))
        nn.init.normal_(parameter, mean=2.0 if sharp else 0.0, std=spread, generator=generator)
    return network.eval().requires_grad_(False)


def _apart(call: Callable[[], Tensor], plain: Callable[[], None], fused: Callable[[], None]) -> Tensor:
    """Norm of the difference, relative to the norm of the plain result."""
    plain()
    expected = call().float()
    fused()
    error: Tensor = (call().float() - expected).norm() / expected.norm()
    return error
