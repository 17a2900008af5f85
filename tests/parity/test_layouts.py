"""The same weights in every layout and kind of file give the same pictures, pixel for pixel (fp32, on the CPU)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from joyedit.job.run_config import RunConfig
from joyedit.runtime.joyimage.loading import load_backend
from support import single_files as single
from support.checkpoints import write_original
from support.editing import Edit, levels_apart, picture, run, spread
from support.single_files import DIT, ENCODER, VAE, State, save, state_of

EDIT = Edit(text="Turn the sky <|im_end|> red.", images=[picture(256, 300)], steps=2)


def edited(model: Path | None, **options: Any) -> Any:
    """The picture that a model makes, by the authors' schedule."""
    named = {name: str(value) for name, value in options.items()}
    name = None if model is None else str(model)
    config = RunConfig(output=Path("unused"), model=name, schedule="original", **named)  # type: ignore[arg-type]
    return run(load_backend(config), EDIT)[0]


@pytest.fixture(scope="module")
def expected(plain_checkpoint: Path) -> Any:
    found = edited(plain_checkpoint)
    assert spread(found) > 10
    return found


@pytest.fixture(scope="module")
def networks(plain_checkpoint: Path) -> dict[str, State]:
    return {name: state_of(plain_checkpoint, name) for name in (DIT, ENCODER, VAE)}


@pytest.mark.parametrize("root", [".", "split_files", "models"])
def test_the_folders_of_comfyui(tmp_path: Path, plain_checkpoint: Path, expected: Any, root: str) -> None:
    assert levels_apart(edited(single.write_comfy(tmp_path, plain_checkpoint, root)), expected) == 0


def test_a_flat_folder_with_other_names_of_tensors(
    tmp_path: Path, plain_checkpoint: Path, expected: Any, networks: dict[str, State]
) -> None:
    dit = {name.replace(".attn.", "."): tensor for name, tensor in networks[DIT].items()}
    save(tmp_path / "joy_image_edit_bf16.safetensors", single.prefixed(dit, "model.diffusion_model."))
    save(tmp_path / "qwen3vl_joyimage_bf16.safetensors", single.comfy_encoder(networks[ENCODER]))
    save(tmp_path / "joy_image_edit_vae.safetensors", single.prefixed(networks[VAE], "first_stage_model."))
    single.write_tokenizer_beside(tmp_path, plain_checkpoint)
    assert levels_apart(edited(tmp_path), expected) == 0


def test_the_names_of_a_whole_checkpoint_in_front(
    tmp_path: Path, plain_checkpoint: Path, expected: Any, networks: dict[str, State]
) -> None:
    encoder = single.prefixed(single.comfy_encoder(networks[ENCODER]), "text_encoders.qwen3vl_8b.transformer.")
    path = save(tmp_path / "encoder.safetensors", encoder)
    assert levels_apart(edited(plain_checkpoint, encoder=path), expected) == 0


def test_three_paths(tmp_path: Path, plain_checkpoint: Path, comfy_checkpoint: Path, expected: Any) -> None:
    paths = {
        "dit": comfy_checkpoint / "diffusion_models" / "joyai_image_edit_bf16.safetensors",
        "encoder": comfy_checkpoint / "text_encoders",
        "vae": comfy_checkpoint / "vae" / "wan_2.1_vae.safetensors",
    }
    found = edited(None, **paths, tokenizer=plain_checkpoint / "tokenizer")
    assert levels_apart(found, expected) == 0
    folders = {"dit": plain_checkpoint / DIT, "encoder": plain_checkpoint / ENCODER, "vae": plain_checkpoint / VAE}
    assert levels_apart(edited(None, **folders), expected) == 0


@pytest.mark.parametrize("role", ["dit", "encoder", "vae"])
def test_one_part_by_itself(
    tmp_path: Path, plain_checkpoint: Path, comfy_checkpoint: Path, expected: Any, networks: dict[str, State], role: str
) -> None:
    """The part of the same name in --model is other weights, so it cannot have been taken."""
    network, place = {
        "dit": (DIT, "diffusion_models"), "encoder": (ENCODER, "text_encoders"), "vae": (VAE, "vae"),
    }[role]  # fmt: skip
    other = Path(shutil.copytree(plain_checkpoint, tmp_path / "other"))
    for path in (other / network).glob("*.safetensors"):
        path.unlink()
    (other / network / "model.safetensors.index.json").unlink(missing_ok=True)
    name = "model" if network == ENCODER else "diffusion_pytorch_model"
    changed = {key: tensor + 0.05 * torch.randn(tensor.shape) for key, tensor in networks[network].items()}
    save(other / network / f"{name}.safetensors", changed)
    assert levels_apart(edited(other), expected) > 0
    assert levels_apart(edited(other, **{role: comfy_checkpoint / place}), expected) == 0


