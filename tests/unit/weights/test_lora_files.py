"""LoRA files: the names of every trainer lead to one change; what does not fit is refused, all of it at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from joyedit.errors import CheckpointError
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.weights.lora_facts import content_hash, lora_facts
from joyedit.weights.lora_file import LoraFile, layer_shapes, open_lora
from support.loras import LAYERS, STYLES, lora_of, matrices, named, write

with torch.device("meta"):
    SHAPES = layer_shapes(DiT(DiTConfig(hidden_size=64, num_heads=2, num_layers=3, text_dim=48, rope_dims=(4, 14, 14))))
FOUND = matrices(SHAPES)
QKV = "double_blocks.0.attn.img_attn_qkv"


def product(file: LoraFile, layer: str = QKV, scale: float = 1.0) -> torch.Tensor:
    change = dict(file.read(scale))[layer]
    return change.factor * (change.up.double() @ change.down.double())


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        LoraFile(path, SHAPES)
    return str(caught.value)


@pytest.mark.parametrize("style", STYLES)
def test_each_trainers_names(tmp_path: Path, style: str) -> None:
    file = LoraFile(write(tmp_path / "a.safetensors", named(FOUND, style)), SHAPES)
    assert sorted(file.layers) == sorted(LAYERS)
    for layer, (down, up) in FOUND.items():
        torch.testing.assert_close(product(file, layer, 0.5), 0.5 * (up.double() @ down.double()))
    assert file.nbytes == sum(4 * (down.numel() + up.numel()) for down, up in FOUND.values())


@pytest.mark.parametrize("ending", [".pt", ".bin", ".pth"])
def test_pickles_are_read_as_data(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    torch.save(named(FOUND), path)
    down, up = FOUND[QKV]
    torch.testing.assert_close(product(LoraFile(path, SHAPES)), up.double() @ down.double())
    torch.save({**named(FOUND), "double_blocks.0.img_attn_qkv.alpha": 2.0}, path)
    assert "1 numbers that are no tensors: double_blocks.0.img_attn_qkv.alpha" in refused(path)

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, ("exit 1",)

    torch.save({**named(FOUND), "x": Evil()}, path)
    assert "its code is not run" in refused(path)


def test_alpha_of_tensors_config_and_metadata(tmp_path: Path) -> None:
    plain = FOUND[QKV][1].double() @ FOUND[QKV][0].double()
    alpha = {"double_blocks.0.attn.img_attn_qkv.alpha": torch.tensor(2.0)}
    file = LoraFile(write(tmp_path / "alpha.safetensors", named(FOUND, "diffusers") | alpha), SHAPES)
    torch.testing.assert_close(product(file), plain * 2 / 4)
    told = {"transformer.r": 4, "transformer.lora_alpha": 12, "text_encoder.lora_alpha": 1}
    metadata = {"lora_adapter_metadata": json.dumps(told)}
    file = LoraFile(write(tmp_path / "told.safetensors", named(FOUND, "diffusers"), metadata), SHAPES)
    torch.testing.assert_close(product(file), plain * 3)
    folder = tmp_path / "peft"
    write(folder / "adapter_model.safetensors", named(FOUND, "peft"))
    config = {"r": 8, "lora_alpha": 8, "use_rslora": True, "rank_pattern": {f"^{QKV}$": 4, "net.2": 4, "proj": 4}}
    config |= {"rank_pattern": config["rank_pattern"] | {"txt_attn_proj": 4}, "alpha_pattern": {"img_attn_qkv": 6}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    file = LoraFile(lora_facts(folder).weights, SHAPES)
    torch.testing.assert_close(product(file), plain * 6 / 2)
    torch.testing.assert_close(dict(file.read(1.0))[LAYERS[1]].factor, 8 / 2)
    other = write(folder / "other.safetensors", named(FOUND, "peft"))
    assert product(LoraFile(other, SHAPES)).equal(plain)  # the configuration is that of adapter_model


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "this is DoRA"),
        ({"peft_type": "LOHA"}, "this is 'LOHA', and joyedit reads plain LoRA"),
        ({"lora_bias": True}, "this is a LoRA with lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' also changes the weights of the model"),
        ({"r": 0}, "r must be a whole number from 1"),
        ({"lora_alpha": "x"}, "lora_alpha must be a number"),
        ({"rank_pattern": {"(a+)+$": 4}}, "rank_pattern: '(a+)+$' is no plain name of a layer"),
        ({"alpha_pattern": [1]}, "alpha_pattern must be an object"),
        ({"r": 3}, "3 ranks that differ: double_blocks.0.attn.img_attn_qkv has rank 4, and its configuration says 3"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    write(tmp_path / "adapter_model.safetensors", named(FOUND, "peft"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert message in refused(tmp_path / "adapter_model.safetensors")


@pytest.mark.parametrize("told", ["{", "[1]"])
def test_metadata_that_is_no_object(tmp_path: Path, told: str) -> None:
    path = write(tmp_path / "a.safetensors", named(FOUND), {"lora_adapter_metadata": told})
    assert "lora_adapter_metadata: " in refused(path)
    path = write(tmp_path / "a.safetensors", named(FOUND), {"lora_adapter_metadata": '{"vae.r": 4}'})
    assert dict(LoraFile(path, SHAPES).read(1.0))[QKV].factor == 1


B0 = "double_blocks.0.img_attn_qkv"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{B0}.dora_scale", "DoRA"),
        (f"{B0}.lora_magnitude_vector.default", "DoRA"),
        (f"{B0}.lokr_w1", "LoKr"),
        (f"{B0}.hada_w1_a", "LoHa"),
        (f"{B0}.oft_blocks", "OFT or BOFT"),
        (f"{B0}.lora_mid.weight", "a LoRA of convolutions"),
        (f"{B0}.lora_B.default.bias", "a LoRA with biases"),
        (f"{B0}.diff", "full differences of weights"),
        ("text_encoder.model.layers.0.q_proj.lora_A.weight", "a LoRA of the text encoder"),
        ("lora_te1_layers_0_q_proj.lora_down.weight", "a LoRA of the text encoder"),
        ("vae.encoder.conv_in.lora_A.weight", "a LoRA of the VAE"),
    ],
)
def test_other_adapters_are_named(tmp_path: Path, name: str, kind: str) -> None:
    path = write(tmp_path / "a.safetensors", named(FOUND) | {name: torch.zeros(2, 2)})
    assert f"a.safetensors: this is {kind} ({name}), and joyedit reads plain LoRA" in refused(path)


def test_convolutions_and_several_adapters(tmp_path: Path) -> None:
    conv = {"transformer.img_in.lora_A.weight": torch.zeros(4, 16, 1, 2, 2)}
    assert "this is a LoRA of convolutions (transformer.img_in.lora_A.weight)" in refused(
        write(tmp_path / "conv.safetensors", conv)
    )
    two = named(FOUND) | {
        name.replace("default", "second").replace("blocks.0", "blocks.1"): tensor.clone()
        for name, tensor in named({QKV: FOUND[QKV]}).items()
    }
    assert "several adapters in one file (default, second)" in refused(write(tmp_path / "two.safetensors", two))


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    down, up = FOUND[QKV]
    tensors = {
        "nowhere.lora_A.weight": down,
        f"{B0}.lora_A.weight": down,
        f"{B0}.lora_B.weight": up[:, :2].contiguous(),
        f"transformer.{B0}.lora_A.weight": down.clone(),
        "double_blocks.1.img_attn_qkv.lora_A.weight": down.clone(),
        "double_blocks.2.img_attn_qkv.lora_A.weight": torch.zeros(4, 9),
        "double_blocks.2.img_attn_qkv.lora_B.weight": up.to(torch.int32),
        "double_blocks.2.img_attn_qkv.alpha": torch.zeros(2),
    }
    lines = refused(write(tmp_path / "a.safetensors", tensors)).splitlines()
    assert lines[0].endswith("a.safetensors: this LoRA does not fit the model:")
    assert lines[1:] == [
        "  1 names that lead to no layer of the DiT: nowhere.lora_A.weight",
        f"  1 names that lead to a layer twice: transformer.{B0}.lora_A.weight (as {B0}.lora_A.weight)",
        "  1 tensors that are no floating-point numbers: double_blocks.2.img_attn_qkv.lora_B.weight is I32",
        "  1 layers with one matrix of two: double_blocks.1.attn.img_attn_qkv",
        "  2 shapes that do not fit: double_blocks.2.img_attn_qkv.lora_A.weight is [4, 9], expected [rank, 64],"
        " double_blocks.2.img_attn_qkv.alpha is [2], expected one number",
        "  1 ranks that differ: double_blocks.0.attn.img_attn_qkv has rank 4 and 2",
    ]


def test_numbers_that_are_none(tmp_path: Path) -> None:
    tensors = named(FOUND)
    tensors[f"{B0}.lora_A.default.weight"][0, 0] = float("nan")
    tensors[f"{B0}.alpha"] = torch.tensor(1e9)
    told = refused(write(tmp_path / "a.safetensors", tensors))
    assert (
        f"2 tensors with numbers that are infinite, too large or none: {B0}.lora_A.default.weight, {B0}.alpha" in told
    )
    tensors[f"{B0}.lora_A.default.weight"][0, 0] = 0


def test_files_that_are_no_lora(tmp_path: Path) -> None:
    assert "it holds no matrices of a LoRA" in refused(write(tmp_path / "a.safetensors", {"x": torch.zeros(1)}))
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-3])
    assert "not a complete safetensors file" in refused(tmp_path / "torn.safetensors")


def test_a_file_that_changes_is_found_out(tmp_path: Path) -> None:
    lora = lora_of(write(tmp_path / "a.safetensors", named(FOUND)))
    assert open_lora(lora, SHAPES).layers
    write(tmp_path / "a.safetensors", named(matrices(SHAPES, seed=8)))
    with pytest.raises(CheckpointError, match="has changed since the run began"):
        open_lora(lora, SHAPES)


def test_facts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", named(FOUND), {"joyedit": '{"steps": 8, "guidance_scale": 1}'})
    facts = lora_facts(path)
    assert (facts.settings.steps, facts.settings.guidance_scale) == (8, 1)
    (tmp_path / "joyedit.json").write_text('{"sigmas": [1.0, 0.5, 0.25, 0]}')
    assert lora_facts(path).settings.steps == 8  # the file's own word comes first
    bare = lora_facts(write(tmp_path / "b.safetensors", named(FOUND)))
    assert (bare.settings.steps, bare.sigmas) == (3, (1.0, 0.5, 0.25))
    assert bare.sha256 == content_hash(tmp_path / "b.safetensors")


def test_the_config_is_part_of_the_hash(tmp_path: Path) -> None:
    write(tmp_path / "adapter_model.safetensors", named(FOUND, "peft"))
    hashes = set()
    for alpha in (4, 8):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
        hashes.add(lora_facts(tmp_path).sha256)
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sigmas": [0.5, 1]}', "sigmas must be noise levels that fall from 1 towards 0"),
        ('{"sigmas": [1, 0.5], "steps": 3}', "sigmas are the noise levels of 2 steps, and steps says another number"),
        ('{"sigmas": []}', "sigmas must be noise levels"),
        ('{"seed": 3}', "unknown key 'seed'"),
    ],
)
def test_recommendations_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "a.safetensors", named(FOUND), {"joyedit": text})
    with pytest.raises(CheckpointError, match=r"a\.safetensors: joyedit: ") as caught:
        lora_facts(path)
    assert message in str(caught.value)


def test_paths_that_hold_no_lora(tmp_path: Path) -> None:
    def told(path: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            lora_facts(path)
        return str(caught.value)

    assert "a LoRA ends with .safetensors" in told(tmp_path / "a.txt")
    assert "there is no such LoRA" in told(tmp_path / "a.safetensors")
    assert "this one holds 0 such files" in told(tmp_path)
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "is a pipe" in told(tmp_path / "pipe.safetensors")
    (tmp_path / "one").mkdir()
    only = write(tmp_path / "one" / "style.safetensors", named(FOUND))
    assert lora_facts(tmp_path / "one").weights == only
    only.write_bytes(b"<!DOCTYPE html><html></html>")
    assert "it holds" in told(only)
    only.write_bytes(b"\x10")
    assert "not a complete safetensors file" in told(only)
    only.write_bytes((1 << 30).to_bytes(8, "little") + b"x" * 10)
    assert "not a complete safetensors file" in told(only)
    only.write_bytes((4).to_bytes(8, "little") + b"xxxx")
    assert "its header is not JSON" in told(only)
    write(only, named(FOUND), {"joyedit": "["})
    assert "must be a JSON object" in told(only)
