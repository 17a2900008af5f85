"""Checkpoints on disk: both layouts load, and every kind of damage is told in one clear error."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from joyedit.errors import CheckpointError, UsageError
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import Settings
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.weights.defaults import checkpoint_defaults
from joyedit.weights.hub import resolve
from joyedit.weights.layouts import open_checkpoint
from joyedit.weights.load import check
from joyedit.weights.locate import locate
from joyedit.weights.wanted import Wanted
from support.checkpoints import write_original


def load(folder: Path, **options: Any) -> JoyImageBackend:
    return load_backend(RunConfig(output=Path("unused"), model=str(folder), **options))


def tensors(backend: JoyImageBackend) -> dict[str, torch.Tensor]:
    encoder = backend.text_encoder
    networks = {"dit": backend.dit, "vae": backend.vae, "text": encoder}
    return {f"{key}.{name}": p for key, net in networks.items() for name, p in net.named_parameters()}


@pytest.fixture
def broken(tmp_path: Path, diffusers_checkpoint: Path) -> Path:
    """A copy of the diffusers checkpoint that a test may damage."""
    return Path(shutil.copytree(diffusers_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def broken_original(tmp_path: Path, original_checkpoint: Path) -> Path:
    return Path(shutil.copytree(original_checkpoint, tmp_path / "checkpoint"))


def change(path: Path, by: Callable[[dict[str, torch.Tensor]], None]) -> None:
    state = load_file(path)
    by(state)
    save_file(state, path, metadata={"format": "pt"})


def refused(folder: Path) -> str:
    """The message of the one error that opening, checking or loading the checkpoint ends with."""
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(folder), "CKPT")


@pytest.mark.parametrize("wrapped", [True, False])
def test_both_layouts_give_the_same_networks(tmp_path: Path, diffusers_checkpoint: Path, wrapped: bool) -> None:
    original = write_original(tmp_path / "original", diffusers_checkpoint, wrapped)
    ours, theirs = load(diffusers_checkpoint), load(original)
    assert (ours.info.layout, theirs.info.layout) == ("diffusers", "original")
    mine, other = tensors(ours), tensors(theirs)
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_the_layout_asks_for_its_schedule(diffusers_checkpoint: Path, original_checkpoint: Path) -> None:
    assert load(diffusers_checkpoint).info.schedule == "diffusers"
    assert load(original_checkpoint).info.schedule == "original"
    assert load(original_checkpoint, schedule="diffusers").info.schedule == "diffusers"


def test_without_a_scheduler_config_the_schedule_is_the_authors(broken: Path) -> None:
    shutil.rmtree(broken / "scheduler")
    assert load(broken).info.schedule == "original"


def test_bf16_keeps_the_time_embedder_in_fp32(diffusers_checkpoint: Path) -> None:
    dtypes: dict[torch.dtype, set[str]] = {}
    for name, tensor in tensors(load(diffusers_checkpoint, dtype="bf16")).items():
        dtypes.setdefault(tensor.dtype, set()).add(name)
    assert set(dtypes) == {torch.bfloat16, torch.float32}
    assert all("time_embedder" in name for name in dtypes[torch.float32])
    assert len(dtypes[torch.float32]) == 4


def test_rotary_frequencies_are_those_of_a_normal_build(diffusers_checkpoint: Path) -> None:
    from transformers import Qwen3VLModel

    encoder = load(diffusers_checkpoint).text_encoder
    normal = Qwen3VLModel._from_config(encoder.config)
    theirs = dict(normal.named_buffers())
    ours = dict(encoder.model.named_buffers())
    assert [name for name in theirs if name.endswith("inv_freq") and "original" not in name]
    for name, buffer in ours.items():
        assert torch.equal(buffer, theirs[name])


def test_every_fault_of_every_network_is_told_at_once(broken: Path) -> None:
    def transformer(state: dict[str, torch.Tensor]) -> None:
        del state["proj_out.bias"]
        state["double_blocks.9.img_mod.modulate_table"] = torch.zeros(1)
        state["img_in.weight"] = torch.zeros(64, 8, 1, 2, 2)

    change(broken / "transformer" / "diffusion_pytorch_model.safetensors", transformer)
    change(broken / "vae" / "diffusion_pytorch_model.safetensors", lambda state: state.pop("quant_conv.bias"))  # type: ignore[arg-type, return-value]
    assert refused(broken) == (
        "the checkpoint was recognised as the diffusers layout, but its tensors differ:\n"
        "transformer (CKPT/transformer/diffusion_pytorch_model.safetensors):\n"
        "  1 missing: proj_out.bias\n"
        "  1 unexpected: double_blocks.9.img_mod.modulate_table\n"
        "  1 misshaped: img_in.weight is [64, 8, 1, 2, 2], expected [64, 64]\n"
        "vae (CKPT/vae/diffusion_pytorch_model.safetensors):\n"
        "  1 missing: quant_conv.bias"
    )


def test_nothing_is_read_before_everything_is_checked(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from joyedit.weights.files import SafetensorsFiles

    def read(self: SafetensorsFiles, device: torch.device) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(SafetensorsFiles, "read", read)
    change(broken / "vae" / "diffusion_pytorch_model.safetensors", lambda state: state.pop("quant_conv.bias"))  # type: ignore[arg-type, return-value]
    assert "1 missing: quant_conv.bias" in refused(broken)


def test_a_missing_shard(broken: Path) -> None:
    shards = sorted((broken / "text_encoder").glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    assert refused(broken).splitlines() == [
        "CKPT: 1 file is missing",
        f"text_encoder/{shards[1].name}",
        "if these are the published weights, this command fetches what is missing:",
        "hf download jdopensource/JoyAI-Image-Edit-Diffusers --local-dir CKPT",
    ]


def test_every_missing_file_is_told_at_once(broken: Path) -> None:
    shards = sorted((broken / "text_encoder").glob("model-*.safetensors"))
    for shard in shards:
        shard.unlink()
    (broken / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    lines = refused(broken).splitlines()
    assert lines[0] == f"CKPT: {len(shards) + 1} files are missing"
    assert lines[1:-2] == [
        *(f"text_encoder/{shard.name}" for shard in shards),
        "vae/diffusion_pytorch_model.safetensors",
    ]


def test_each_layout_has_a_command_of_its_own(edit_plus_checkpoint: Path, original_checkpoint: Path) -> None:
    for folder, repo in (
        (edit_plus_checkpoint, "jdopensource/JoyAI-Image-Edit-Plus-Diffusers"),
        (original_checkpoint, "jdopensource/JoyAI-Image-Edit"),
    ):
        copy = Path(shutil.copytree(folder, folder.parent / f"{folder.name} copy"))
        for path in copy.rglob("model*.safetensors"):
            path.unlink()
        assert f"hf download {repo} --local-dir 'CKPT'" in refused(copy)


def test_a_shard_that_lacks_what_the_index_says(broken: Path) -> None:
    shard = sorted((broken / "text_encoder").glob("model-*.safetensors"))[0]
    first = next(iter(load_file(shard)))
    change(shard, lambda state: state.pop(first))  # type: ignore[arg-type, return-value]
    assert f"1 tensors that the index names are not in its shards, the first is {first}" in refused(broken)


def test_an_index_that_leads_out_of_its_folder(broken: Path) -> None:
    index = broken / "text_encoder" / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"] = dict.fromkeys(raw["weight_map"], "../vae/diffusion_pytorch_model.safetensors")
    index.write_text(json.dumps(raw))
    assert "names a shard outside its folder" in refused(broken)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not JSON ("),
        ("{", "not JSON ("),
        ("[1]", "must be a JSON object"),
        ('{"weight_map": 3}', "not a safetensors index (it has no weight_map)"),
        ('{"weight_map": {"a": 3}}', "not a safetensors index (the name of a shard is no text)"),
    ],
)
def test_an_unreadable_index(broken: Path, content: str, reason: str) -> None:
    (broken / "text_encoder" / "model.safetensors.index.json").write_text(content)
    assert refused(broken).startswith(f"CKPT/text_encoder/model.safetensors.index.json: {reason}")


def test_a_truncated_file(broken: Path) -> None:
    path = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert refused(broken).startswith(
        "CKPT/transformer/diffusion_pytorch_model.safetensors: not a complete safetensors file"
    )


@pytest.mark.parametrize(
    "name", ["model_index.json", "transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"]
)
def test_a_pointer_of_git_lfs_in_place_of_a_file(broken: Path, name: str) -> None:
    (broken / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    assert refused(broken) == f"CKPT/{name}: it holds a pointer of Git LFS: run 'git lfs pull' in its repository"


def test_a_missing_config(broken: Path) -> None:
    (broken / "vae" / "config.json").unlink()
    assert refused(broken).splitlines()[:2] == ["CKPT: 1 file is missing", "vae/config.json"]


def test_a_config_without_a_key(broken: Path) -> None:
    path = broken / "transformer" / "config.json"
    raw = json.loads(path.read_text())
    del raw["hidden_size"]
    path.write_text(json.dumps(raw))
    assert refused(broken) == "CKPT/transformer/config.json: key 'hidden_size' is missing"


def test_networks_that_do_not_fit_each_other(broken: Path) -> None:
    path = broken / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"text_dim": 32}))
    assert refused(broken) == ("CKPT: the transformer takes text features of 32 channels, the text encoder makes 48")


def test_a_text_encoder_of_another_model(broken: Path) -> None:
    path = broken / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "llama"}))
    assert "text encoder of type 'llama', expected 'qwen3_vl'" in refused(broken)


def test_a_tokenizer_without_the_models_tokens(broken: Path) -> None:
    path = broken / "tokenizer" / "tokenizer_config.json"
    path.write_text(path.read_text().replace("<|vision_start|>", "<|vision_begin|>"))
    for name in ("special_tokens_map.json", "added_tokens.json", "tokenizer.json"):
        (broken / "tokenizer" / name).unlink(missing_ok=True)
    assert "cannot be used (the tokenizer has no token <|vision_start|>)" in refused(broken)


def test_the_authors_config_script_is_never_run(original_checkpoint: Path) -> None:
    script = original_checkpoint / "infer_config.py"
    assert "SystemExit" in script.read_text()
    load(original_checkpoint)  # the script would end this process


class Evil:
    """Pickled, it would write a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("raw", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, broken_original: Path, raw: bool) -> None:
    mark = tmp_path / "the pickle was run"
    path = broken_original / "transformer" / "transformer.pth"
    if raw:
        path.write_bytes(pickle.dumps({"model": Evil(mark)}))
    else:
        torch.save({"model": {"img_in.weight": torch.zeros(2), "x": Evil(mark)}}, path)
    message = refused(broken_original)
    assert message.startswith("CKPT/transformer/transformer.pth: ")
    assert "refused" in message or "not a readable PyTorch file" in message
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle at all", b"PK\x03\x04 torn"])
def test_an_unreadable_pickle(broken_original: Path, content: bytes) -> None:
    (broken_original / "transformer" / "transformer.pth").write_bytes(content)
    assert refused(broken_original).startswith("CKPT/transformer/transformer.pth: ")