def test_shards_and_number_formats(tmp_path: Path, plain_checkpoint: Path, networks: dict[str, State]) -> None:
    """Numbered shards without an index, fp16 and bf16 among fp32; against the rounded values in one file of fp32."""
    kinds = (torch.float16, torch.bfloat16, torch.float32)
    folders = [Path(shutil.copytree(plain_checkpoint, tmp_path / name)) for name in ("mixed", "rounded")]
    for network, stem in ((DIT, "diffusion_pytorch_model"), (VAE, "diffusion_pytorch_model"), (ENCODER, "model")):
        mixed = {name: t.to(kinds[place % 3]) for place, (name, t) in enumerate(networks[network].items())}
        for folder in folders:
            for path in (folder / network).glob("*.safetensors*"):
                path.unlink()
        for number in range(2):
            half = dict(list(mixed.items())[number::2])
            save(folders[0] / network / f"{stem}.fp16-0000{number + 1}-of-00002.safetensors", half)
        save(folders[1] / network / f"{stem}.safetensors", {name: tensor.float() for name, tensor in mixed.items()})
    assert levels_apart(edited(folders[0]), edited(folders[1])) == 0


def test_the_index_of_a_variant(
    tmp_path: Path, plain_checkpoint: Path, expected: Any, networks: dict[str, State]
) -> None:
    folder = Path(shutil.copytree(plain_checkpoint, tmp_path / "variant")) / DIT
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    names = {}
    for number in range(2):
        part = dict(list(networks[DIT].items())[number::2])
        save(folder / f"half.{number}.safetensors", part)
        names |= dict.fromkeys(part, f"half.{number}.safetensors")
    index = folder / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert levels_apart(edited(folder.parent), expected) == 0


def test_the_authors_layout(tmp_path: Path, plain_checkpoint: Path, expected: Any, networks: dict[str, State]) -> None:
    folder = write_original(tmp_path / "original", plain_checkpoint)
    (folder / "infer_config.py").write_text(
        "raise SystemExit\nclass Config:\n    scheduler_arch_config = {'params': {'shift': 1.5}}\n"
    )
    assert levels_apart(edited(folder), expected) == 0
    (folder / "vae" / "Wan2.1_VAE.pth").unlink()
    save(folder / "vae" / "Wan2.1_VAE.safetensors", single.wan_vae(networks[VAE]))
    assert levels_apart(edited(folder), expected) == 0
    (folder / "infer_config.py").write_text("class Config:\n    dit_arch_config = {'params': {'theta': 256}}\n")
    assert levels_apart(edited(folder), expected) > 0


def rounded_copy(
    folder: Path, plain: Path, networks: dict[str, State], change: Callable[[str, torch.Tensor], torch.Tensor]
) -> Path:
    """`plain` with other values of DiT and text encoder, in fp32."""
    shutil.copytree(plain, folder)
    for network, stem in ((DIT, "diffusion_pytorch_model"), (ENCODER, "model")):
        for path in (folder / network).glob("*.safetensors*"):
            path.unlink()
        save(folder / network / f"{stem}.safetensors", {n: change(n, t) for n, t in networks[network].items()})
    return folder


