"""Rename tables: names in a checkpoint -> parameter names of our networks. Data and pure functions.

Our networks carry the names of the published diffusers checkpoint, so that layout renames to
itself. A rule answers with the parameter's name, with DROP for a tensor that is known and not
needed, or with None for a name that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from torch import Tensor

from joyedit.weights.roles import without_prefix

DROP = ""
"""A tensor that the published checkpoint holds and a single picture does not need."""

MODULATIONS = 6
"""Rows of the table that modulates a block of the DiT. No matrix has so few."""

Rename = Callable[[str], str | None]
Fit = Callable[[Tensor], Tensor]


def dit_from_diffusers(name: str) -> str | None:
    return name


_AUTHORS_ATTENTION = re.compile(r"^(double_blocks\.\d+)\.((?:img|txt)_attn_)")


def dit_from_original(name: str) -> str | None:
    """The authors' names lack the `.attn.` of the diffusers ones."""
    return _AUTHORS_ATTENTION.sub(r"\1.attn.\2", name)


def dit_from_any(name: str) -> str | None:
    """Names of a single file: the diffusers or the authors' ones, behind the prefix of a larger network or without."""
    return dit_from_original(without_prefix(name))


def vae_from_diffusers(name: str) -> str | None:
    """Temporal resampling never runs on one frame."""
    return DROP if ".time_conv." in name else name


def vae_from_any(names: Iterable[str], res_blocks: int) -> Rename:
    """For a single file with these names, Wan's own or the diffusers ones. `res_blocks` as in `vae_from_original`."""
    is_wan = any(".downsamples." in name for name in names)
    rename = vae_from_original(res_blocks) if is_wan else vae_from_diffusers
    return lambda name: rename(without_prefix(name))


_WAN_RESIDUAL = {"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}
_WAN_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_WAN_HEAD = {"0": "norm_out", "2": "conv_out"}
_WAN_BLOCK = re.compile(r"^(encoder|decoder)\.(downsamples|upsamples|middle)\.(\d+)\.(.+)$")


def vae_from_original(res_blocks: int) -> Rename:
    """Wan's own names. `res_blocks` is the VAE's `num_res_blocks`, which Wan's flat numbering hides."""

    def rename(name: str) -> str | None:
        if ".time_conv." in name:
            return DROP
        head, _, rest = name.partition(".")
        if head in ("conv1", "conv2"):
            return f"{'quant_conv' if head == 'conv1' else 'post_quant_conv'}.{rest}"
        if match := re.fullmatch(r"(encoder|decoder)\.conv1\.(.+)", name):
            return f"{match[1]}.conv_in.{match[2]}"
        if (match := re.fullmatch(r"(encoder|decoder)\.head\.(\d)\.(.+)", name)) and match[2] in _WAN_HEAD:
            return f"{match[1]}.{_WAN_HEAD[match[2]]}.{match[3]}"
        if not (match := _WAN_BLOCK.match(name)):
            return None
        side, kind, number, inner = match.groups()
        if kind == "downsamples":
            place = f"{side}.down_blocks.{number}"
        elif kind == "middle":
            if number not in _WAN_MIDDLE:
                return None
            place = f"{side}.mid_block.{_WAN_MIDDLE[number]}"
        else:
            # A level is res_blocks + 1 residual blocks and, but for the last level, one resampling.
            level, index = divmod(int(number), res_blocks + 2)
            part = f"resnets.{index}" if index <= res_blocks else "upsamplers.0"
            place = f"{side}.up_blocks.{level}.{part}"
        return _wan_block(place, inner)

    return rename


def _wan_block(place: str, inner: str) -> str | None:
    part, _, rest = inner.partition(".")
    if part == "residual":
        index, _, leaf = rest.partition(".")
        return f"{place}.{_WAN_RESIDUAL[index]}.{leaf}" if index in _WAN_RESIDUAL else None
    if part == "shortcut":
        return f"{place}.conv_shortcut.{rest}"
    if part in ("resample", "norm", "to_qkv", "proj"):
        return f"{place}.{inner}"
    return None


def fit_dit(tensor: Tensor) -> Tensor:
    """The patch embedding is a Conv3d in the files and one linear layer here. GGUF files may lack sides of 1."""
    if tensor.ndim >= 4:
        return tensor.flatten(1)
    is_table = tensor.ndim == 2 and tensor.shape[0] == MODULATIONS
    return tensor[None] if is_table else tensor


def fit_vae(tensor: Tensor) -> Tensor:
    """Keep the last temporal slice of a 3-D convolution; gains lose their temporal axis."""
    if tensor.ndim == 5:
        return tensor[:, :, -1]
    if tensor.ndim == 4 and tensor.shape[1:] == (1, 1, 1):
        return tensor[:, 0]
    return tensor


def fit_as_is(tensor: Tensor) -> Tensor:
    return tensor
