"""How strong a LoRA is meant to be: rank and alpha of its layers, from PEFT's configuration or from metadata.

A layer's LoRA is `alpha / rank` times the product of its matrices; with `use_rslora`, alpha over the root of the rank.
Without any alpha the factor is 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joyedit.errors import CheckpointError
from joyedit.models.config_values import ConfigError, Values, shown
from joyedit.weights.lora_facts import SAFETENSORS, config_file, metadata_of
from joyedit.weights.regular_files import printable_path, read_object

METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's configuration in a safetensors file."""
_PARTS = ("transformer.", "")
"""What stands before the keys of that configuration: the part of the pipeline that it is for."""
MOST_ALPHA = 1e6
MOST_RANK = 65536
_MOST_PATTERNS = 4096
_REFUSED = (
    "use_dora", "lora_bias", "fan_in_fan_out", "layer_replication", "modules_to_save", "trainable_token_indices",
    "alora_invocation_tokens", "use_qalora", "use_bdlora", "target_parameters", "arrow_config", "kasa_config",
    "monteclora_config", "velora_config",
)  # fmt: skip
"""Options of PEFT that make another formula of the same matrices."""
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the weights of the model as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """Rank and alpha as a configuration gives them; None where it gives none. Patterns are by names of layers."""

    rank: int | None = None
    alpha: float | None = None
    root: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)

    def rank_of(self, layer: str) -> int | None:
        """The rank that the configuration gives this layer."""
        found: int | None = _of(self.ranks, layer, self.rank)
        return found

    def factor(self, layer: str, rank: int, alpha: float | None) -> float:
        """What the product of a layer's matrices is multiplied with. `alpha` is that of a tensor of the file."""
        if alpha is None:
            alpha = _of(self.alphas, layer, self.alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.root else rank)


def scaling_of(weights: Path) -> Scaling:
    """What is said about a LoRA beside its tensors.

    Raises CheckpointError for a configuration that cannot be read, or that asks for another formula.
    """
    config = config_file(weights)
    if config is not None:
        return _read(read_object(config), printable_path(config))
    told = metadata_of(weights).get(METADATA_KEY) if weights.suffix == SAFETENSORS else None
    if told is None:
        return Scaling()
    where = f"{printable_path(weights)}: {METADATA_KEY}"
    try:
        found = json.loads(told)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: not JSON") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{where}: must be a JSON object")
    for part in _PARTS:
        inner = {key.removeprefix(part): value for key, value in found.items() if key.startswith(part)}
        if "r" in inner or "lora_alpha" in inner:
            return _read(inner, where)
    return Scaling()


def _read(raw: Mapping[str, Any], where: str) -> Scaling:
    kind = raw.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(f"{where}: this is {shown(kind)}, and joyedit reads plain LoRA")
    for key in _REFUSED:
        if raw.get(key):
            name = "DoRA" if key == "use_dora" else f"a LoRA with {key}"
            raise CheckpointError(f"{where}: this is {name}, and joyedit reads plain LoRA")
    start = raw.get("init_lora_weights", True)
    if start is not None and start not in _PLAIN_STARTS:
        raise CheckpointError(
            f"{where}: init_lora_weights {shown(start)} also changes the weights of the model; let PEFT convert this"
            " LoRA to a plain one (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    values = Values(raw)
    try:
        return Scaling(
            rank=values.whole("r", 1, MOST_RANK) if "r" in values else None,
            alpha=values.number("lora_alpha", -MOST_ALPHA, MOST_ALPHA) if "lora_alpha" in values else None,
            root=values.truth("use_rslora", False),
            ranks=_pattern(raw, "rank_pattern", lambda table, key: table.whole(key, 1, MOST_RANK)),
            alphas=_pattern(raw, "alpha_pattern", lambda table, key: table.number(key, -MOST_ALPHA, MOST_ALPHA)),
        )
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _pattern(raw: Mapping[str, Any], key: str, read: Any) -> dict[str, Any]:
    """A table of PEFT by names of layers. Raises ConfigError for a name that is a regular expression.

    A stranger's expression may take for ever to compare, and trainers write plain names.
    """
    table = raw.get(key) or {}
    if not isinstance(table, dict) or len(table) > _MOST_PATTERNS:
        raise ConfigError(f"{key} must be an object of at most {_MOST_PATTERNS} names")
    made = {}
    for written in table:
        name = written.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not name.replace(".", "").replace("_", "").replace("-", "").isalnum():
            raise ConfigError(f"{key}: {shown(written)} is no plain name of a layer")
        # PEFT compares the end of a layer's name, and with ^ all of it.
        made["^" * written.startswith("^") + name] = read(Values(table, f"{key}."), written)
    return made


def _of(pattern: Mapping[str, Any], layer: str, otherwise: Any) -> Any:
    """The first entry whose name is the layer's, or its end behind a dot."""
    spellings = (layer, layer.replace(".attn.", ".", 1))  # trainers of the authors' layout have the second one
    for name, value in pattern.items():
        if name.startswith("^"):
            if name[1:] in spellings:
                return value
        elif any(spelling == name or spelling.endswith("." + name) for spelling in spellings):
            return value
    return otherwise
