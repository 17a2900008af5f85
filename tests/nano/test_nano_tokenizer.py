"""The tokenizer: loads offline as Qwen2's, keeps whole words, and gives the system message its 33 tokens."""

from __future__ import annotations

import itertools
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import transformers

from nano import tokenizer as nano_tokenizer
from nano import wording
from nano.tokenizer import SPECIAL_TOKENS, SYSTEM_TEXT, SYSTEM_TOKENS, build_tokenizer, pieces

PROMPT = (
    SYSTEM_TEXT + "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Make the house red."
    "<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(wording.corpus("train"), folder, 700)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def published() -> Any:
    data = os.environ.get("JOYEDIT_TEST_DATA")
    if not data:
        pytest.skip("JOYEDIT_TEST_DATA does not name the folder of published files")
    return transformers.AutoTokenizer.from_pretrained(Path(data) / "processor", local_files_only=True)


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])


def test_the_files_are_small_and_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    total = build_tokenizer(list(wording.corpus("train"))[::-1], tmp_path, 700)
    assert total <= 700 + len(SPECIAL_TOKENS)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000


def test_both_loaders_agree(folder: Path, loaded: Any) -> None:
    other = transformers.Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    assert ids(other, PROMPT) == ids(loaded, PROMPT)
    assert len(other) == len(loaded)


def test_the_system_message_has_its_33_tokens(loaded: Any) -> None:
    assert len(ids(loaded, SYSTEM_TEXT)) == SYSTEM_TOKENS
    kept = ids(loaded, PROMPT)[SYSTEM_TOKENS + 1 :]
    assert loaded.decode(kept).startswith("user\n")


def test_so_does_the_published_one(published: Any, loaded: Any) -> None:
    theirs, ours = ids(published, SYSTEM_TEXT), ids(loaded, SYSTEM_TEXT)
    assert len(theirs) == SYSTEM_TOKENS
    assert [published.decode([i]) for i in theirs] == [loaded.decode([i]) for i in ours]
    assert [published.decode([i]) for i in ids(published, PROMPT)] == [loaded.decode([i]) for i in ids(loaded, PROMPT)]


def test_the_published_one_splits_text_in_the_same_way(published: Any) -> None:
    text = "It's 12 o'clock,\n\n  don't!  Größe 漢字 x_1\t(a) \\n "
    split = published.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [piece for piece, _ in split] == pieces(text)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_word_is_one_token(loaded: Any, split: str) -> None:
    for text in set(wording.corpus(split)):
        assert loaded.tokenize(text) == pieces(text), text


def test_held_out_wordings_use_tokens_that_training_saw() -> None:
    seen = set(itertools.chain.from_iterable(pieces(text) for text in wording.corpus("train")))
    held = set(itertools.chain.from_iterable(pieces(text) for text in wording.corpus("heldout")))
    assert held <= seen


def test_special_tokens_follow_the_vocabulary_and_stay_whole(loaded: Any) -> None:
    numbers = [loaded.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS]
    assert numbers == list(range(len(loaded) - len(SPECIAL_TOKENS), len(loaded)))
    for token, number in zip(SPECIAL_TOKENS, numbers, strict=True):
        assert ids(loaded, f"a{token}b")[1] == number
        assert loaded.decode([number], skip_special_tokens=True) == ""
    assert loaded.pad_token == nano_tokenizer.PAD
    assert loaded.eos_token == nano_tokenizer.END


@pytest.mark.parametrize(
    "text",
    ["Größe 漢字 🙂", "Paint the HOUSE vermilion!", "tabs\tand\r\n lines \n\n  ", "a\\nb 'll 42", "e\u0301"],
)
def test_any_text_comes_back(loaded: Any, text: str) -> None:
    assert loaded.decode(ids(loaded, text)) == unicodedata.normalize("NFC", text)


def test_too_small_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tokens"):
        build_tokenizer(["a rather long sentence"], tmp_path, 260)
    assert not list(tmp_path.iterdir())
