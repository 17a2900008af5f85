"""Single files of ComfyUI and GGUF, and parts that are named one by one: what is recognised, and what is told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from joyedit.errors import CheckpointError, UsageError
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import Settings
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.runtime.model import describe_without_loading, model_settings
from joyedit.weights import hub_tokenizer, prompt_sources
from joyedit.weights.find import detect
from joyedit.weights.layouts import open_checkpoint
from joyedit.weights.load import check
from joyedit.weights.locate import locate
from joyedit.weights.roles import held_by
from joyedit.weights.wanted import Wanted
from support import single_files as single
from support.checkpoints import write_original
from support.hostile import linked_copy, put, safetensors
from support.single_files import DIT, ENCODER, VAE, save, state_of

DIT_FILE = "diffusion_models/joyai_image_edit_bf16.safetensors"
ENCODER_FILE = "text_encoders/qwen3vl_8b_joyimage_edit_bf16.safetensors"
VAE_FILE = "vae/wan_2.1_vae.safetensors"


@pytest.fixture
def comfy(tmp_path: Path, comfy_checkpoint: Path) -> Path:
    return linked_copy(comfy_checkpoint, tmp_path / "comfy")


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has downloaded has no part in the tests."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def opened(model: Path | None = None, **parts: Any) -> Any:
    """A checkpoint whose names and shapes are checked."""
    named = {name: str(path) for name, path in parts.items()}
    checkpoint = open_checkpoint(locate(Wanted(model=None if model is None else str(model), **named)))
    check(checkpoint.components, checkpoint.layout)
    return checkpoint


def refused(folder: Path | None = None, error: type[Exception] = CheckpointError, **parts: Any) -> list[str]:
    """The lines of the one error, with `folder` as CKPT."""
    with pytest.raises(error) as caught:
        opened(folder, **parts)
    text = str(caught.value)
    assert all(one.isprintable() or one == "\n" for one in text)
    return (text if folder is None else text.replace(str(folder), "CKPT")).splitlines()


def test_what_is_taken_from_where(comfy: Path) -> None:
    checkpoint = opened(comfy)
    assert (checkpoint.layout, checkpoint.schedule, checkpoint.shift) == ("single files", "original", 1.5)
    assert checkpoint.tokenizer_folder == comfy
    assert checkpoint.processor_folder is None
    assert not checkpoint.edit_plus
    config = checkpoint.text_encoder.config
    assert config.vision_config.deepstack_visual_indexes == [8, 16, 24]
    assert config.text_config.num_key_value_heads == 1


def test_only_the_places_that_are_named_are_looked_at(tmp_path: Path, comfy_checkpoint: Path) -> None:
    deep = tmp_path / "deep"
    shutil.copytree(comfy_checkpoint, deep / "other")
    assert refused(deep)[0].startswith("CKPT: no known checkpoint layout.")
    (deep / "models").mkdir()
    (deep / "models" / "more").symlink_to(comfy_checkpoint)
    assert refused(deep)[0].startswith("CKPT: no known checkpoint layout.")
    (deep / "models" / "more").unlink()
    (deep / "models").rmdir()
    (deep / "models").symlink_to(comfy_checkpoint)
    assert detect(deep) == "single files"


def test_models_of_other_kinds_beside_them(comfy: Path) -> None:
    """A folder of ComfyUI holds many models."""
    other = {"double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 4), "img_in.weight": torch.zeros(4, 4)}
    save(comfy / "diffusion_models" / "flux.safetensors", other)
    save(comfy / "vae" / "ae.safetensors", {"decoder.conv_in.weight": torch.zeros(1)})
    save(comfy / "text_encoders" / "clip.safetensors", {"text_model.embeddings.position_ids": torch.zeros(1)})
    put(comfy / "vae" / "torn.safetensors", b"\x20")
    put(comfy / "diffusion_models" / "readme.txt", "x")
    put(comfy / "diffusion_models" / ".hidden.safetensors", "x")
    (comfy / "diffusion_models" / "folder.safetensors").mkdir()
    assert opened(comfy).layout == "single files"


def test_everything_that_is_missing_is_told_at_once(comfy: Path) -> None:
    for name in (ENCODER_FILE, VAE_FILE, "tokenizer_config.json"):
        (comfy / name).unlink()
    put(comfy / "vae" / "torn.safetensors", b"\x20")
    lines = refused(comfy)
    assert lines[0] == "CKPT: 3 files are missing"
    assert lines[1].startswith("the tokenizer: such files bring none. Name a folder that holds tokenizer.json and")
    assert lines[2].startswith("text encoder: such as qwen3vl_8b_joyimage_edit_bf16.safetensors, in the folder,")
    assert lines[3].startswith("vae: such as wan_2.1_vae.safetensors, in the folder")
    assert lines[4] == "these files could not be read:"
    assert lines[5].startswith("CKPT/vae/torn.safetensors: not a complete safetensors file")
    assert lines[6] == "name what lies elsewhere with --encoder FILE, --vae FILE"


def test_a_missing_shard_of_numbered_ones(comfy: Path, plain_checkpoint: Path) -> None:
    (comfy / DIT_FILE).unlink()
    save(comfy / "diffusion_models" / "joy-00001-of-00003.safetensors", state_of(plain_checkpoint, DIT))
    assert refused(comfy)[:3] == [
        "CKPT: 2 files are missing",
        "diffusion_models/joy-00002-of-00003.safetensors",
        "diffusion_models/joy-00003-of-00003.safetensors",
    ]


@pytest.mark.parametrize(
    ("role", "name"), [("dit", DIT_FILE), ("encoder", ENCODER_FILE), ("vae", VAE_FILE)], ids=["dit", "encoder", "vae"]
)
def test_two_candidates_of_one_part(comfy: Path, role: str, name: str) -> None:
    first, second = comfy / name, comfy / Path(name).with_name("another.safetensors")
    shutil.copy(first, second)
    lines = refused(comfy)
    assert lines[0].startswith("CKPT: 2 files hold ")
    assert lines[1:3] == sorted(f"CKPT/{path.relative_to(comfy).as_posix()}" for path in (first, second))
    assert lines[3] == f"name the one to take: --{role} {lines[1]}"
    assert opened(comfy, **{role: second}).components


def test_the_same_file_under_two_names_is_one(comfy: Path) -> None:
    (comfy / "diffusion_models" / "link.safetensors").symlink_to((comfy / DIT_FILE).resolve())
    assert opened(comfy).layout == "single files"


def test_a_text_encoder_of_another_width_is_no_candidate(comfy: Path) -> None:
    """The same model is published in several sizes."""
    narrow = {
        "model.visual.deepstack_merger_list.0.norm.weight": torch.zeros(8),
        "model.language_model.layers.0.self_attn.q_norm.weight": torch.zeros(8),
        "model.language_model.embed_tokens.weight": torch.zeros(5, 8),
    }
    save(comfy / "text_encoders" / "qwen3vl_4b.safetensors", narrow)
    assert opened(comfy).layout == "single files"


def test_what_joyedit_cannot_read_is_taken_only_where_nothing_else_is(comfy: Path, plain_checkpoint: Path) -> None:
    quantised = state_of(plain_checkpoint, DIT)
    name = "double_blocks.0.attn.img_attn_qkv"
    quantised[f"{name}.weight"] = quantised[f"{name}.weight"].to(torch.int8)
    quantised[f"{name}.weight_scale"] = torch.ones(len(quantised[f"{name}.weight"]), 1)
    mark = json.dumps({"format": "convrot_w4a4"}).encode()
    quantised[f"{name}.comfy_quant"] = torch.tensor(list(mark), dtype=torch.uint8)
    save(comfy / "diffusion_models" / "joyai_image_edit_int4_convrot.safetensors", quantised)
    assert opened(comfy).layout == "single files"
    (comfy / DIT_FILE).unlink()
    (line,) = refused(comfy)
    assert line == (
        f"CKPT/diffusion_models/joyai_image_edit_int4_convrot.safetensors: {name}.comfy_quant is quantised as"
        " convrot_w4a4; joyedit reads weights in bf16, fp16, fp32, GGUF, and fp8 or int8 with one scale for a tensor or"
        " for each output channel: get such a file"
    )


def test_a_file_of_whole_numbers(comfy: Path, plain_checkpoint: Path) -> None:
    state = state_of(plain_checkpoint, DIT)
    name = "double_blocks.0.attn.img_attn_qkv"
    weight = state[f"{name}.weight"].float()
    scale = weight.abs().amax(1, keepdim=True) / 127
    state[f"{name}.weight"], state[f"{name}.weight_scale"] = (weight / scale).round().to(torch.int8), scale
    mark = json.dumps({"format": "int8_tensorwise"}).encode()
    state[f"{name}.comfy_quant"] = torch.tensor(list(mark), dtype=torch.uint8)
    (comfy / DIT_FILE).unlink()
    save(comfy / "diffusion_models" / "joyai_image_edit_int8.safetensors", state)
    checkpoint = opened(comfy)
    check(checkpoint.components, checkpoint.layout)


@pytest.mark.parametrize("with_files", [False, True])
def test_two_layouts_in_one_folder(tmp_path: Path, plain_checkpoint: Path, with_files: bool) -> None:
    folder = Path(shutil.copytree(plain_checkpoint, tmp_path / "both"))
    write_original(tmp_path / "original", plain_checkpoint)
    if with_files:
        single.write_comfy(folder, plain_checkpoint)
    shutil.copytree(tmp_path / "original", folder, dirs_exist_ok=True)
    lines = refused(folder)
    assert lines[0] == f"CKPT: holds {2 + with_files} layouts"
    assert lines[1:3] == ["diffusers: model_index.json", "original: transformer/transformer.pth"]
    assert lines[3:-1] == ([f"single files: {DIT_FILE}"] if with_files else [])
    assert lines[-1].endswith("or name each part: --dit PATH --encoder PATH --vae PATH")
    named = {"dit": folder / DIT, "encoder": folder / ENCODER, "vae": folder / VAE}
    assert opened(folder, **named).layout == "named parts"


def test_a_second_transformer_beside_a_diffusers_folder(tmp_path: Path, plain_checkpoint: Path) -> None:
    folder = linked_copy(plain_checkpoint, tmp_path / "repo")
    single.write_comfy(folder, plain_checkpoint, "split_files")
    assert refused(folder)[:2] == ["CKPT: holds 2 layouts", "diffusers: model_index.json"]
    checkpoint = opened(folder, dit=folder / "split_files" / DIT_FILE)
    assert (checkpoint.layout, checkpoint.schedule) == ("diffusers", "diffusers")


def test_edit_plus_by_its_name(comfy: Path) -> None:
    """Its tensors are those of Edit."""
    plus = comfy / "diffusion_models" / "joyai_image_edit_plus_bf16.safetensors"
    (comfy / DIT_FILE).rename(plus)
    assert opened(comfy).edit_plus
    assert model_settings(Wanted(model=str(comfy))) == Settings(steps=30, negative_prompt=" ")
    parts = {"dit": str(plus), "encoder": str(comfy / ENCODER_FILE), "vae": str(comfy / VAE_FILE)}
    assert model_settings(Wanted(**parts)) == Settings(steps=30, negative_prompt=" ")
    assert model_settings(Wanted(**parts | {"vae": "nowhere"})) == Settings()
    plus.rename(comfy / DIT_FILE)
    assert model_settings(Wanted(model=str(comfy))) == Settings()


def test_own_settings_of_a_folder_of_single_files(comfy: Path) -> None:
    put(comfy / "joyedit.json", '{"steps": 7}')
    assert model_settings(Wanted(model=str(comfy))) == Settings(steps=7)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"dit": "nowhere.safetensors"}, "--dit nowhere.safetensors: no such file or folder"),
        ({"encoder": "nowhere.gguf,other.gguf"}, "--encoder nowhere.gguf: no such file or folder"),
        ({"vae": "~joyedit-nobody/x"}, "--vae ~joyedit-nobody/x: no such file or folder"),
        ({"tokenizer": "nowhere"}, "--tokenizer nowhere: no such folder"),
        ({"tokenizer": "."}, "--tokenizer .: holds no tokenizer (it lacks tokenizer_config.json, tokenizer.json)"),
    ],
)
def test_names_that_lead_nowhere(
    comfy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: dict[str, str], reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert refused(comfy, UsageError, **parts) == [reason]


def test_a_file_of_another_network(comfy: Path, tmp_path: Path) -> None:
    assert refused(comfy, dit=comfy / VAE_FILE) == [
        f"--dit CKPT/{VAE_FILE}: its tensors are those of a VAE, not of a transformer (DiT)"
    ]
    other = save(tmp_path / "other.safetensors", {"x": torch.zeros(1)})
    (line,) = refused(comfy, vae=other)
    assert line.endswith("other.safetensors: its tensors are those of another network, not of a VAE")
    (line,) = refused(comfy, vae=comfy / "text_encoders")
    assert line == "--vae CKPT/text_encoders: holds no file of a VAE"
    two = f"{comfy / ENCODER_FILE},{comfy / ENCODER_FILE}"
    assert refused(comfy, encoder=two) == [
        "--encoder: give one file of text encoder, and at most one of its vision tower"
    ]


def test_a_folder_with_a_configuration_and_no_weights(comfy: Path, tmp_path: Path, plain_checkpoint: Path) -> None:
    (tmp_path / "dit").mkdir()
    shutil.copy(plain_checkpoint / DIT / "config.json", tmp_path / "dit")
    lines = refused(comfy, dit=tmp_path / "dit")
    assert lines == ["CKPT: 1 file is missing", str(tmp_path / "dit" / "diffusion_pytorch_model.safetensors")]


def test_named_parts_need_a_tokenizer(comfy: Path, tmp_path: Path, plain_checkpoint: Path) -> None:
    parts = {"dit": comfy / DIT_FILE, "encoder": comfy / ENCODER_FILE, "vae": comfy / VAE_FILE}
    assert opened(**parts).tokenizer_folder == comfy  # the folder above that of the text encoder
    (comfy / "tokenizer_config.json").unlink()
    lines = refused(**parts)
    assert lines[0] == "the model: 1 file is missing"
    assert lines[1].startswith("the tokenizer: such files bring none.")
    assert "hf download jdopensource/JoyAI-Image-Edit-Diffusers --include 'tokenizer/*' 'processor/*'" in lines[1]
    for given in (plain_checkpoint, plain_checkpoint / "tokenizer"):
        checkpoint = opened(**parts, tokenizer=given)
        assert checkpoint.tokenizer_folder == plain_checkpoint / "tokenizer"
        assert (checkpoint.processor_folder is None) == (given != plain_checkpoint)


def test_a_tokenizer_in_the_cache_of_the_hub(comfy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache" / "models--Qwen--Qwen3-VL-8B-Instruct"
    snapshot = folder / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        os.rename(comfy / name, snapshot / name)
    import huggingface_hub

    real = huggingface_hub.try_to_load_from_cache
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda repo, name: real(repo, name, cache_dir=tmp_path / "cache"),
    )
    assert opened(comfy).tokenizer_folder == snapshot
    (snapshot / "merges.txt").unlink()
    assert refused(comfy)[0] == "CKPT: 1 file is missing"
    (snapshot / "tokenizer_config.json").unlink()
    (snapshot / "tokenizer_config.json").symlink_to("nowhere")
    assert refused(comfy)[0] == "CKPT: 1 file is missing"


def test_a_tokenizer_from_the_hub(comfy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hub" / "tokenizer").mkdir(parents=True)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        os.rename(comfy / name, tmp_path / "hub" / "tokenizer" / name)
    asked: list[tuple[str, list[str]]] = []

    def snapshot_download(repo: str, allow_patterns: list[str]) -> str:
        asked.append((repo, allow_patterns))
        if len(asked) == 1:
            raise ConnectionError("no network")
        return str(tmp_path / "hub" / "tokenizer")

    monkeypatch.setattr(hub_tokenizer, "_asked", {})
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refused(comfy)[0] == "CKPT: 1 file is missing"
    assert not asked
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert opened(comfy).tokenizer_folder == tmp_path / "hub" / "tokenizer"
    assert opened(comfy).tokenizer_folder == tmp_path / "hub" / "tokenizer"
    assert [repo for repo, _ in asked] == ["jdopensource/JoyAI-Image-Edit-Diffusers", "Qwen/Qwen3-VL-8B-Instruct"]
    assert all(not pattern.endswith(".safetensors") and pattern != "*" for _, names in asked for pattern in names)


def test_a_description_downloads_nothing(comfy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (comfy / "tokenizer_config.json").unlink()
    monkeypatch.setattr(prompt_sources, "fetch_tokenizer", lambda: pytest.fail("a download"))
    found = prompt_sources.prompt_folders(locate(Wanted(model=str(comfy))), may_fetch=False)
    assert found.tokenizer is None
    assert len(found.absent) == 1


def test_the_weights_of_named_parts_are_not_downloaded(monkeypatch: pytest.MonkeyPatch, comfy: Path) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(repo: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked[repo] = ignore_patterns
        return str(comfy)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert opened(Path("own/er"), dit=comfy / DIT_FILE).layout == "single files"
    assert asked == {"own/er": ["transformer/*.safetensors", "transformer/*.pth"]}


def test_what_shapes_do_not_tell(comfy: Path, plain_checkpoint: Path) -> None:
    state = state_of(plain_checkpoint, ENCODER)
    short = {name: tensor for name, tensor in state.items() if ".visual.blocks.26." not in name}
    put(comfy / ENCODER_FILE, b"")
    save(comfy / ENCODER_FILE, short)
    (line,) = refused(comfy)
    assert line.startswith(
        f"CKPT/{ENCODER_FILE}: the size of the text encoder cannot be read from its tensors: the layers"
    )
    assert line.endswith("a vision tower of 26 layers; give a folder with the text encoder's config.json")
    del state["model.language_model.layers.0.self_attn.k_proj.weight"]
    save(comfy / ENCODER_FILE, state)
    assert "cannot be read from its tensors: model.language_model.layers.0.self_attn.k_proj" in refused(comfy)[0]


def test_heads_without_known_sections(comfy: Path, diffusers_checkpoint: Path) -> None:
    """The other tiny text encoder has heads of 24 channels."""
    state = state_of(diffusers_checkpoint, ENCODER)
    save(comfy / "text_encoders" / "other.safetensors", state)
    (line,) = refused(comfy, encoder=comfy / "text_encoders" / "other.safetensors")
    assert "rotary sections of heads of 24 channels are not known; give a folder with config.json" in line
    assert opened(comfy, encoder=diffusers_checkpoint / ENCODER).components


def test_strange_tensors_are_told_with_the_names_of_the_file(comfy: Path, plain_checkpoint: Path) -> None:
    dit = single.prefixed(state_of(plain_checkpoint, DIT), "model.diffusion_model.")
    del dit["model.diffusion_model.proj_out.bias"]
    dit["model.diffusion_model.extra.weight"] = torch.zeros(1)
    put(comfy / DIT_FILE, b"")
    save(comfy / DIT_FILE, dit)
    lines = refused(comfy)
    assert lines[0] == "the checkpoint was recognised as the single files layout, but its tensors differ:"
    assert lines[1:] == [
        f"transformer (CKPT/{DIT_FILE}):",
        "  1 missing: proj_out.bias",
        "  1 unexpected: model.diffusion_model.extra.weight",
    ]


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"img_in.weight": 3}',
        b'{"img_in.weight": {"dtype": "F32", "shape": "x"}}',
        b'{"img_in.weight": {"dtype": "F32", "shape": [1.5]}}',
        b"[" * 100_000,
    ],
)
def test_a_broken_header(comfy: Path, header: bytes) -> None:
    put(comfy / DIT_FILE, safetensors(header))
    lines = refused(comfy)
    assert lines[0] == "CKPT: 1 file is missing"
    assert any(line.startswith(f"CKPT/{DIT_FILE}: not a complete safetensors file") for line in lines)
    (line,) = refused(comfy, dit=comfy / DIT_FILE)
    assert line.startswith(f"CKPT/{DIT_FILE}: not a complete safetensors file")


def test_a_pickle_as_a_single_file(comfy: Path, plain_checkpoint: Path) -> None:
    (comfy / VAE_FILE).unlink()
    torch.save(single.wan_vae(state_of(plain_checkpoint, VAE)), comfy / "vae" / "Wan2.1_VAE.pth")
    assert opened(comfy).layout == "single files"


def test_the_identity_of_what_is_used(comfy: Path, tmp_path: Path, plain_checkpoint: Path) -> None:
    def identity(model: Path | None = None, **parts: Any) -> str:
        named = {name: str(path) for name, path in parts.items()}
        config = RunConfig(output=Path("o"), model=None if model is None else str(model), **named)
        info = describe_without_loading(config)
        assert str(tmp_path) not in info.model or not named
        return info.identity

    first = identity(comfy)
    put(comfy / "diffusion_models" / "readme.txt", "other files have no part in it")
    save(comfy / "vae" / "another_model.safetensors", {"x": torch.zeros(1)})
    (comfy / VAE_FILE).rename(comfy / "vae" / "renamed.safetensors")
    assert identity(comfy) == first
    parts = {"dit": comfy / DIT_FILE, "encoder": comfy / ENCODER_FILE, "vae": comfy / "vae" / "renamed.safetensors"}
    assert identity(**parts) == first
    seen = {first}
    changed = {name: tensor + 1 for name, tensor in state_of(plain_checkpoint, VAE).items()}
    seen.add(identity(comfy, vae=save(tmp_path / "other.safetensors", changed)))
    seen.add(identity(plain_checkpoint))
    seen.add(identity(plain_checkpoint, dit=comfy / DIT_FILE))
    seen.add(identity(plain_checkpoint, tokenizer=comfy))
    put(comfy / "tokenizer_config.json", (comfy / "tokenizer_config.json").read_text() + " ")
    seen.add(identity(comfy))
    assert len(seen) == 6


def test_what_records_call_the_model(tmp_path: Path) -> None:
    """No folder of this machine stands in pictures and records, where parts are named."""
    assert Wanted(model="nano").label == "nano"
    assert (
        Wanted(dit="/a/x.gguf", encoder="/b/t.gguf,/b/m.gguf", vae="v").label
        == "dit x.gguf, encoder t.gguf,m.gguf, vae v"
    )
    (tmp_path / "Edit").mkdir()
    assert Wanted(model=str(tmp_path / "Edit"), vae="/c/v.pth").label == "Edit with vae v.pth"
    assert Wanted(model="own/er", tokenizer="/t/tok").label == "own/er with tokenizer tok"


def test_a_loaded_model_has_the_label(comfy: Path) -> None:
    config = RunConfig(output=Path("o"), model=str(comfy), vae=str(comfy / VAE_FILE))
    assert load_backend(config).info.model == "comfy with vae wan_2.1_vae.safetensors"


def test_names_that_tell_nothing() -> None:
    assert held_by(["a", "b.weight"]) is None
    assert held_by([]) is None
    assert held_by(["double_blocks.0.img_attn_qkv.lora_A.weight"]) is None


def test_the_header_of_many_dimensions(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(*[1] * 20)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="a tensor of a strange shape"):
        opened(None, dit=tmp_path / "x.safetensors", encoder="x", vae="y")


def test_all_parts_named_beside_a_folder_for_the_rest(comfy: Path, plain_checkpoint: Path) -> None:
    """Tokenizer, image processor and schedule are those of --model."""
    parts = {"dit": comfy / DIT_FILE, "encoder": comfy / ENCODER_FILE, "vae": comfy / VAE_FILE}
    checkpoint = opened(plain_checkpoint, **parts)
    assert (checkpoint.layout, checkpoint.schedule) == ("named parts", "diffusers")
    assert checkpoint.tokenizer_folder == plain_checkpoint / "tokenizer"
    assert checkpoint.processor_folder == plain_checkpoint / "processor"


def test_the_identity_of_what_is_not_all_there(comfy: Path) -> None:
    (comfy / "merges.txt").unlink()
    config = RunConfig(output=Path("o"), model=str(comfy))
    with pytest.raises(CheckpointError, match=r"1 file is missing\nthe tokenizer"):
        describe_without_loading(config, may_fetch=False)
