"""Configurations from somebody who means no good: one error that names file, key, value and limit; nothing is built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import CheckpointError
from joyedit.job.run_config import RunConfig
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.weights.defaults import checkpoint_defaults
from joyedit.weights.find import detect
from support.hostile import KINDS, Refused, change, put, put_kind, sampled

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_a_checkpoint_of_links_loads(layout: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(layout)
    load_backend(RunConfig(output=Path("unused"), model=str(folder))).close()


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("num_layers", 10_000_000, "num_layers must be a whole number from 1 to 1000, not 10000000"),
        ("num_layers", 0, "num_layers must be a whole number from 1 to 1000, not 0"),
        ("num_layers", True, "num_layers must be a whole number from 1 to 1000, not true"),
        ("num_layers", 3.5, "num_layers must be a whole number from 1 to 1000, not 3.5"),
        ("num_layers", NAN, "num_layers must be a whole number from 1 to 1000, not nan"),
        ("num_layers", "3", "num_layers must be a whole number from 1 to 1000, not '3'"),
        ("num_layers", [3], "num_layers must be a whole number from 1 to 1000, not a list"),
        ("num_layers", 10**4000, "num_layers must be a whole number from 1 to 1000, not a huge number"),
        ("num_layers", None, "key 'num_layers' is missing"),
        ("num_layers", "\x1b[31m" * 100, "num_layers must be a whole number from 1 to 1000, not '\\x1b[31m"),
        ("hidden_size", 10**9, "hidden_size must be a whole number from 1 to 65536, not 1000000000"),
        ("hidden_size", -64, "hidden_size must be a whole number from 1 to 65536, not -64"),
        ("num_attention_heads", 0, "num_attention_heads must be a whole number from 1 to 1024, not 0"),
        ("text_dim", 1 << 40, "text_dim must be a whole number from 1 to 65536, not 1099511627776"),
        ("mlp_width_ratio", INFINITY, "mlp_width_ratio must be a number from 0.01 to 64, not inf"),
        ("mlp_width_ratio", 1e300, "mlp_width_ratio must be a number from 0.01 to 64, not 1e+300"),
        ("theta", NAN, "theta must be a number from 1 to 1e+12, not nan"),
        ("theta", 10**400, "theta must be a number from 1 to 1e+12, not a huge number"),
        ("theta", True, "theta must be a number from 1 to 1e+12, not true"),
        ("rope_dim_list", [4, 14], "rope_dim_list must be a list of 3 whole numbers from 0 to 65536, not one of 2"),
        ("rope_dim_list", {}, "rope_dim_list must be a list of 3 whole numbers from 0 to 65536, not an object"),
        ("rope_dim_list", [4, 14, -1], "a list of whole numbers from 0 to 65536, not -1 in the list"),
        ("rope_dim_list", [0] * 10**5, "rope_dim_list must be a list of 3 whole numbers from 0 to 65536, not one of"),
        ("patch_size", 2, "patch_size must be a list of 3 whole numbers from 1 to 16, not 2"),
        ("patch_size", [1, 2, 10**9], "a list of whole numbers from 1 to 16, not 1000000000 in the list"),
        ("patch_size", [1, 4, 4], "8 pixels a latent and 4 latents a patch do not divide 16"),
        ("in_channels", 10**6, "in_channels must be a whole number from 1 to 256, not 1000000"),
        ("out_channels", 8, "out_channels must be 16, not 8"),
        ("rope_type", ["rope"], "rope_type must be text, not a list"),
        (
            "num_layers",
            999,
            "holds 80 tensors, too few for the 999 layers that the configuration asks for (num_layers)",
        ),
    ],
)
def test_the_transformers_config(diffusers: Path, refused: Refused, key: str, value: Any, rule: str) -> None:
    change(diffusers / "transformer" / "config.json", key, value)
    message = refused(diffusers)
    assert rule in message
    assert message.startswith("CKPT")


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("base_dim", 10**9, "base_dim must be a whole number from 1 to 65536, not 1000000000"),
        ("base_dim", 60_000, "base_dim times dim_mult gives layers of 240000 channels, 65536 are allowed"),
        ("decoder_base_dim", NAN, "decoder_base_dim must be a whole number from 1 to 65536, not nan"),
        ("dim_mult", [], "dim_mult must have at least one entry"),
        (
            "dim_mult",
            [1] * 10**5,
            "dim_mult must be a list of at most 256 whole numbers from 1 to 64, not one of 100000",
        ),
        ("dim_mult", ["1", 2, 4, 4], "dim_mult must be a list of whole numbers from 1 to 64, not '1' in the list"),
        ("num_res_blocks", 10**7, "num_res_blocks must be a whole number from 1 to 64, not 10000000"),
        ("num_res_blocks", 64, "too few for the 256 layers"),
        ("z_dim", -16, "z_dim must be a whole number from 1 to 256, not -16"),
        ("in_channels", 4, "in_channels must be 3, not 4"),
        ("temperal_downsample", [0, 1, 1], "temperal_downsample must be a list of true and false, not 0 in the list"),
        ("temperal_downsample", "yes", "temperal_downsample must be a list of at most 256 true and false, not 'yes'"),
        (
            "latents_mean",
            [NAN] * 16,
            "latents_mean must be a list of numbers from -1e+06 to 1e+06, not nan in the list",
        ),
        (
            "latents_mean",
            ["0"] * 16,
            "latents_mean must be a list of numbers from -1e+06 to 1e+06, not '0' in the list",
        ),
        (
            "latents_std",
            [True] * 16,
            "latents_std must be a list of numbers from -1e+06 to 1e+06, not true in the list",
        ),
        ("latents_std", [10**400] * 16, "not a huge number in the list"),
        ("latents_std", [-1.0] * 16, "the deviations positive"),
        ("latents_std", 1.0, "latents_std must be a list of at most 256 numbers from -1e+06 to 1e+06, not 1.0"),
        ("is_residual", "\u202e" * 200, "VAE option is_residual='\\u202e"),
    ],
)
def test_the_vaes_config(diffusers: Path, refused: Refused, key: str, value: Any, rule: str) -> None:
    change(diffusers / "vae" / "config.json", key, value)
    assert rule in refused(diffusers)


def test_a_vae_of_many_levels(diffusers: Path, refused: Refused) -> None:
    change(diffusers / "vae" / "config.json", "dim_mult", [1] * 200)
    change(diffusers / "vae" / "config.json", "temperal_downsample", [False] * 199)
    assert "pixels a latent and 2 latents a patch do not divide 16" in refused(diffusers)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("model_type", 3, "model_type must be text, not 3"),
        ("text_config", None, "key 'text_config' is missing"),
        ("text_config", "qwen", "text_config must be an object, not 'qwen'"),
        ("vision_config", [], "vision_config must be an object, not a list"),
        ("text_config.num_hidden_layers", 10**7, "text_config.num_hidden_layers must be a whole number from 1 to 1000"),
        ("text_config.num_hidden_layers", 900, "too few for the 903 layers"),
        ("text_config.hidden_size", 10**9, "text_config.hidden_size must be a whole number from 1 to 65536"),
        ("text_config.intermediate_size", 1 << 60, "text_config.intermediate_size must be a whole number from 1 to"),
        ("text_config.vocab_size", 10**12, "text_config.vocab_size must be a whole number from 1 to 10000000"),
        ("text_config.head_dim", 23, "text_config.head_dim 23 is odd"),
        ("text_config.num_key_value_heads", 3, "num_attention_heads 4 is not a multiple of 3 key and value heads"),
        ("text_config.num_attention_heads", 0, "num_attention_heads must be a whole number from 1 to 1024, not 0"),
        ("text_config.rms_norm_eps", NAN, "text_config.rms_norm_eps must be a number from 0 to 1, not nan"),
        ("text_config.hidden_act", "no such thing", "not a usable Qwen3-VL config ("),
        ("text_config.hidden_act", {"a": 1}, "text_config.hidden_act must be text, not an object"),
        ("text_config.attention_bias", 1, "text_config.attention_bias must be true or false, not 1"),
        ("text_config.rope_parameters", 5, "text_config.rope_parameters must be an object, not 5"),
        ("text_config.rope_parameters.rope_theta", NAN, "rope_parameters.rope_theta must be a number from 1 to 1e+12"),
        ("text_config.rope_parameters.rope_type", "yarn", "text encoder with rope_type 'yarn' is not supported"),
        ("text_config.rope_parameters.type", "dynamic", "text encoder with type 'dynamic' is not supported"),
        ("text_config.rope_parameters.mrope_section", [4, 4], "mrope_section must be a list of 3 whole numbers"),
        ("text_config.rope_parameters.mrope_section", [10**9] * 3, "from 0 to 4096, not 1000000000 in the list"),
        ("vision_config.depth", 10**7, "vision_config.depth must be a whole number from 1 to 1000, not 10000000"),
        ("vision_config.in_channels", 4, "vision_config.in_channels must be 3, not 4"),
        ("vision_config.num_heads", 3, "hidden_size 32 does not give 3 heads of a multiple of 4 channels"),
        ("vision_config.num_position_embeddings", 1 << 50, "num_position_embeddings must be a whole number from 1 to"),
        ("vision_config.deepstack_visual_indexes", [0, 99], "a list of whole numbers from 0 to 2, not 99 in the list"),
        ("vision_config.deepstack_visual_indexes", [1, 1], "deepstack_visual_indexes names a layer twice"),
        ("vision_config.out_hidden_size", 64, "out_hidden_size 64 differs from text_config.hidden_size 48"),
        ("vision_config.spatial_merge_size", 0, "spatial_merge_size must be a whole number from 1 to 16, not 0"),
        ("vision_config.patch_size", NAN, "vision_config.patch_size must be a whole number from 1 to 256, not nan"),
        ("image_token_id", -1, "image_token_id must be a whole number from 0 to"),
        ("image_token_id", 10**9, "image_token_id must be a whole number from 0 to"),
    ],
)
def test_the_text_encoders_config(diffusers: Path, refused: Refused, key: str, value: Any, rule: str) -> None:
    change(diffusers / "text_encoder" / "config.json", key, value)
    assert rule in refused(diffusers)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_labels", 10**9),
        ("text_config.num_labels", 10**9),
        ("text_config.dtype", "float99"),
        ("torch_dtype", ["x"]),
        ("text_config.pad_token_id", 10**9),
        ("attn_implementation", "somebody/kernels"),
        ("_attn_implementation_internal", "somebody/kernels"),
        ("quantization_config", {"quant_method": "gptq"}),
        ("auto_map", {"AutoConfig": "evil.Config"}),
        ("vision_config.initializer_range", NAN),
        ("hidden_size", {}),
        ("id2label", 5),
        ("forward", 1),
    ],
)
def test_keys_of_the_text_encoder_that_shape_no_network_change_nothing(diffusers: Path, key: str, value: Any) -> None:
    change(diffusers / "text_encoder" / "config.json", key, value)
    load_backend(RunConfig(output=Path("unused"), model=str(diffusers))).close()


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("shift", NAN, "shift must be a number from 0.001 to 1000, not nan"),
        ("shift", 0, "shift must be a number from 0.001 to 1000, not 0"),
        ("shift", "1", "shift must be a number from 0.001 to 1000, not '1'"),
        ("shift", 10**400, "shift must be a number from 0.001 to 1000, not a huge number"),
        ("use_karras_sigmas", True, "scheduler option use_karras_sigmas is not supported"),
        ("invert_sigmas", True, "scheduler option invert_sigmas is not supported"),
        ("shift_terminal", 0.1, "scheduler option shift_terminal is not supported"),
        ("stochastic_sampling", True, "scheduler option stochastic_sampling is not supported"),
    ],
)
def test_the_schedulers_config(diffusers: Path, refused: Refused, key: str, value: Any, rule: str) -> None:
    change(diffusers / "scheduler" / "scheduler_config.json", key, value)
    assert refused(diffusers) == f"CKPT/scheduler/scheduler_config.json: {rule}"


@pytest.mark.parametrize("value", [5, ["JoyImageEditPlusPipeline"], "\ud800", "x" * 2000])
def test_the_name_of_the_pipeline(diffusers: Path, refused: Refused, value: Any) -> None:
    change(diffusers / "model_index.json", "_class_name", value)
    assert refused(diffusers).startswith("CKPT/model_index.json: _class_name ")
    checkpoint_defaults(str(diffusers))


CONFIGS = (
    "model_index.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json",
    "scheduler/scheduler_config.json", "text_encoder/model.safetensors.index.json", "tokenizer/tokenizer_config.json",
    "processor/preprocessor_config.json",
)  # fmt: skip
TEXTS = {
    "nothing": (b"", "not JSON ("),
    "a list": (b"[]", "must be a JSON object"),
    "a number": (b"3", "must be a JSON object"),
    "cut": (b'{"a": [1, 2', "not JSON ("),
    "no UTF-8": (b'{"a": "\xff\xfe"}', "not UTF-8 text (invalid start byte at byte 7)"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "not JSON (Unexpected UTF-8 BOM"),
    "deep": (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "not JSON (nested too deeply)"),
    "deep objects": (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "not JSON (nested too deeply)"),
    "an endless number": (b'{"a": ' + b"9" * 5000 + b"}", "not JSON ("),
    "a key twice": (b'{"a\\u001b": 1, "a\\u001b": 2}', "not JSON (the key 'a\\\\x1b' is there twice)"),
    "NUL": (b"\0" * 1000, "not JSON ("),
}


@pytest.mark.parametrize(("name", "text"), sampled(CONFIGS, TEXTS))
def test_a_text_that_is_no_config(diffusers: Path, refused: Refused, name: str, text: str) -> None:
    content, reason = TEXTS[text]
    put(diffusers / name, content)
    assert f"CKPT/{name}: {reason}" in refused(diffusers)


@pytest.mark.parametrize(("name", "kind"), sampled(CONFIGS, KINDS))
def test_something_else_under_the_name_of_a_config(diffusers: Path, refused: Refused, name: str, kind: str) -> None:
    put_kind(diffusers / name, kind)
    message = refused(diffusers)
    assert message.startswith(f"CKPT/{name.rpartition('/')[0]}".rstrip("/"))
    assert any(word in message for word in ("not a regular file", "is not there", "cannot be read")), message


@pytest.mark.parametrize("name", CONFIGS[::3])
def test_a_config_of_a_gigabyte(diffusers: Path, refused: Refused, name: str) -> None:
    put(diffusers / name, "")
    with open(diffusers / name, "r+b") as file:
        file.truncate(1 << 30)  # a hole: it takes no room
    assert f"CKPT/{name}: is larger than " in refused(diffusers)


def test_an_index_of_very_many_tensors(diffusers: Path, refused: Refused) -> None:
    index = diffusers / "text_encoder" / "model.safetensors.index.json"
    shard = next((diffusers / "text_encoder").glob("*.safetensors")).name
    put(index, json.dumps({"weight_map": {f"layer.\x1b{n}": shard for n in range(100_000)}}))
    message = refused(diffusers)
    assert message.startswith("CKPT/text_encoder/")
    assert "100000 tensors that the index names are not in its shards, the first is layer.\\x1b0;" in message


@pytest.mark.parametrize("name", ["transformer", "vae", "text_encoder", "processor"])
def test_a_file_in_place_of_a_folder(diffusers: Path, refused: Refused, name: str) -> None:
    shutil.rmtree(diffusers / name)
    put(diffusers / name, b"no folder")
    assert refused(diffusers).startswith(("CKPT/", "CKPT: 1 file is missing", "CKPT: 2 files are missing"))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"steps": 1000000000}', "steps must be a whole number from 1 to 1000, not 1000000000"),
        ('{"steps": NaN}', "steps must be a whole number from 1 to 1000, not nan"),
        ('{"steps": true}', "steps must be a whole number from 1 to 1000, not true"),
        ('{"steps": 12.5}', "steps must be a whole number from 1 to 1000, not 12.5"),
        ('{"guidance_scale": NaN}', "guidance_scale must be a number from 0 to 100, not nan"),
        ('{"guidance_scale": Infinity}', "guidance_scale must be a number from 0 to 100, not inf"),
        ('{"guidance_scale": 1e999}', "guidance_scale must be a number from 0 to 100, not inf"),
        ('{"guidance_scale": -1}', "guidance_scale must be a number from 0 to 100, not -1"),
        ('{"guidance_scale": true}', "guidance_scale must be a number from 0 to 100, not true"),
        (f'{{"guidance_scale": {"9" * 400}}}', "guidance_scale must be a number from 0 to 100, not a huge number"),
        (f'{{"steps": {"9" * 5000}}}', "not JSON (Exceeds the limit"),
        ('{"basesize": true}', "basesize must be a whole number from 1 to 1024, not true"),
        ('{"basesize": 300}', "basesize must be one of 256, 512, 768, 1024, not 300"),
        ('{"basesize": [256]}', "basesize must be a whole number from 1 to 1024, not a list"),
        (
            '{"negative_prompt": "\\ud800"}',
            "negative_prompt must be text without NUL and lone surrogates, not '\\ud800'",
        ),
        ('{"negative_prompt": "\\u0000"}', "negative_prompt must be text without NUL and lone surrogates, not '\\x00'"),
        ('{"negative_prompt": 5}', "negative_prompt must be text, not 5"),
        (f'{{"negative_prompt": "{"x" * 30_000}"}}', "negative_prompt is 30000 characters long, 20000 are allowed"),
        ('{"steps": 3, "steps": 4}', "not JSON (the key 'steps' is there twice)"),
        (
            '{"\\u001b[31m\\n": 4}',
            "unknown key '\\x1b[31m\\n' (valid: basesize, steps, guidance_scale, negative_prompt, sigmas)",
        ),
        ("[" * 100_000, "not JSON (nested too deeply)"),
        ("x" * (2 << 20), "is larger than 1 MiB, which no such file needs"),
    ],
)
def test_the_defaults_of_a_checkpoint(diffusers: Path, text: str, rule: str) -> None:
    put(diffusers / "joyedit.json", text)
    with pytest.raises(CheckpointError) as caught:
        checkpoint_defaults(str(diffusers))
    assert str(caught.value).startswith(f"{diffusers}/joyedit.json: {rule}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", KINDS)
def test_something_else_under_the_name_of_the_defaults(diffusers: Path, kind: str) -> None:
    put_kind(diffusers / "joyedit.json", kind)
    with pytest.raises(CheckpointError, match=r"joyedit\.json: "):
        checkpoint_defaults(str(diffusers))


def test_defaults_through_a_link(diffusers: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").write_text('{"steps": 1000, "guidance_scale": 100, "negative_prompt": null}')
    (diffusers / "joyedit.json").symlink_to(tmp_path / "blob")
    assert checkpoint_defaults(str(diffusers)).steps == 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["model_index.json", "transformer/config.json"])
def test_the_layout_of_a_folder_of_other_things(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "transformer").mkdir()
    put_kind(tmp_path / name, kind)
    with pytest.raises(CheckpointError, match=f"{name}: "):
        detect(tmp_path)