def test_a_pickle_without_tensors(broken_original: Path) -> None:
    torch.save({"model": {"step": 3}}, broken_original / "transformer" / "transformer.pth")
    assert refused(broken_original) == "CKPT/transformer/transformer.pth: holds no state dict"


def test_a_pickle_of_another_network(broken_original: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, broken_original / "transformer" / "transformer.pth")
    reason = "the sizes of the networks cannot be read from its tensors: img_in.weight"
    assert f"recognised as the authors' layout, but {reason}" in refused(broken_original)


def test_faults_of_the_authors_layout_are_told_with_its_names(broken_original: Path) -> None:
    path = broken_original / "transformer" / "transformer.pth"
    state = torch.load(path, weights_only=True)
    state["model"]["double_blocks.0.img_attn_oops.weight"] = torch.zeros(1)
    torch.save(state, path)
    message = refused(broken_original)
    assert "recognised as the original layout" in message
    assert "1 unexpected: double_blocks.0.img_attn_oops.weight" in message


def test_two_vae_files(broken_original: Path) -> None:
    shutil.copy(broken_original / "vae" / "Wan2.1_VAE.pth", broken_original / "vae" / "second.pth")
    assert refused(broken_original) == "CKPT/vae: one .pth file is expected, found 2"


def test_a_folder_of_no_known_layout(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith("CKPT: no known checkpoint layout. A diffusers folder holds")
    (tmp_path / "diffusion_models").mkdir()
    (tmp_path / "diffusion_models" / "joy_image_edit_bf16.safetensors").touch()
    lines = refused(tmp_path).splitlines()
    assert lines[1] == "these files could not be read:"
    assert lines[2].startswith("CKPT/diffusion_models/joy_image_edit_bf16.safetensors: not a complete safetensors file")


@pytest.mark.parametrize("model", ["missing", "./a/b", "a/b/c", "~/x/y", "/nowhere/checkpoint"])
def test_a_model_that_is_no_folder_and_no_hub_id(model: str) -> None:
    with pytest.raises(UsageError, match="no such folder, and not a hub id"):
        resolve(model)


def test_a_file_as_the_model(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").touch()
    with pytest.raises(UsageError, match="is a file; give the checkpoint's folder"):
        resolve(str(tmp_path / "x.safetensors"))


def test_a_hub_id_goes_through_huggingface_hub(monkeypatch: pytest.MonkeyPatch, diffusers_checkpoint: Path) -> None:
    asked: list[str] = []

    def snapshot_download(repo: str, allow_patterns: list[str]) -> str:
        asked.append(repo)
        assert "*.safetensors" in allow_patterns
        assert "*.py" not in allow_patterns
        return str(diffusers_checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    checkpoint = open_checkpoint(locate(Wanted(model="owner/model")))
    check(checkpoint.components, checkpoint.layout)
    assert asked == ["owner/model"]


NOT_ASKED = r"^--model owner/model: no such folder here, it is not in .*, and HF_HUB_OFFLINE forbids the download; "


def test_a_hub_that_must_not_be_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=NOT_ASKED):
        resolve("owner/model")


def test_the_defaults_that_a_checkpoint_carries(broken: Path) -> None:
    assert checkpoint_defaults(str(broken)) == Settings()
    (broken / "joyedit.json").write_text('{"basesize": 256, "steps": 12, "guidance_scale": 2}')
    assert checkpoint_defaults(str(broken)) == Settings(basesize=256, steps=12, guidance_scale=2)
    assert checkpoint_defaults("owner/model") == Settings()


def test_edit_plus_has_defaults_of_its_own(edit_plus_checkpoint: Path) -> None:
    expected = Settings(steps=30, negative_prompt=" ")
    assert checkpoint_defaults(str(edit_plus_checkpoint)) == expected
    assert checkpoint_defaults("jdopensource/JoyAI-Image-Edit-Plus-Diffusers") == expected


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"stepz": 3}', '{"steps": true}', '{"steps": 0}', '{"basesize": 300}', '{"steps": "4"}']
)
def test_faulty_defaults_are_refused(broken: Path, content: str) -> None:
    (broken / "joyedit.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"joyedit\.json: "):
        checkpoint_defaults(str(broken))


def test_the_authors_layout_without_its_parts(broken_original: Path) -> None:
    shutil.rmtree(broken_original / "JoyAI-Image-Und")
    shutil.rmtree(broken_original / "vae")
    lines = refused(broken_original).splitlines()
    assert lines[:-2] == [
        "CKPT: 6 files are missing",
        "JoyAI-Image-Und/config.json",
        "JoyAI-Image-Und/model.safetensors",
        "vae/Wan2.1_VAE.pth",
        "JoyAI-Image-Und/tokenizer_config.json",
        "JoyAI-Image-Und/tokenizer.json",
        "JoyAI-Image-Und/preprocessor_config.json",
    ]
    assert lines[-1] == "hf download jdopensource/JoyAI-Image-Edit --local-dir CKPT"
