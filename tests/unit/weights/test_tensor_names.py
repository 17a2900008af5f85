"""Every published tensor name and shape is accounted for, on the meta device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.qwen_config import checked_text_encoder
from joyedit.models.vae import VAE
from joyedit.weights import names
from joyedit.weights.encoder_names import deepstack_layers, encoder_from_any, encoder_from_transformers
from joyedit.weights.infer import dit_config_of_shapes, vae_config_of_shapes
from joyedit.weights.infer_encoder import encoder_config_of_shapes
from joyedit.weights.load import Component, compare
from joyedit.weights.roles import held_by
from support.single_files import llama_text_name, llama_vision_name

Shapes = dict[str, tuple[int, ...]]


class Listed:
    """Tensor files of which only names and shapes are known."""

    where = "listed"

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes

    def shapes(self) -> Shapes:
        return self._shapes

    def other_types(self) -> dict[str, str]:
        return {}

    def read(self, device: torch.device) -> None:  # type: ignore[override]
        raise AssertionError("names are compared without reading")


def published(folder: Path, name: str) -> Shapes:
    listed = json.loads((folder / "state_dicts" / f"{name}.json").read_text())
    return {key: tuple(shape) for key, shape in listed.items()}


def assert_accounted(module: nn.Module, shapes: Shapes, rename: names.Rename, fit: names.Fit) -> None:
    faults = compare(Component(name="x", module=module, files=Listed(shapes), rename=rename, fit=fit))
    assert not faults, "\n".join(faults.lines())


@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_the_full_size_transformer(test_data: Path, layout: str) -> None:
    shapes = published(test_data, f"transformer.{layout}")
    with torch.device("meta"):
        module = DiT(DiTConfig())
    rename = names.dit_from_diffusers if layout == "diffusers" else names.dit_from_original
    assert_accounted(module, shapes, rename, names.fit_dit)
    assert 16.2e9 < sum(p.numel() for p in module.parameters()) < 16.3e9


@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_the_full_size_vae(test_data: Path, layout: str) -> None:
    shapes = published(test_data, f"vae.{layout}")
    with torch.device("meta"):
        module = VAE(VAEConfig())
    rename = names.vae_from_diffusers if layout == "diffusers" else names.vae_from_original(2)
    assert_accounted(module, shapes, rename, names.fit_vae)
    dropped = [name for name in shapes if rename(name) == names.DROP]
    assert len(dropped) == 8
    assert all(".time_conv." in name for name in dropped)


def test_the_full_size_text_encoder(test_data: Path) -> None:
    shapes = published(test_data, "text_encoder")
    with torch.device("meta"):
        module = TextEncoder(json.loads((test_data / "configs" / "text_encoder.json").read_text()))
    assert_accounted(module, shapes, encoder_from_transformers, names.fit_as_is)
    assert [name for name in shapes if encoder_from_transformers(name) == names.DROP] == ["lm_head.weight"]


@pytest.mark.parametrize(
    ("network", "rename"),
    [("transformer", names.dit_from_original), ("vae", names.vae_from_original(2))],
)
def test_the_authors_names_lead_to_the_diffusers_ones(test_data: Path, network: str, rename: names.Rename) -> None:
    """One to one, shape by shape, and in the order in which both lists go through the layers."""
    original = published(test_data, f"{network}.original")
    diffusers = published(test_data, f"{network}.diffusers")
    renamed = {rename(name): shape for name, shape in original.items() if rename(name) != names.DROP}
    kept = {name: shape for name, shape in diffusers.items() if ".time_conv." not in name}
    assert renamed == kept
    assert len(renamed) == len(kept)


def test_configs_are_read_off_the_authors_shapes(test_data: Path) -> None:
    dit = {str(names.dit_from_any(name)): shape for name, shape in published(test_data, "transformer.original").items()}
    vae = {  # the tensors that are not needed say what a level does
        names.vae_from_original(2)(name) or name.replace(".downsamples.", ".down_blocks."): shape
        for name, shape in published(test_data, "vae.original").items()
    }
    assert (
        dit_config_of_shapes(dit) == dit_config_of_shapes(published(test_data, "transformer.diffusers")) == DiTConfig()
    )
    assert vae_config_of_shapes(vae) == vae_config_of_shapes(published(test_data, "vae.diffusers")) == VAEConfig()


@pytest.mark.parametrize(
    "name",
    ["encoder.middle.3.residual.0.gamma", "decoder.upsamples.0.residual.1.gamma", "something.else", "encoder.head.7.x"],
)
def test_names_of_no_wan_vae_are_unknown(name: str) -> None:
    assert names.vae_from_original(2)(name) is None


def test_the_last_temporal_slice_is_kept() -> None:
    kernel = torch.arange(27.0).view(1, 1, 3, 3, 3)
    assert torch.equal(names.fit_vae(kernel), kernel[:, :, 2])
    assert names.fit_vae(torch.ones(4, 1, 1, 1)).shape == (4, 1, 1)
    assert names.fit_vae(torch.ones(12, 4, 1, 1)).shape == (12, 4, 1, 1)


ENCODER_NAMES: dict[str, Callable[[str], str]] = {
    "transformers": lambda name: name,
    "an older release of transformers": lambda name: name.replace("model.visual.", "visual.").replace(
        "model.language_model.", "model."
    ),
    "an inner model alone": lambda name: name.removeprefix("model."),
    "language model first": lambda name: name.replace("model.visual.", "visual.").replace(
        "model.language_model.", "language_model.model."
    ),
    "a whole checkpoint of ComfyUI": lambda name: "text_encoders.qwen3vl_8b.transformer." + name,
    "a whole checkpoint of ComfyUI, older": lambda name: (
        "cond_stage_model.qwen3vl_8b."
        + name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
    ),
    "training code": lambda name: "module." + name,
}


@pytest.mark.parametrize("form", ENCODER_NAMES)
def test_the_full_size_text_encoder_under_other_names(test_data: Path, form: str) -> None:
    shapes = {ENCODER_NAMES[form](name): shape for name, shape in published(test_data, "text_encoder").items()}
    rename = encoder_from_any(shapes)
    assert held_by(shapes) == "encoder"
    config = assert_inferred(test_data, shapes, rename, {}, [])
    with torch.device("meta"):
        module = TextEncoder(config)
    assert_accounted(module, shapes, rename, names.fit_as_is)


def test_the_full_size_text_encoder_of_llama_cpp(test_data: Path) -> None:
    shapes: Shapes = {}
    for name, shape in published(test_data, "text_encoder").items():
        if not name.startswith("model.visual."):
            shapes[llama_text_name(name)] = shape
        elif name == "model.visual.patch_embed.proj.weight":
            shapes["v.patch_embd.weight"] = shape  # as the two files are joined
        else:
            shapes[llama_vision_name(name.removeprefix("model.visual."), [8, 16, 24])] = shape
    assert held_by([name for name in shapes if name.startswith(("v.", "mm."))]) == "vision"
    assert held_by([name for name in shapes if not name.startswith(("v.", "mm."))]) == "text"
    rename = encoder_from_any(shapes)
    header = {"qwen3vl.rope.dimension_sections": [24, 20, 20, 0], "qwen3vl.rope.freq_base": 5e6,
              "qwen3vl.attention.layer_norm_rms_epsilon": 9.999999974752427e-07,
              "qwen3vl.context_length": 262144, "clip.vision.attention.head_count": 16}  # fmt: skip
    config = assert_inferred(test_data, shapes, rename, header, deepstack_layers(shapes))
    with torch.device("meta"):
        module = TextEncoder(config)
    assert_accounted(module, shapes, rename, names.fit_as_is)


def assert_inferred(
    test_data: Path, shapes: Shapes, rename: names.Rename, header: dict[str, Any], layers: list[int]
) -> dict[str, Any]:
    """The configuration that is read off the shapes is the published one; gives it."""
    raw = json.loads((test_data / "configs" / "text_encoder.json").read_text())
    tokens = {key: value for key, value in raw.items() if key.endswith("_token_id")}
    ours = {target: shape for name, shape in shapes.items() if (target := rename(name))}
    found = checked_text_encoder(encoder_config_of_shapes(ours, header, layers, tokens))
    wanted = checked_text_encoder(raw)
    wanted["text_config"].pop("attention_bias")
    assert found == wanted
    return found


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "module.", "transformer."])
@pytest.mark.parametrize("authors", [True, False])
def test_the_full_size_transformer_in_a_single_file(test_data: Path, prefix: str, authors: bool) -> None:
    listed = published(test_data, f"transformer.{'original' if authors else 'diffusers'}")
    shapes = {prefix + name: shape for name, shape in listed.items()}
    assert held_by(shapes) == "dit"
    config = dit_config_of_shapes({str(names.dit_from_any(name)): shape for name, shape in shapes.items()})
    assert config == DiTConfig()
    with torch.device("meta"):
        module = DiT(config)
    assert_accounted(module, shapes, names.dit_from_any, names.fit_dit)


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_the_full_size_vae_in_a_single_file(test_data: Path, prefix: str, layout: str) -> None:
    shapes = {prefix + name: shape for name, shape in published(test_data, f"vae.{layout}").items()}
    assert held_by(shapes) == "vae"
    with torch.device("meta"):
        module = VAE(VAEConfig())
    assert_accounted(module, shapes, names.vae_from_any(shapes, 2), names.fit_vae)


def test_sides_of_1_that_gguf_files_lack() -> None:
    assert names.fit_dit(torch.empty(8, 16, 2, 2)).shape == names.fit_dit(torch.empty(8, 16, 1, 2, 2)).shape == (8, 64)
    assert names.fit_dit(torch.empty(6, 8)).shape == names.fit_dit(torch.empty(1, 6, 8)).shape == (1, 6, 8)
    assert names.fit_dit(torch.empty(8, 64)).shape == (8, 64)


@pytest.mark.parametrize("name", ["foo", "visual_x.y", "lm_head.bias", "v.blk.0.attn_q.weight", "modelx.y"])
def test_names_of_no_text_encoder_are_unknown(name: str) -> None:
    assert encoder_from_transformers(name) is None
