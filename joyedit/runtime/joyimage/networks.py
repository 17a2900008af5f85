"""The networks of one checkpoint, and the device and dtype that they are on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from joyedit.errors import DeviceError
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import AttentionName, PrecisionName
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.models.quantised_blocks import dtype_of_quantised, quantise_blocks_of_no_weights
from joyedit.models.qwen import TextEncoder
from joyedit.models.schedule import ScheduleName
from joyedit.models.vae import VAE
from joyedit.runtime.joyimage.conditioning import Conditioner
from joyedit.runtime.joyimage.loras import Loras
from joyedit.runtime.placement.placed_network import PlacedNetwork
from joyedit.runtime.placement.plan import Placement
from joyedit.runtime.tuning.attention_choice import AttentionChoice, choose_attention
from joyedit.runtime.tuning.device import DTYPES, choose_device, choose_dtype
from joyedit.runtime.tuning.precision import check_precision
from joyedit.runtime.tuning.processor import bf16_units
from joyedit.weights.quantised_files import QuantisedFiles


@dataclass(frozen=True, kw_only=True)
class PlacedModel:
    """A placement, and the networks of which parts pass through the device."""

    placement: Placement
    budget: int
    """Bytes of the device that joyedit may use."""
    bus_rate: float | None = None
    """Bytes a second that come to the device from the host's memory, where weights do and it is known."""
    disk_rate: float | None = None
    """The same for what is read from the disk each time."""
    dit: PlacedNetwork | None = None
    encoder: PlacedNetwork | None = None

    def text(self) -> str:
        """The placement in words."""
        return self.placement.text(self.budget, self.bus_rate, self.disk_rate)

    def close(self) -> None:
        """Stop reading ahead."""
        for placed in (self.dit, self.encoder):
            if placed is not None:
                placed.close()


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks on their device, and what belongs to them."""

    dit: DiT
    vae: VAE
    text_encoder: TextEncoder
    conditioner: Conditioner
    schedule: ScheduleName
    shift: float
    layout: str
    attention: AttentionChoice
    placed: PlacedModel
    loras: Loras
    originals: QuantisedFiles | None = None
    """The files of a DiT with layers of 8 bits, for what LoRAs of differing items change."""
    sigmas: tuple[float, ...] = ()
    """Noise levels that the checkpoint was made for; empty for those of its schedule."""


@dataclass(frozen=True, kw_only=True)
class DeviceChoice:
    """Device and dtype with every `auto` decided."""

    device: torch.device
    dtype: str
    precision: PrecisionName = "exact"
    note: str = ""
    """For the user, where `auto` is not what it mostly is."""

    @classmethod
    def of(cls, config: RunConfig, fp32_bytes: int | None = None) -> DeviceChoice:
        """`fp32_bytes`: what the weights take in fp32, on which the dtype may depend.

        Raises DeviceError for what is not to be had.
        """
        if config.fused == config.compile == "on":
            raise DeviceError("--fused on and --compile on exclude each other: both replace the DiT's blocks")
        if config.precision != "exact" and config.compile == "on":
            raise DeviceError(
                f"--compile on and --precision {config.precision} exclude each other: leave out one of them"
            )
        device = choose_device(config.device)
        note = check_precision(config.precision, device)
        dtype = choose_dtype(config.dtype, device, None if fp32_bytes is None else lambda: fp32_bytes)
        saves = config.dtype == "auto" and device.type == "cpu" and dtype == "bf16"
        saved = f"bf16 ({bf16_units()}): in fp32 the weights exceed the memory of this machine" if saves else ""
        note = "; ".join(one for one in (saved, note) if one)
        return cls(device=device, dtype=dtype, precision=config.precision, note=note)

    def attention(self, wish: AttentionName, dit: DiTConfig) -> AttentionChoice:
        """The attention backend for this DiT. Raises DeviceError."""
        return choose_attention(wish, self.device, DTYPES[self.dtype], dit.num_heads, dit.head_dim)

    def dtype_of(self, network: str, parameter: str) -> torch.dtype:
        """Everything in the run's dtype, but the time embedder in fp32: its input spans 0 to 1000. Layers of 8 bits
        have weights of such a dtype, and scales in fp32.
        """
        if network == "transformer":
            found = dtype_of_quantised(parameter, self.precision)
            if found is not None:
                return found
        return self.exact_dtype_of(network, parameter)

    def exact_dtype_of(self, network: str, parameter: str) -> torch.dtype:
        """The same without layers of 8 bits."""
        if network == "transformer" and ".time_embedder." in parameter:
            return torch.float32
        return DTYPES[self.dtype]

    def prepare(self, dit: DiT) -> None:
        """Let the layers of a DiT without weights be of 8 bits, if the run asks for it.

        Raises DeviceError for widths that tensor cores do not take.
        """
        cfg = dit.cfg
        odd = cfg.hidden_size % 16 or cfg.mlp_dim % 16
        if self.precision != "exact" and self.device.type == "cuda" and odd:
            raise DeviceError(
                f"--precision {self.precision}: the model has widths of {cfg.hidden_size} and {cfg.mlp_dim} channels,"
                " no multiples of 16; use --precision exact"
            )
        quantise_blocks_of_no_weights(dit, self.precision)
