"""What a run would do here: its kernels, where its weights would lie, and about how long an edit takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from joyedit.job.results.report import seconds_text
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import Settings
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.vae import VAE
from joyedit.runtime.doctor.device import tell_kernels
from joyedit.runtime.doctor.estimate import PRODUCTS_GAIN, STEP_SHARE, Work, estimate
from joyedit.runtime.doctor.findings import Examination
from joyedit.runtime.joyimage.before_download import TOKEN_IDS
from joyedit.runtime.joyimage.networks import DeviceChoice
from joyedit.runtime.joyimage.placing import Unplaced, plan
from joyedit.runtime.placement.plan import Placement
from joyedit.runtime.tuning.bus_rate import bus_rate
from joyedit.runtime.tuning.compile import keep_compiled_code
from joyedit.runtime.tuning.device import DTYPES
from joyedit.runtime.tuning.matmul_peak import matmul_tflops
from joyedit.weights.layouts import Checkpoint, fp32_bytes
from joyedit.weights.random import without_weights


@dataclass(frozen=True, kw_only=True)
class _Networks:
    """Networks without weights. `assumed`: those of the published model, as nobody has named another one."""

    dit: DiT
    encoder: TextEncoder
    vae: VAE
    assumed: bool


def tell_outlook(
    report: Examination, config: RunConfig, checkpoint: Checkpoint | None, settings: Settings, *, stops: bool
) -> None:
    """Kernels, placement and expected seconds, for a checkpoint or for the published model. No weights are read.

    `settings` are those of an item for which nobody says anything else. `stops`: whether a run needs these networks.
    """
    keep_compiled_code(config)
    assumed = checkpoint is None
    networks: _Networks | None = None
    with report.part("networks", stops=stops):
        networks = _networks(checkpoint)
    if networks is None:
        return
    wanted: DeviceChoice | None = None
    with report.part("dtype"):
        wanted = DeviceChoice.of(config, fp32_bytes(networks.dit, networks.encoder, networks.vae))
        report.tell("dtype", f"{wanted.dtype}; {wanted.note}" if wanted.note else wanted.dtype, name=wanted.dtype)
    if wanted is None:
        return
    if wanted.precision != "exact":
        report.tell("precision", f"{wanted.precision} products in the DiT's blocks", name=wanted.precision)
    tell_kernels(report, config, wanted, networks.dit.cfg)
    wanted.prepare(networks.dit)
    basesize = settings.basesize or 1024
    placement: Placement | None = None
    with report.part("published model" if assumed else "placement", stops=stops):
        placement, budget = plan(
            Unplaced(networks.dit, networks.encoder, networks.vae), wanted, replace(config, largest=basesize)
        )
        rate = None if placement.is_resident else bus_rate(wanted.device)
        whose = "for the published model: " if assumed else ""
        report.tell(
            "placement", whose + placement.text(budget, rate),
            assumed=assumed, budget=budget, predicted_peak=placement.predicted_peak, host=placement.host,
            resident_blocks=placement.resident_blocks, blocks=placement.blocks, from_disk=placement.from_disk,
            encoder_streams=placement.encoder_streams, bus_rate=rate,
        )  # fmt: skip
    if placement is None:
        return
    with report.part("expected time", stops=False):
        _tell_time(report, networks, wanted, placement, settings)


def _networks(checkpoint: Checkpoint | None) -> _Networks:
    if checkpoint is None:
        dit, vae, encoder = without_weights("full", TOKEN_IDS)
        return _Networks(dit=dit, encoder=encoder, vae=vae, assumed=True)
    return _Networks(dit=checkpoint.dit, encoder=checkpoint.text_encoder, vae=checkpoint.vae, assumed=False)


def _tell_time(
    report: Examination, networks: _Networks, wanted: DeviceChoice, placement: Placement, settings: Settings
) -> None:
    """An estimate, and what it stands on."""
    basesize, steps = settings.basesize or 1024, settings.steps or 40
    guided = (settings.guidance_scale or 0) > 1
    work = Work.of(
        networks.dit.cfg, networks.encoder.config, networks.vae.cfg, basesize=basesize, steps=steps, guided=guided
    )
    tflops = _matmul_rate(wanted)
    rate = None if placement.is_resident else bus_rate(wanted.device)
    found = estimate(work, tflops, placement, rate, wanted.precision)
    text = (
        f"about {seconds_text(found.seconds)} an edit ({basesize} pixels, {steps} steps, one picture,"
        f" {'guidance' if guided else 'no guidance'}), {seconds_text(found.step)} a step. An estimate: "
    )
    text += (
        "a step waits for the weights that come over the bus"
        if found.waits_for_bus
        else f"{work.step / 1e12:.3g} TFLOP a step at {STEP_SHARE:.0%} (measured on an H100) of this device's"
        f" {tflops:.3g} TFLOP/s in products"
    )
    if wanted.precision == "fp8" and not found.waits_for_bus:
        text += f", and fp8 products {PRODUCTS_GAIN['fp8']:.2g} times as fast (measured on an H200)"
    text += "; blocks that come from the disk may make it longer" if placement.from_disk else ""
    report.tell(
        "expected time", text, seconds=round(found.seconds, 3), step=round(found.step, 4),
        encode=round(found.encode, 4), decode=round(found.decode, 4), steps=steps, basesize=basesize, estimate=True,
        matmul_tflops=round(tflops, 4), waits_for_bus=found.waits_for_bus,
    )  # fmt: skip


def _matmul_rate(wanted: DeviceChoice) -> float:
    """TFLOP/s of a large product on the device, measured now."""
    with torch.inference_mode():
        return matmul_tflops(wanted.device, DTYPES[wanted.dtype])
