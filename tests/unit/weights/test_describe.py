"""What can be said of a checkpoint without loading it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from joyedit.errors import UsageError
from joyedit.weights import describe as describing
from joyedit.weights.defaults import nano_folder
from joyedit.weights.describe import describe
from joyedit.weights.wanted import Wanted
from support.hostile import linked_copy


def test_a_folder_in_the_diffusers_layout(diffusers_checkpoint: Path) -> None:
    found = describe(Wanted(model=str(diffusers_checkpoint)))
    assert (found.layout, found.schedule, found.edit_plus, found.is_complete) == ("diffusers", "diffusers", False, True)
    assert [part.network for part in found.parts] == ["transformer", "text encoder", "vae"]
    files = [path for part in found.parts for path, _ in part.files]
    assert sorted(files) == sorted(diffusers_checkpoint.rglob("*.safetensors"))
    assert found.bytes == sum(path.stat().st_size for path in files)
    assert all(part.config is not None and part.kind == "safetensors" for part in found.parts)
    assert found.tokenizer == diffusers_checkpoint / "tokenizer"
    assert found.processor == diffusers_checkpoint / "processor"
    assert found.summary.startswith(f"diffusers layout, {len(files)} files of weights, ")


def test_edit_plus(edit_plus_checkpoint: Path) -> None:
    assert describe(Wanted(model=str(edit_plus_checkpoint))).summary.startswith("diffusers layout (Edit-Plus), ")


def test_the_authors_layout(original_checkpoint: Path) -> None:
    found = describe(Wanted(model=str(original_checkpoint)))
    assert (found.layout, found.schedule) == ("original", "original")
    assert [part.kind for part in found.parts] == ["pickle", "safetensors", "pickle"]


def test_single_files_and_a_part_by_itself(comfy_checkpoint: Path, diffusers_checkpoint: Path) -> None:
    found = describe(Wanted(model=str(comfy_checkpoint), vae=str(diffusers_checkpoint / "vae")))
    assert found.is_complete
    assert found.layout == "single files"
    assert found.label.endswith("with vae vae")
    assert [len(part.files) for part in found.parts] == [1, 1, 1]
    assert [part.config is None for part in found.parts] == [True, True, False]
    assert found.processor is None


def test_everything_that_is_missing(tmp_path: Path, diffusers_checkpoint: Path) -> None:
    folder = linked_copy(diffusers_checkpoint, tmp_path / "checkpoint")
    shutil.rmtree(folder / "vae")
    (folder / "tokenizer" / "merges.txt").unlink()
    (folder / "processor" / "tokenizer_config.json").unlink()
    found = describe(Wanted(model=str(folder)))
    assert not found.is_complete
    assert found.absent == ("vae/config.json", "vae/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json")
    assert found.remedy[1] == f"hf download jdopensource/JoyAI-Image-Edit-Diffusers --local-dir {folder}"
    assert found.summary.endswith("; incomplete: 3 missing")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    found = describe(Wanted(model=str(tmp_path)))
    assert found.problem is not None
    assert found.problem.startswith(f"{tmp_path}: no known checkpoint layout")
    assert found.summary == found.problem
    assert not found.is_complete
    with pytest.raises(UsageError, match="no such folder, and not a hub id"):
        describe(Wanted(model="nowhere"))


def test_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert describe(Wanted(model="own/er")).problem == "it is not downloaded yet"
    monkeypatch.setattr(describing, "cached_snapshot", lambda model: nano_folder())
    assert describe(Wanted(model="own/er")).is_complete


def test_no_torch_is_loaded_for_it(comfy_checkpoint: Path) -> None:
    """Nor transformers: `joyedit run --dry-run` answers at once."""
    text = (
        "import sys; from joyedit.weights.describe import describe; from joyedit.weights.wanted import Wanted;"
        f"assert describe(Wanted(model={str(comfy_checkpoint)!r})).is_complete;"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", text], check=True, cwd=Path(__file__).resolve().parents[3])
