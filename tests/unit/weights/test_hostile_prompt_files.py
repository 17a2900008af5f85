"""Files of tokenizer and image processor from somebody who means no good: one error, before a weight is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from joyedit.job.run_config import RunConfig
from joyedit.models import qwen_loading
from joyedit.models.config_values import ConfigError
from joyedit.models.qwen_config import checked_image_processor
from joyedit.runtime.joyimage import prompt_files
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.weights.files import SafetensorsFiles
from support.hostile import KINDS, Refused, change, put, put_kind, sampled

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _no_weight_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: SafetensorsFiles, device: torch.device, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(SafetensorsFiles, "read", read)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("patch_size", 0, "patch_size must be a whole number from 1 to 256, not 0"),
        ("patch_size", 14, "patch_size is 14, the text encoder's is 16"),
        ("merge_size", NAN, "merge_size must be a whole number from 1 to 16, not nan"),
        ("merge_size", 4, "merge_size is 4, the text encoder's is 2"),
        ("temporal_patch_size", 10**9, "temporal_patch_size must be a whole number from 1 to 16, not 1000000000"),
        (
            "image_mean",
            [NAN, 0.5, 0.5],
            "image_mean must be a list of numbers from -1e+06 to 1e+06, not nan in the list",
        ),
        ("image_mean", [0.5], "image_mean must be a list of 3 numbers from -1e+06 to 1e+06, not one of 1"),
        ("image_mean", 0.5, "image_mean must be a list of 3 numbers from -1e+06 to 1e+06, not 0.5"),
        ("image_std", [0.0, 0.5, 0.5], "image_std must be a list of numbers from 1e-06 to 1e+06, not 0.0 in the list"),
        ("image_std", ["a"] * 3, "image_std must be a list of numbers from 1e-06 to 1e+06, not 'a' in the list"),
        ("rescale_factor", INFINITY, "rescale_factor must be a number from 1e-06 to 1e+06, not inf"),
        ("rescale_factor", 0, "rescale_factor must be a number from 1e-06 to 1e+06, not 0"),
        ("do_rescale", "no", "do_rescale must be true or false, not 'no'"),
        ("resample", 99, "resample must be a whole number from 0 to 5, not 99"),
        ("size", 5, "size must be an object, not 5"),
        ("size.shortest_edge", 0, "size.shortest_edge must be a whole number from 1 to"),
        ("size.longest_edge", NAN, "size.longest_edge must be a whole number from 1 to"),
        ("size.longest_edge", 10, "min_pixels 65536 is larger than max_pixels 10"),
        ("min_pixels", -1, "min_pixels must be a whole number from 1 to"),
        ("max_pixels", 10**400, "max_pixels must be a whole number from 1 to"),
    ],
)
def test_the_image_processors_settings(diffusers: Path, refused: Refused, key: str, value: Any, rule: str) -> None:
    change(diffusers / "processor" / "preprocessor_config.json", key, value)
    message = refused(diffusers)
    assert message.startswith("CKPT/processor: the image processor cannot be used (")
    assert rule in message


def test_settings_that_the_processor_does_not_know_do_not_reach_it() -> None:
    known = checked_image_processor({"patch_size": 16, "auto_map": {"x": "y"}, "__class__": 1, "preprocess": 2})
    assert known == {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    with pytest.raises(ConfigError, match=r"size\.shortest_edge must be a whole number"):
        checked_image_processor({"size": {"shortest_edge": "x"}})


BROKEN = {
    "cut": b'{"a": ',
    "a list": b"[]",
    "a text": b'"x"',
    "no UTF-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "nothing": b"",
    "wrong kinds": b'{"version": 3, "model": {"type": "BPE", "vocab": [], "merges": {}}}',
    "NUL": b"\0" * 100,
}


@pytest.mark.parametrize(("name", "text"), sampled(["vocab.json", "tokenizer.json", "tokenizer_config.json"], BROKEN))
def test_a_broken_file_of_the_tokenizer(diffusers: Path, refused: Refused, name: str, text: str) -> None:
    put(diffusers / "tokenizer" / name, BROKEN[text])
    assert refused(diffusers).startswith("CKPT/tokenizer")


FILES = (
    "tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer.json", "tokenizer/special_tokens_map.json",
    "tokenizer/added_tokens.json", "tokenizer/chat_template.jinja", "tokenizer/config.json",
    "processor/preprocessor_config.json", "processor/config.json",
)  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), sampled(FILES, KINDS))
def test_something_else_under_the_name_of_a_file(diffusers: Path, refused: Refused, name: str, kind: str) -> None:
    """A folder of such a name is passed over where the file itself is not needed."""
    put_kind(diffusers / name, kind)
    if kind != "folder" or name.endswith(("vocab.json", "preprocessor_config.json")):
        assert "CKPT/" in refused(diffusers)
        return
    with pytest.raises(Exception, match=r"a weight was read|is a folder|cannot be used"):
        load_backend(RunConfig(output=Path("unused"), model=str(diffusers)))


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("tokenizer_class", "BertTokenizer", "tokenizer_class must be one of Qwen2Tokenizer, "),
        ("tokenizer_class", None, "key 'tokenizer_class' is missing"),
        ("tokenizer_class", ["Qwen2Tokenizer"], "tokenizer_class must be text, not a list"),
        ("tokenizer_class", "\x1b[31m", "not '\\x1b[31m'"),
        ("added_tokens_decoder", 5, "the tokenizer cannot be used ("),
        ("added_tokens_decoder", {"x": 1}, "the tokenizer cannot be used ("),
        ("added_tokens_decoder", {"1": {"content": 5}}, "the tokenizer cannot be used ("),
    ],
)
def test_the_tokenizers_settings(diffusers: Path, refused: Refused, key: str, value: Any, rule: str) -> None:
    change(diffusers / "tokenizer" / "tokenizer_config.json", key, value)
    assert rule in refused(diffusers)


def test_tokens_beyond_the_text_encoders_table(diffusers: Path, refused: Refused) -> None:
    vocabulary = json.loads((diffusers / "tokenizer" / "vocab.json").read_text())
    last = max(vocabulary, key=lambda token: int(vocabulary[token]))
    put(diffusers / "tokenizer" / "vocab.json", json.dumps(vocabulary | {last: 10**6}))
    assert "its tokens go up to 1000000, the text encoder has" in refused(diffusers)


def test_a_placeholder_that_is_another_token(diffusers: Path, refused: Refused) -> None:
    change(diffusers / "text_encoder" / "config.json", "image_token_id", 7)
    assert "the text encoder's image_token_id is 7" in refused(diffusers)


def test_a_missing_file_of_the_image_processor(diffusers: Path, refused: Refused) -> None:
    (diffusers / "processor" / "preprocessor_config.json").unlink()
    assert refused(diffusers).splitlines()[:2] == ["CKPT: 1 file is missing", "processor/preprocessor_config.json"]


def test_a_file_of_a_gigabyte(diffusers: Path, refused: Refused) -> None:
    put(diffusers / "tokenizer" / "vocab.json", "")
    with open(diffusers / "tokenizer" / "vocab.json", "r+b") as file:
        file.truncate(1 << 30)
    assert refused(diffusers) == "CKPT/tokenizer/vocab.json: is larger than 64 MiB, which no such file needs"


def test_a_network_config_beside_the_tokenizer_is_not_read(diffusers: Path) -> None:
    """transformers would make a table of that many names."""
    put(diffusers / "tokenizer" / "config.json", json.dumps({"model_type": "bert", "num_labels": 10**9}))
    with pytest.raises(AssertionError, match="a weight was read"):
        load_backend(RunConfig(output=Path("unused"), model=str(diffusers)))


class Panic(BaseException):
    """As the tokenizers' Rust code raises it: no Exception."""


@pytest.mark.parametrize(
    "fault",
    [Panic("index out of range\nbacktrace"), RuntimeError(), KeyError("x"), RecursionError("deep"), OverflowError()],
)
def test_whatever_transformers_raises(
    diffusers: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def raises(folder: Path) -> None:
        raise fault

    for name, folder in (("load_tokenizer", "tokenizer"), ("load_image_processor", "processor")):
        with monkeypatch.context() as patch:
            patch.setattr(prompt_files, name, raises)
            message = refused(diffusers)
        assert message.startswith(f"CKPT/{folder}: the ")
        assert "backtrace" not in message


@pytest.mark.parametrize("fault", [MemoryError, KeyboardInterrupt])
def test_a_lack_of_memory_and_an_interruption_stay_what_they_are(
    diffusers: Path, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]
) -> None:
    def raises(folder: Path) -> None:
        raise fault

    monkeypatch.setattr(prompt_files, "load_tokenizer", raises)
    with pytest.raises(fault):
        load_backend(RunConfig(output=Path("unused"), model=str(diffusers)))


def test_a_processor_file_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("[]")
    with pytest.raises(ConfigError, match="must be a JSON object"):
        qwen_loading.load_image_processor(tmp_path)
