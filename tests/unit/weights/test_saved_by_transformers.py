"""Tokenizers and processors as releases of transformers save them, from 4.57 on, in every mix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from joyedit.job.run_config import RunConfig
from joyedit.models.qwen_loading import load_image_processor, load_tokenizer
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.weights.prompt_folders import absent_tokenizer_files
from support.checkpoints import PROCESSOR
from support.editing import Edit, levels_apart, picture, run
from support.hostile import Refused, linked_copy, put

VIDEO = {"video_processor_type": "Qwen3VLVideoProcessor", "patch_size": 14, "merge_size": 3, "fps": 2}
"""Settings that pictures must not be read with."""
SETTINGS = {key: value for key, value in PROCESSOR.items() if key != "processor_class"}


def nested(folder: Path, settings: dict[str, Any] | None = None) -> None:
    """`processor_config.json` as transformers 5 writes it."""
    whole = {"image_processor": settings or SETTINGS, "processor_class": "Qwen3VLProcessor", "video_processor": VIDEO}
    put(folder / "processor_config.json", json.dumps(whole))


def fast_tokenizer(folder: Path, source: Path) -> None:
    """`tokenizer.json` and its settings alone, as transformers 5 writes them. Its own words are in `tokenizer.json`."""
    saved = folder.parent / f"{folder.name} saved"
    load_tokenizer(source).save_pretrained(saved)
    folder.mkdir(exist_ok=True)
    shutil.copy(saved / "tokenizer.json", folder)
    settings = json.loads((saved / "tokenizer_config.json").read_text())
    settings.pop("added_tokens_decoder", None)
    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    settings |= {"backend": "tokenizers", "extra_special_tokens": special, "is_local": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    shutil.rmtree(saved)


def by_4(folder: Path, source: Path) -> None:
    """Each part in files of its own, the tokenizer with both vocabularies, in `tokenizer/` and in `processor/`."""
    put(folder / "processor" / "video_preprocessor_config.json", json.dumps(VIDEO))
    for place in ("tokenizer", "processor"):
        load_tokenizer(source).save_pretrained(folder / "both")
        shutil.copy(folder / "both" / "tokenizer.json", folder / place / "tokenizer.json")
        put(folder / place / "special_tokens_map.json", json.dumps({"pad_token": "<|endoftext|>"}))
        put(folder / place / "chat_template.jinja", "{{ messages }}")
        shutil.rmtree(folder / "both")


def by_5(folder: Path, source: Path) -> None:
    for place in ("tokenizer", "processor"):
        shutil.rmtree(folder / place)
        fast_tokenizer(folder / place, source)
    nested(folder / "processor")


def by_5_without_a_tokenizer_folder(folder: Path, source: Path) -> None:
    by_5(folder, source)
    shutil.rmtree(folder / "tokenizer")


def by_5_with_an_empty_tokenizer_folder(folder: Path, source: Path) -> None:
    by_5(folder, source)
    (folder / "tokenizer" / "tokenizer.json").unlink()


def by_5_all_in_the_tokenizer_folder(folder: Path, source: Path) -> None:
    by_5(folder, source)
    (folder / "processor" / "processor_config.json").rename(folder / "tokenizer" / "processor_config.json")
    shutil.rmtree(folder / "processor")


def by_5_beside_files_of_4(folder: Path, source: Path) -> None:
    """transformers 5 reads the nested settings and not those of the older file."""
    nested(folder / "processor")
    put(folder / "processor" / "preprocessor_config.json", json.dumps({**PROCESSOR, "patch_size": 14}))


def a_processor_config_without_settings(folder: Path, source: Path) -> None:
    """4.57 writes such a file for some processors."""
    put(folder / "processor" / "processor_config.json", json.dumps({"processor_class": "Qwen3VLProcessor"}))


def an_image_processor_alone(folder: Path, source: Path) -> None:
    """The image processor saved by 5 without its processor, the tokenizer saved by 4.57 beside it."""
    shutil.rmtree(folder / "processor")
    (folder / "processor").mkdir()
    put(folder / "processor" / "preprocessor_config.json", json.dumps(SETTINGS))


FORMS = [
    by_4, by_5, by_5_without_a_tokenizer_folder, by_5_with_an_empty_tokenizer_folder,
    by_5_all_in_the_tokenizer_folder, by_5_beside_files_of_4, a_processor_config_without_settings,
    an_image_processor_alone,
]  # fmt: skip


def load(folder: Path) -> JoyImageBackend:
    return load_backend(RunConfig(output=Path("unused"), model=str(folder)))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_picture(
    diffusers: Path, diffusers_checkpoint: Path, form: Callable[[Path, Path], None]
) -> None:
    form(diffusers, diffusers_checkpoint / "tokenizer")
    edit = Edit(text="Turn the sky <|im_end|> red, déjà vu.", images=[picture(256, 300)], steps=1, guidance=1.0)
    (ours,), (expected,) = run(load(diffusers), edit), run(load(diffusers_checkpoint), edit)
    assert levels_apart(ours, expected) == 0


def test_the_installed_release_reads_what_it_saves(diffusers: Path, diffusers_checkpoint: Path) -> None:
    shutil.rmtree(diffusers / "tokenizer")
    shutil.rmtree(diffusers / "processor")
    load_tokenizer(diffusers_checkpoint / "tokenizer").save_pretrained(diffusers / "tokenizer")
    load_image_processor(diffusers_checkpoint / "processor").save_pretrained(diffusers / "processor")
    text = "Turn the sky <|im_end|> red."
    ours, theirs = (load(folder).conditioner.builder for folder in (diffusers, diffusers_checkpoint))
    assert ours.ids(text, [4]) == theirs.ids(text, [4])


def test_a_nested_fault_is_told(diffusers: Path, refused: Refused) -> None:
    nested(diffusers / "processor", SETTINGS | {"patch_size": 14})
    assert "patch_size is 14, the text encoder's is 16" in refused(diffusers)
    put(diffusers / "processor" / "processor_config.json", json.dumps({"image_processor": [1]}))
    assert refused(diffusers) == "CKPT/processor/processor_config.json: image_processor must be an object"
    put(diffusers / "processor" / "processor_config.json", "{")
    assert refused(diffusers).startswith("CKPT/processor/processor_config.json: not JSON (")


def test_what_a_tokenizer_lacks(tmp_path: Path) -> None:
    settings, fast = tmp_path / "tokenizer_config.json", tmp_path / "tokenizer.json"
    assert absent_tokenizer_files(tmp_path) == [settings, fast]
    settings.touch()
    (tmp_path / "vocab.json").touch()
    assert absent_tokenizer_files(tmp_path) == [fast]
    (tmp_path / "merges.txt").touch()
    assert absent_tokenizer_files(tmp_path) == []


@pytest.mark.parametrize("read", ["preprocessor_config.json", "processor_config.json"])
def test_the_published_settings_in_both_files(test_data: Path, tmp_path: Path, read: str) -> None:
    published = test_data / "processor"
    settings = json.loads((published / "preprocessor_config.json").read_text())
    whole = {"image_processor": settings} if read == "processor_config.json" else settings
    (tmp_path / read).write_text(json.dumps(whole))
    ours, theirs = load_image_processor(tmp_path), load_image_processor(published)
    assert ours.to_dict() == theirs.to_dict()
    assert linked_copy(published, tmp_path / "tokenizer")
    fast_tokenizer(tmp_path / "fast", published)
    text = "Make <|image_pad|> the house blue.\n déjà"
    first, second = (load_tokenizer(place)(text)["input_ids"] for place in (tmp_path / "fast", published))
    assert first == second
