"""An instruction and its reference pictures -> token ids and features, as the model was trained on them.

A prompt has two parts. Its prefix holds the system message and the pictures; it is the same for every
instruction. Its suffix holds the instruction. The common prefix is what all prefixes with pictures begin with.

An instruction is plain text: a special token written in it stays text. The features of the system message and
of the token behind it are dropped, and at most the last 4096 are kept. A text that would lose its own beginning by
that is refused, before anything of its length is made.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from joyedit.errors import ItemError
from joyedit.models.qwen import Request, TextEncoder
from joyedit.models.qwen_prompts import MergedGrid, PictureFeatures, Prefix, Prompt
from joyedit.runtime.joyimage.pixels import levels_of

# "\\n" is a backslash and an n: the model was trained with those two characters.
SYSTEM = (
    "system\n \\nDescribe the image by detailing the color, shape, size, texture, quantity, text,"
    " spatial relationships of the objects and background:"
)
MAX_FEATURES = 4096
SHARED = 1 / 8
"""The common prefix is read once a run where it is at least this part of the whole prefix. Where it is less, the
whole prefix is read at once: that needs no attention mask."""
OPEN, CLOSE = "<|im_start|>", "<|im_end|>"
VISION_OPEN, VISION_CLOSE = "<|vision_start|>", "<|vision_end|>"


class TokenizerError(ValueError):
    """A tokenizer that lacks the model's special tokens, or cannot read one as plain text."""