@pytest.mark.parametrize("style", ["new", "old", "plain"])
def test_8_bit_floats(tmp_path: Path, plain_checkpoint: Path, networks: dict[str, State], style: str) -> None:
    """A weight is its value times its scale, as ComfyUI defines it."""

    def scale_of(tensor: torch.Tensor) -> torch.Tensor:
        return torch.ones(()) if style == "plain" else (tensor.abs().amax() / 448).float()

    def is_scaled(name: str, tensor: torch.Tensor) -> bool:
        return tensor.ndim == 2 and name.endswith(".weight") and "norm" not in name

    files = {}
    for network in (DIT, ENCODER):
        state: State = {} if style != "old" else {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
        for name, tensor in networks[network].items():
            if not is_scaled(name, tensor):
                state[name] = tensor
                continue
            scale, stem = scale_of(tensor), name.removesuffix(".weight")
            state[name] = (tensor / scale).to(torch.float8_e4m3fn)
            if style == "new":
                mark = json.dumps({"format": "float8_e4m3fn"}).encode()
                state[f"{stem}.comfy_quant"] = torch.tensor(list(mark), dtype=torch.uint8)
                state[f"{stem}.weight_scale"] = scale
                state[f"{stem}.input_scale"] = torch.ones(())
            elif style == "old":
                state[f"{stem}.scale_weight"] = scale.reshape(1)
        files[network] = save(tmp_path / f"{network}.safetensors", state)

    def value(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if not is_scaled(name, tensor):
            return tensor
        return (tensor / scale_of(tensor)).to(torch.float8_e4m3fn).float() * scale_of(tensor)

    wanted = edited(rounded_copy(tmp_path / "rounded", plain_checkpoint, networks, value))
    found = edited(plain_checkpoint, dit=files[DIT], encoder=files[ENCODER])
    assert levels_apart(found, wanted) == 0
    assert levels_apart(found, edited(plain_checkpoint)) > 0


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_gguf(tmp_path: Path, plain_checkpoint: Path, networks: dict[str, State], kind: str) -> None:
    """DiT, language model and vision tower in three files; against their dequantised values in fp32."""
    gguf = pytest.importorskip("gguf")
    which = gguf.GGMLQuantizationType[kind]
    block, _ = gguf.GGML_QUANT_SIZES[which]
    encoder_kind = kind if block == 1 else "F16"  # the tiny text encoder has no rows of whole blocks
    config = single.config_of(plain_checkpoint)
    folder = tmp_path / "gguf"
    single.write_gguf_dit(folder / f"joyai-image-edit-{kind}.gguf", networks[DIT], kind, reshaped=True)
    single.write_gguf_text(folder / f"Qwen3VL-8B-{kind}.gguf", networks[ENCODER], config, encoder_kind)
    single.write_gguf_vision(folder / f"mmproj-{kind}.gguf", networks[ENCODER], config, encoder_kind)
    save(folder / "wan_2.1_vae.safetensors", single.wan_vae(networks[VAE]))
    single.write_tokenizer_beside(folder, plain_checkpoint)

    def value(name: str, tensor: torch.Tensor) -> torch.Tensor:
        mine = kind if name in networks[DIT] else encoder_kind
        other = gguf.GGMLQuantizationType[mine]
        size, _ = gguf.GGML_QUANT_SIZES[other]
        if tensor.ndim < 2 or tensor.numel() % size:
            return tensor
        rows = tensor if tensor.shape[-1] % size == 0 else tensor.reshape(-1, size)
        quantised = gguf.quants.quantize(rows.float().contiguous().numpy(), other)
        return torch.from_numpy(gguf.quants.dequantize(quantised, other)).reshape(tensor.shape)

    wanted = edited(rounded_copy(tmp_path / "rounded", plain_checkpoint, networks, value))
    assert levels_apart(edited(folder), wanted) == 0
    parts = {
        "dit": next(folder.glob("joyai*")),
        "encoder": f"{next(folder.glob('Qwen*'))},{next(folder.glob('mmproj*'))}",
    }
    assert levels_apart(edited(plain_checkpoint, **parts), wanted) == 0
    if kind != "F32":
        assert levels_apart(wanted, edited(plain_checkpoint)) > 0


def test_gguf_of_transformers_names_in_shards(
    tmp_path: Path, plain_checkpoint: Path, expected: Any, networks: dict[str, State]
) -> None:
    """What lacks sides of 1, as some tools write it, and the text encoder under its own names in one file."""
    pytest.importorskip("gguf")
    flat = {
        name: tensor.flatten(1) if name == "img_in.weight" else tensor.squeeze()
        for name, tensor in networks[DIT].items()
    }
    halves = [dict(list(flat.items())[number::2]) for number in range(2)]
    for number, half in enumerate(halves):
        single.write_gguf_dit(tmp_path / f"joy-0000{number + 1}-of-00002.gguf", half)
    single.write_gguf_dit(tmp_path / "encoder.gguf", networks[ENCODER])
    parts = {"dit": tmp_path / "joy-00001-of-00002.gguf", "encoder": tmp_path / "encoder.gguf"}
    assert levels_apart(edited(plain_checkpoint, **parts), expected) == 0
