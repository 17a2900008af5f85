"""The tokenizer of the small model: byte-level BPE in the file layout and with the special tokens of Qwen2's.

The full model drops the 33 tokens of its system message and one more before the text features are used. For
the small one to run through the same code, the system message has to come to 33 tokens here too, so its words
are part of what the merges are learned from.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, pre_tokenizers

# The message that every prompt of the model starts with; the backslash before the "n" is a character of it.
SYSTEM_TEXT = (
    "<|im_start|>system\n \\nDescribe the image by detailing the color, shape, size, texture, quantity, "
    "text, spatial relationships of the objects and background:<|im_end|>\n"
)
SYSTEM_TOKENS = 33

# What else of a prompt is neither instruction nor special token.
ROLES = ("user\n", "assistant\n")

# Qwen's pre-tokenisation: contractions, words with one leading sign or space, single digits, signs, line
# ends, spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PAD = "<|endoftext|>"
END = "<|im_end|>"

# In Qwen's order; they follow the BPE vocabulary without a gap.
SPECIAL_TOKENS: tuple[str, ...] = (
    PAD,
    "<|im_start|>",
    END,
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def build_tokenizer(corpus: Iterable[str], folder: Path, vocab_size: int) -> int:
    """Learn a tokenizer from the corpus and write its files into `folder`; gives the total number of tokens.

    Every pre-token of the corpus and of the system message becomes one token. `vocab_size` bounds the BPE
    vocabulary of 256 bytes and the merges; the special tokens come on top. Raises ValueError where that is
    too small.

    `vocab.json`, `merges.txt` and `tokenizer_config.json` are what Qwen2's tokenizer class is loaded from, by
    transformers 4 and 5 alike; a `tokenizer.json` would only say the same again.
    """
    vocab, merges = _learn(_words(corpus))
    if len(vocab) > vocab_size:
        raise ValueError(f"the corpus needs {len(vocab)} tokens before the special ones, {vocab_size} are allowed")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "vocab.json", json.dumps(vocab, ensure_ascii=False, separators=(",", ":")) + "\n")
    _write(folder / "merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    _write(folder / "tokenizer_config.json", json.dumps(_config(len(vocab)), indent=1) + "\n")
    return len(vocab) + len(SPECIAL_TOKENS)


def pieces(text: str) -> list[str]:
    """The pre-tokens of a text without special tokens, in the byte alphabet of the vocabulary."""
    return [piece for piece, _ in _splitter().pre_tokenize_str(text)]


@functools.lru_cache(maxsize=1)
def _splitter() -> pre_tokenizers.Sequence:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _words(corpus: Iterable[str]) -> list[str]:
    """The distinct pre-tokens to learn, sorted, so that the result depends on no order."""
    found: set[str] = set()
    for text in corpus:
        found.update(pieces(text))
    system = SYSTEM_TEXT
    for token in SPECIAL_TOKENS:
        system = system.replace(token, "")
    for text in (system, *ROLES):
        found.update(pieces(text))
    # The published tokenizer has no token for the "n" after the backslash together with the word behind it.
    found.discard("nDescribe")
    found.update(("n", "Describe"))
    return sorted(found)


def _learn(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-pair merges until every word is one token; the most frequent pair first, ties by order.

    Words count once each: how often one is said does not matter where all of them become tokens.
    """
    vocab = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    split = [list(word) for word in words]
    while True:
        counts = Counter(pair for symbols in split for pair in itertools.pairwise(symbols))
        if not counts:
            return vocab, merges
        pair = min(counts, key=lambda found: (-counts[found], found))
        merges.append(pair)
        vocab.setdefault("".join(pair), len(vocab))
        split = [_merge(symbols, pair) for symbols in split]


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def _config(first: int) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(first + index): {"content": token, **flags} for index, token in enumerate(SPECIAL_TOKENS)
        },
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "errors": "replace",
        "model_max_length": 8192,
        "pad_token": PAD,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