class PromptBuilder:
    """Token ids of prompts, from the checkpoint's tokenizer."""

    def __init__(self, tokenizer: Any, image_token: int) -> None:
        """`image_token` is the id of the picture placeholder. Raises TokenizerError."""
        self.tokenizer = tokenizer
        self._image_token = image_token
        self._special = {t: self._id(t) for t in (OPEN, CLOSE, VISION_OPEN, VISION_CLOSE)}
        if set(self.plain(f"{CLOSE}<|image_pad|>")) & {self._special[CLOSE], image_token}:
            raise TokenizerError("the tokenizer cannot read special tokens as plain text")
        system = [
            self._special[OPEN], *self.plain(SYSTEM), self._special[CLOSE], *self.plain("\n")
        ]  # fmt: skip
        self._system = tuple(system)
        self.common_prefix = (*system, self._special[OPEN], *self.plain("user\n"), self._special[VISION_OPEN])
        """What every prefix with pictures begins with: all tokens before the first placeholder."""

    def _id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(found, int) or found == self.tokenizer.unk_token_id:
            raise TokenizerError(f"the tokenizer has no token {token}")
        return found

    @property
    def dropped(self) -> int:
        """How many leading tokens have their features dropped: the system message and the token behind it.

        34 with the published tokenizer.
        """
        return len(self._system) + 1

    def plain(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special."""
        # It is not asked to warn of long texts: `suffix` refuses them.
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        ids: list[int] = self.tokenizer(text, **options)["input_ids"]
        return ids

    def prefix(self, patches: Sequence[int]) -> tuple[int, ...]:
        """The part of a prompt before the instruction: the system message and the pictures.

        `patches` gives each reference's number of merged patches, in order.
        """
        special = self._special
        if not patches:
            return (*self._system, special[OPEN])
        out = list(self.common_prefix[:-1])
        for count in patches:
            out += [special[VISION_OPEN], *[self._image_token] * count, special[VISION_CLOSE]]
        return tuple(out)

    def shared(self, length: int) -> int:
        """How many tokens of a prefix of this length are read once for all pictures.

        Only the length decides, so a picture's features never depend on the pictures before it.
        """
        common = len(self.common_prefix)
        return common if length * SHARED <= common < length else 0

    def suffix(self, instruction: str, pictures: bool, what: str = "instruction") -> tuple[int, ...]:
        """The part of a prompt behind its prefix: the instruction, and the beginning of the answer.

        Raises ItemError("instruction_too_long") for a text that does not fit into the features that are kept.
        `what` names the text in the message.
        """
        self._refuse_megabytes(instruction, what)
        special = self._special
        # Without pictures "user" belongs here: a leading line break of the instruction joins its own.
        text = self.plain(instruction if pictures else "user\n" + instruction)
        ids = (*text, special[CLOSE], *self.plain("\n"), special[OPEN], *self.plain("assistant\n"))
        if len(ids) > MAX_FEATURES:
            most = MAX_FEATURES - (len(ids) - len(text))
            message = f"the {what} has {len(text)} tokens, and the model reads at most {most}; shorten it"
            raise ItemError("instruction_too_long", message)
        return ids

    def _refuse_megabytes(self, text: str, what: str) -> None:
        """Refuse what certainly has too many tokens, without counting them: a token has no more than so many bytes."""
        most = MAX_FEATURES * self._longest_token
        if len(text) * 4 <= most or _bytes(text) <= most:
            return
        # Qwen's tokenizer composes characters first, and several may become one.
        if len(text) > 4 * most or _bytes(unicodedata.normalize("NFC", text)) > most:
            message = f"the {what} has {len(text)} characters, which are more than {MAX_FEATURES} tokens; shorten it"
            raise ItemError("instruction_too_long", message)

    @cached_property
    def _longest_token(self) -> int:
        """Bytes at most. A byte stands in the vocabulary as one character or more."""
        return max(map(len, self.tokenizer.get_vocab()))

    def ids(self, instruction: str, patches: Sequence[int]) -> tuple[int, ...]:
        """A whole prompt: its prefix and its suffix."""
        return self.prefix(patches) + self.suffix(instruction, bool(patches))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


@dataclass(kw_only=True)
class Prompts:
    """Instructions that show the same pictures: what `read_together` reads, and what it found.

    `pictures` are the pictures' features, or `prefix` what was read of them before. `instructions` come in groups, the
    texts of a group are packed together, and `features` gets for each group one (L_i, D) tensor for each instruction.
    With `keep`, `prefix` may serve other instructions later; without, it holds features alone.
    """

    pictures: Sequence[PictureFeatures] = ()
    prefix: Prefix | None = None
    keep: bool = True
    instructions: Sequence[Sequence[str]] = ()
    has_pictures: bool = True
    features: list[list[Tensor]] = field(default_factory=list)


class Conditioner:
    """Pictures and instructions -> text features for the DiT."""

    def __init__(self, encoder: TextEncoder, builder: PromptBuilder, image_processor: Any) -> None:
        self._encoder = encoder
        self.builder = builder
        self._read = PictureReader(image_processor)
        self._common_prefix: Prefix | None = None

    def see(self, picture: Image.Image) -> PictureFeatures:
        """One RGB reference through the vision tower. The result serves all prompts that show it."""
        patches, grid = self._read(picture, levels_of(picture).to(self._encoder.device))
        return self._encoder.see(patches, grid)

    def prompt(self, instruction: str, pictures: Sequence[PictureFeatures]) -> Prompt:
        ids = self.builder.ids(instruction, [p.grid[0] * p.grid[1] for p in pictures])
        return Prompt(ids=ids, pictures=tuple(pictures))

    def read_prefix(self, pictures: Sequence[PictureFeatures]) -> Prefix:
        """The prefix of a prompt with these pictures, read once for all instructions."""
        prompts = Prompts(pictures=pictures)
        self.read_together([prompts])
        assert prompts.prefix is not None
        return prompts.prefix

    def read_suffixes(self, prefix: Prefix, instructions: Sequence[str], pictures: bool) -> list[Tensor]:
        """The same as `features` for instructions behind one prefix: a list of (L_i, D)."""
        prompts = Prompts(prefix=prefix, instructions=[instructions], has_pictures=pictures)
        self.read_together([prompts])
        return prompts.features[0]

    def read_together(self, all_prompts: Sequence[Prompts]) -> None:
        """Read several prefixes and the instructions behind each in one pass over the encoder's layers."""
        requests = [self._request(prompts) for prompts in all_prompts]
        self._encoder.read_together(requests)
        for prompts, request in zip(all_prompts, requests, strict=True):
            prompts.prefix = request.prefix
            assert request.prefix is not None
            shared = request.prefix.features[self.builder.dropped :]
            prompts.features = [
                [torch.cat([shared, own])[-MAX_FEATURES:] for own in group] for group in request.features
            ]

    def _request(self, prompts: Prompts) -> Request:
        suffixes = [
            [self.builder.suffix(text, prompts.has_pictures) for text in group] for group in prompts.instructions
        ]
        if prompts.prefix is not None:
            return Request(prefix=prompts.prefix, suffixes=suffixes)
        ids = self.builder.prefix([p.grid[0] * p.grid[1] for p in prompts.pictures])
        known = self._common() if self.builder.shared(len(ids)) else None
        return Request(ids=ids, pictures=prompts.pictures, known=known, keep=prompts.keep, suffixes=suffixes)

    def _common(self) -> Prefix:
        """What all prefixes with pictures begin with, read once a run."""
        if self._common_prefix is None:
            self._common_prefix = self._encoder.read_prefix(self.builder.common_prefix, ())
        return self._common_prefix

    def features(self, prompts: Sequence[Prompt], padding: Literal["right", "left"] = "right") -> list[Tensor]:
        """What the DiT reads of each prompt: a list of (L_i, D), with the leading tokens dropped."""
        whole = self._encoder(prompts, padding)
        return [features[self.builder.dropped :][-MAX_FEATURES:] for features in whole]


class PictureReader:
    """An RGB picture as the vision tower's patches, as Qwen's image processor makes them.

    A picture that needs no resizing does not go through the processor: its bytes are put in order on the device,
    before they become numbers of four bytes. At 1024 pixels the processor takes longer than the vision tower.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._merge, self._patch, self._frames = (
            int(getattr(processor, name)) for name in ("merge_size", "patch_size", "temporal_patch_size")
        )
        size = dict(getattr(processor, "size", None) or {})
        self._least = getattr(processor, "min_pixels", None) or size.get("shortest_edge")
        self._most = getattr(processor, "max_pixels", None) or size.get("longest_edge")
        factor = processor.rescale_factor if processor.do_rescale else 1.0
        plain = not processor.do_normalize
        self._mean = torch.tensor([0.0] * 3 if plain else processor.image_mean) / factor
        self._std = torch.tensor([1.0] * 3 if plain else processor.image_std) / factor

    def __call__(self, picture: Image.Image, levels: Tensor) -> tuple[Tensor, MergedGrid]:
        """Patches (4P, 3 * 2 * 16 * 16), fp32, and the grid of merged ones.

        `levels` are the picture's bytes, uint8 (H, W, 3); the patches are where they are.
        """
        if not self.fits(picture.width, picture.height):
            seen = self._processor(images=[picture], return_tensors="pt")
            _, rows, columns = (int(n) for n in seen["image_grid_thw"][0])
            return seen["pixel_values"], (rows // self._merge, columns // self._merge)
        side = (self._merge, self._patch)
        x = levels.unflatten(1, (-1, *side)).unflatten(0, (-1, *side))  # (r, m, p, c, m, p, 3)
        x = x.permute(0, 3, 1, 4, 6, 2, 5).contiguous()  # (r, c, m, m, 3, p, p)
        mean, std = (part.to(levels.device)[:, None, None] for part in (self._mean, self._std))
        still = ((x.float() - mean) / std).unsqueeze(5)  # the same frame, twice
        return still.expand(*x.shape[:5], self._frames, *x.shape[5:]).flatten(4).flatten(0, 3), (x.shape[0], x.shape[1])

    def fits(self, width: int, height: int) -> bool:
        """Whether the processor would leave a picture of this size as large as it is."""
        side = self._merge * self._patch
        if self._least is None or self._most is None or width % side or height % side:
            return False
        return bool(self._least <= width * height <= self._most)
