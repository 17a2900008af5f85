"""The names of a LoRA's tensors, as several trainers write them -> which matrix of which layer. No tensor is read.

A name is a prefix, the path of a layer, and what the tensor is there: `lora_A` (or `lora_down`, `lora.down`) is the
matrix that a layer's input meets first, `lora_B` (`lora_up`, `lora.up`) the second one, `alpha` a number.

    double_blocks.0.img_attn_qkv.lora_A.default.weight                          DiffSynth
    base_model.model.double_blocks.0.attn.img_attn_qkv.lora_A.weight            PEFT
    transformer.double_blocks.0.attn.img_attn_qkv.lora_A.weight                 diffusers
    diffusion_model.double_blocks.0.attn.img_attn_qkv.lora_down.weight          ComfyUI
    lora_unet_double_blocks_0_attn_img_attn_qkv.lora_down.weight                kohya
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from joyedit.printable import brief
from joyedit.weights.names import dit_from_original

Matrix = Literal["down", "up", "alpha"]

PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "model.diffusion_model.", "pipe.dit.", "dit.")
_KOHYA = ("lora_unet_", "lora_transformer_", "lora_dit_")
_MATRIX = re.compile(
    r"(?P<layer>.+)\.(?:(?P<down>lora_A|lora_down|lora\.down)|(?P<up>lora_B|lora_up|lora\.up))"
    r"(?:\.(?P<adapter>[^.]+))?\.weight"
)
_ALPHA = re.compile(r"(?P<layer>.+)\.alpha")

OTHERS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("DoRA", re.compile(r"\.(?:dora_scale|lora_magnitude_vector)(?:\.|$)")),
    ("LoKr", re.compile(r"\.lokr_")),
    ("LoHa", re.compile(r"\.hada_")),
    ("OFT or BOFT", re.compile(r"\.b?oft_")),
    ("IA3", re.compile(r"\.ia3_|\.on_input$")),
    ("VeRA", re.compile(r"\.vera_lambda_")),
    ("GLoRA", re.compile(r"\.[ab][12]\.weight$")),
    ("a LoRA of convolutions", re.compile(r"\.lora_mid\.weight$")),
    ("a LoRA of embeddings", re.compile(r"\.lora_embedding_[AB](?:\.|$)")),
    ("a LoRA with biases", re.compile(r"\.(?:lora_B|lora_up|lora\.up)(?:\.[^.]+)?\.bias$")),
    ("full differences of weights", re.compile(r"\.(?:diff|diff_b|set_weight|w_norm|b_norm)$")),
    (
        "a LoRA of the text encoder",
        re.compile(
            r"^(?:base_model\.model\.)?(?:model\.)?(?:text_encoders?\b|text_encoder_\d|language_model\.|visual\."
            r"|layers\.\d|lora_te\d?_|conditioner\.|cond_stage_model\.|qwen)"
        ),
    ),
    ("a LoRA of the VAE", re.compile(r"^(?:vae\.|first_stage_model\.|lora_vae_|encoder\.|decoder\.)")),
)
"""Other kinds of adapters, by what their names have."""


@dataclass(kw_only=True, slots=True)
class NamedMatrices:
    """The tensors of one layer by what they are: names in the file."""

    down: str | None = None
    up: str | None = None
    alpha: str | None = None


@dataclass(kw_only=True, slots=True)
class NamedLora:
    """What the names of a file say.

    `layers` by the layer's name in the network. `kinds` are the other kinds of adapters that the file holds, each with
    its first name; `unknown` are names that lead nowhere, `doubled` those that lead where another one leads.
    """

    layers: dict[str, NamedMatrices] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)


class LayerNames:
    """The layers of a DiT that a LoRA may change, by all names that they have elsewhere."""

    def __init__(self, layers: Iterable[str]) -> None:
        self._layers = frozenset(layers)
        self._flat: dict[str, str | None] = {}
        for layer in sorted(self._layers):
            for spelling in {layer, layer.replace(".attn.", ".", 1)}:
                flat = spelling.replace(".", "_")
                self._flat[flat] = layer if self._flat.get(flat, layer) == layer else None

    def find(self, written: str) -> str | None:
        """The layer that a name without its last part stands for; None for no layer, or for one of several."""
        for prefix in _KOHYA:
            if written.startswith(prefix):
                return self._flat.get(written[len(prefix) :])
        name = written
        for _ in range(3):  # base_model.model.transformer.
            before = name
            for prefix in PREFIXES:
                name = name.removeprefix(prefix)
            if name == before:
                break
        found = dit_from_original(name)
        return found if found in self._layers else None


def read_names(names: Iterable[str], layers: Iterable[str]) -> NamedLora:
    """What the tensors of a file are, by their names. `layers` are the linear layers of the DiT."""
    known = LayerNames(layers)
    made = NamedLora()
    adapters: set[str] = set()
    for name in sorted(names):
        kind = next((kind for kind, pattern in OTHERS if pattern.search(name)), None)
        if kind is not None:
            made.kinds.setdefault(kind, name)
            continue
        match = _MATRIX.fullmatch(name) or _ALPHA.fullmatch(name)
        layer = None if match is None else known.find(match["layer"])
        if match is None or layer is None:
            made.unknown.append(name)
            continue
        groups: Mapping[str, str | None] = match.groupdict()
        matrix: Matrix = "down" if groups.get("down") else "up" if groups.get("up") else "alpha"
        if matrix != "alpha":
            adapters.add(groups.get("adapter") or "")
        place = made.layers.setdefault(layer, NamedMatrices())
        before = getattr(place, matrix)
        if before is None:
            setattr(place, matrix, name)
        else:
            made.doubled.append(f"{brief(name)} (as {brief(before)})")
    if len(adapters) > 1:
        shown = ", ".join(sorted(brief(one or "without a name") for one in adapters))
        made.kinds.setdefault("several adapters in one file", shown)
    return made
