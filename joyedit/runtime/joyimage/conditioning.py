"""An instruction and its reference pictures -> token ids and features, as the model was trained on them.

An instruction is plain text: a special token written in it stays text. The features of the system
message and of the opening of the user's turn are dropped, at most the last 4096 are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from joyedit.models.qwen import PictureFeatures, Prefix, Prompt, TextEncoder
from joyedit.runtime.joyimage.patches import PictureReader
from joyedit.runtime.joyimage.pixels import levels_of

# "\\n" is a backslash and an n: the model was trained with those two characters.
SYSTEM = (
    "system\n \\nDescribe the image by detailing the color, shape, size, texture, quantity, text,"
    " spatial relationships of the objects and background:"
)
MAX_FEATURES = 4096
SHARED = 1 / 8
"""Part of an opening from which its beginning, the same before all pictures, is read once for all of them. Where
there is less to save, the whole opening goes without a mask."""
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
        self.beginning = (*system, self._special[OPEN], *self.plain("user\n"), self._special[VISION_OPEN])
        """What every opening with pictures begins with: all that comes before the first placeholder."""

    def _id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(found, int) or found == self.tokenizer.unk_token_id:
            raise TokenizerError(f"the tokenizer has no token {token}")
        return found

    @property
    def dropped(self) -> int:
        """Leading tokens whose features are dropped: the system message and the next turn's opening.

        34 with the published tokenizer.
        """
        return len(self._system) + 1

    def plain(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def opening(self, patches: Sequence[int]) -> tuple[int, ...]:
        """What a prompt begins with, whatever its instruction: the system message and the pictures.

        `patches` gives each reference's number of merged patches, in order.
        """
        special = self._special
        if not patches:
            return (*self._system, special[OPEN])
        out = list(self.beginning[:-1])
        for count in patches:
            out += [special[VISION_OPEN], *[self._image_token] * count, special[VISION_CLOSE]]
        return tuple(out)

    def shared(self, opening: int) -> int:
        """How many tokens of an opening of this length are read once for all pictures.

        It follows from the length alone, so that a picture's features never depend on what came before it.
        """
        beginning = len(self.beginning)
        return beginning if opening * SHARED <= beginning < opening else 0

    def rest(self, instruction: str, pictures: bool) -> tuple[int, ...]:
        """What follows the opening: the instruction and the turn of the assistant."""
        special = self._special
        # Without pictures "user" belongs here: a leading line break of the instruction joins its own.
        text = self.plain(instruction if pictures else "user\n" + instruction)
        return (*text, special[CLOSE], *self.plain("\n"), special[OPEN], *self.plain("assistant\n"))

    def ids(self, instruction: str, patches: Sequence[int]) -> tuple[int, ...]:
        """A whole prompt: its opening and its rest."""
        return self.opening(patches) + self.rest(instruction, bool(patches))


class Conditioner:
    """Pictures and instructions -> text features for the DiT."""

    def __init__(self, encoder: TextEncoder, builder: PromptBuilder, image_processor: Any) -> None:
        self._encoder = encoder
        self.builder = builder
        self._read = PictureReader(image_processor)
        self._beginning: Prefix | None = None

    def see(self, picture: Image.Image) -> PictureFeatures:
        """One RGB reference through the vision tower (once for all prompts that show it)."""
        patches, grid = self._read(picture, levels_of(picture).to(self._encoder.device))
        return self._encoder.see(patches, grid)

    def prompt(self, instruction: str, pictures: Sequence[PictureFeatures]) -> Prompt:
        ids = self.builder.ids(instruction, [p.grid[0] * p.grid[1] for p in pictures])
        return Prompt(ids=ids, pictures=tuple(pictures))

    def open(self, pictures: Sequence[PictureFeatures]) -> Prefix:
        """The part of a prompt that its references decide, read once for all instructions."""
        ids = self.builder.opening([p.grid[0] * p.grid[1] for p in pictures])
        if not self.builder.shared(len(ids)):
            return self._encoder.open(ids, pictures)
        if self._beginning is None:
            self._beginning = self._encoder.open(self.builder.beginning, ())
        return self._encoder.open(ids, pictures, self._beginning)

    def follow(self, prefix: Prefix, instructions: Sequence[str], pictures: bool) -> list[Tensor]:
        """What the DiT reads of each instruction behind one opening: the features of `features`."""
        suffixes = [self.builder.rest(text, pictures) for text in instructions]
        shared = prefix.features[self.builder.dropped :]
        return [torch.cat([shared, features])[-MAX_FEATURES:] for features in self._encoder.follow(prefix, suffixes)]

    def features(self, prompts: Sequence[Prompt], padding: Literal["right", "left"] = "right") -> list[Tensor]:
        """What the DiT reads of each prompt: a list of (L_i, D), with the leading tokens dropped."""
        whole = self._encoder(prompts, padding)
        return [features[self.builder.dropped :][-MAX_FEATURES:] for features in whole]
