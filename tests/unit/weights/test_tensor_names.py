"""Every published tensor name and shape is accounted for, on the meta device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.vae import VAE
from joyedit.weights import names
from joyedit.weights.encoder_names import encoder_from_transformers
from joyedit.weights.infer import dit_config_of_shapes, vae_config_of_shapes
from joyedit.weights.load import Component, compare

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
