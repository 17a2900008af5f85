"""Configuration, tokenizer and image processor of a Qwen checkpoint, on transformers 4.57 and 5.x."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from joyedit.models.config_values import ConfigError
from joyedit.models.qwen_config import checked_image_processor

PREPROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"


PUBLISHED = {
    "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "merge_size": 2, "patch_size": 16,
    "temporal_patch_size": 2, "resample": 3, "rescale_factor": 1 / 255,
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
}  # fmt: skip
"""The settings of the published image processor."""


def load_image_processor(folder: Path | None) -> Any:
    """Qwen's image processor on PIL, which needs no torchvision, with the settings of a folder; None: the published
    ones.

    They are inside `processor_config.json` as transformers 5 writes it, or else in `preprocessor_config.json`. Raises
    ConfigError for settings that cannot work, OSError or ValueError for a file that cannot be read.
    """
    try:
        module = importlib.import_module("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
        processor: Any = module.Qwen2VLImageProcessorPil
    except ImportError:  # transformers 4.57
        processor = importlib.import_module("transformers").Qwen2VLImageProcessor
    raw = PUBLISHED if folder is None else _image_settings(folder)
    if not isinstance(raw, dict):
        raise ConfigError("must be a JSON object")
    return processor(**checked_image_processor(raw))


def _image_settings(folder: Path) -> Any:
    whole = folder / PROCESSOR_FILE
    if whole.exists():
        raw = json.loads(whole.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and raw.get("image_processor") is not None:
            return raw["image_processor"]
    return json.loads((folder / PREPROCESSOR_FILE).read_text(encoding="utf-8"))


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's own tokenizer. It runs no remote code, and no configuration of a network is read for it."""
    import transformers

    more: dict[str, Any] = {}
    if transformers.__version__.startswith("4."):
        # transformers 5 writes a list here, on which 4.57 fails. The tokens themselves are in tokenizer.json.
        more["extra_special_tokens"] = {}
    return transformers.AutoTokenizer.from_pretrained(
        folder, config=transformers.Qwen3VLConfig(), trust_remote_code=False, **more
    )


def rope_theta(text_config: Any) -> float:
    """The base of the language model's rotary frequencies. Raises ValueError for another kind of rotation."""
    parameters = getattr(text_config, "rope_parameters", None) or {}
    theta = parameters.get("rope_theta") or getattr(text_config, "rope_theta", None)
    kind = parameters.get("rope_type") or (getattr(text_config, "rope_scaling", None) or {}).get("rope_type")
    if theta is None or kind not in (None, "default"):
        raise ValueError(f"text encoder with rope_type {kind!r} and theta {theta!r} is not supported")
    return float(theta)


def set_frequencies(rotary: nn.Module, dim: int, theta: float, device: torch.device) -> None:
    """Compute the frequencies of a rotary module of `dim` channels a head, fp32."""
    frequencies = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    for name in ("inv_freq", "original_inv_freq"):
        if hasattr(rotary, name):
            setattr(rotary, name, frequencies.to(device))


def with_both_rope_spellings(config: dict[str, Any]) -> dict[str, Any]:
    """`config` with the names of both releases: `rope_theta` and `rope_scaling` (4.57), `rope_parameters` (5.x)."""
    text = dict(config.get("text_config") or {})
    parameters = dict(text.get("rope_parameters") or {})
    scaling = dict(text.get("rope_scaling") or {})
    theta = parameters.get("rope_theta", text.get("rope_theta"))
    merged = {**scaling, **parameters}
    if theta is not None:
        merged["rope_theta"] = theta
        text["rope_theta"] = theta
    if merged:
        merged.setdefault("rope_type", "default")
        text["rope_parameters"] = merged
        text["rope_scaling"] = {k: v for k, v in merged.items() if k != "rope_theta"}
    return {**config, "text_config": text}
