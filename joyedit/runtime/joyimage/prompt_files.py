"""Tokenizer and image processor of a checkpoint, checked against its text encoder while its first weights are read.

Their files are somebody else's, and transformers tells faults in them in many ways. All of those become a
CheckpointError here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from joyedit.errors import CheckpointError, JoyeditError, first_line
from joyedit.models.config_values import ConfigError, Values, shown
from joyedit.models.qwen import TextEncoder
from joyedit.models.qwen_loading import load_image_processor, load_tokenizer
from joyedit.runtime.joyimage.conditioning import Conditioner, PromptBuilder
from joyedit.weights.prompt_folders import PREPROCESSOR_FILE, image_processor_file
from joyedit.weights.regular_files import check_texts, printable_path, read_object

IMAGE_TOKEN = "<|image_pad|>"
_CLASSES = ("Qwen2Tokenizer", "Qwen2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")


def open_conditioner(encoder: TextEncoder, tokenizer_folder: Path, processor_folder: Path | None) -> Conditioner:
    """The conditioner of a checkpoint. `encoder` may still be without weights. Without a folder of the image processor
    the published settings are in force.

    Raises CheckpointError for files that are missing or broken, and for ones that do not fit the text encoder.
    """
    return Conditioner(encoder, _builder(tokenizer_folder, encoder), _image_processor(processor_folder, encoder))


def _builder(folder: Path, encoder: TextEncoder) -> PromptBuilder:
    check_texts(folder)
    config = folder / "tokenizer_config.json"
    with _told_as("the tokenizer", folder):
        kind = Values(read_object(config)).text("tokenizer_class")
        if kind not in _CLASSES:
            raise ConfigError(f"tokenizer_class must be one of {', '.join(_CLASSES)}, not {shown(kind)}")
        tokenizer = load_tokenizer(folder)
        builder = PromptBuilder(tokenizer, encoder.image_token)
        _check_ids(tokenizer, encoder)
    return builder


def _check_ids(tokenizer: Any, encoder: TextEncoder) -> None:
    """Raises ConfigError for token ids that the text encoder does not have, or means otherwise."""
    rows = encoder.config.text_config.vocab_size
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise ConfigError(f"its tokens go up to {largest}, the text encoder has {rows}")
    found = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if found != encoder.image_token:
        raise ConfigError(f"its {IMAGE_TOKEN} is {found}, the text encoder's image_token_id is {encoder.image_token}")


def _image_processor(folder: Path | None, encoder: TextEncoder) -> Any:
    if folder is not None:
        check_texts(folder)
        if image_processor_file(folder) is None:
            raise CheckpointError(
                f"{printable_path(folder / PREPROCESSOR_FILE)}: missing; the checkpoint is incomplete"
            )
    vision = encoder.config.vision_config
    with _told_as("the image processor", folder or Path("the published settings")):
        processor = load_image_processor(folder)
        for name, wanted in (
            ("patch_size", vision.patch_size),
            ("merge_size", vision.spatial_merge_size),
            ("temporal_patch_size", vision.temporal_patch_size),
        ):
            if getattr(processor, name) != wanted:
                raise ConfigError(f"{name} is {getattr(processor, name)}, the text encoder's is {wanted}")
    return processor


@contextmanager
def _told_as(what: str, folder: Path) -> Iterator[None]:
    """Whatever transformers raises becomes a CheckpointError; a lack of memory and an interruption do not."""
    try:
        yield
    except (JoyeditError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of the tokenizers' Rust code is no Exception
        raise CheckpointError(f"{printable_path(folder)}: {what} cannot be used ({first_line(error)})") from error
