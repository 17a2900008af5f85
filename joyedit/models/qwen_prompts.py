"""What the text encoder reads and keeps: prompts, their rotary positions and the batches that they form.

Legend: N prompts, L tokens of one prompt, P merged picture patches, D hidden channels, Hkv key and value heads, Dh
channels of such a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

MergedGrid = tuple[int, int]
"""(rows, columns) of merged patches of one picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFeatures:
    """What the vision tower makes of one picture: embeddings (P, D), and one (P, D) tensor for each deepstack level."""

    embeddings: Tensor
    deepstack: tuple[Tensor, ...]
    grid: MergedGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Token ids of one prompt, in which each picture's placeholders are already repeated P times."""

    ids: tuple[int, ...]
    pictures: tuple[PictureFeatures, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix:
    """The first tokens that several prompts share, after the encoder has read them once.

    `features`: (L, D), before the final norm. `keys`, `values`: one (1, Hkv, L, Dh) tensor for each layer.
    `next_position`: the rotary position, on all three axes, of the token that follows.
    """

    features: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    next_position: int

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.features, *self.keys, *self.values))


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch:
    """Prompts padded to one length: `ids` and `real` (N, L), `positions` (4, N, L).

    `visible`: which tokens each token attends to: bool (1, 1, L, known + L). None stands for all tokens before it.
    """

    ids: Tensor
    real: Tensor
    positions: Tensor
    left_padded: bool
    visible: Tensor | None = None


def rope_positions(ids: Sequence[int], grids: Sequence[MergedGrid], image_token: int) -> Tensor:
    """Multimodal rotary positions of a prompt: int64 (3, L), rows time, height, width.

    A text token adds 1 on all three axes. A picture has one time position, and its rows and columns count from
    there. The text after it continues behind the longer side.
    """
    chunks: list[Tensor] = []
    position = 0
    index = 0
    remaining = iter(grids)
    while index < len(ids):
        if ids[index] == image_token:
            rows, columns = next(remaining)
            time = torch.zeros(rows * columns, dtype=torch.long)
            height = torch.arange(rows).repeat_interleave(columns)
            width = torch.arange(columns).repeat(rows)
            chunks.append(torch.stack([time, height, width]) + position)
            position += max(rows, columns)
            index += rows * columns
        else:
            end = index
            while end < len(ids) and ids[end] != image_token:
                end += 1
            chunks.append((torch.arange(end - index) + position).expand(3, -1))
            position += end - index
            index = end
    return torch.cat(chunks, dim=1)


def pack_prompts(
    prompts: Sequence[tuple[Sequence[int], Sequence[MergedGrid]]],
    image_token: int,
    padding: Literal["right", "left"] = "right",
) -> TokenBatch:
    """Pad prompts, each its token ids and its pictures' grids, to one batch (on the CPU)."""
    shape = (len(prompts), max(len(ids) for ids, _ in prompts))
    batch = TokenBatch(
        ids=torch.zeros(shape, dtype=torch.long),
        real=torch.zeros(shape, dtype=torch.bool),
        positions=torch.zeros(4, *shape, dtype=torch.long),
        left_padded=padding == "left",
    )
    # The first row holds plain positions. Without it, 4.57 reads equal time positions as packed sequences.
    batch.positions[0] = torch.arange(shape[1])
    for row, (ids, grids) in enumerate(prompts):
        start = shape[1] - len(ids) if padding == "left" else 0
        span = slice(start, start + len(ids))
        batch.ids[row, span] = torch.tensor(ids)
        batch.real[row, span] = True
        batch.positions[1:, row, span] = rope_positions(ids, grids, image_token)
    return batch


def without_prefix(batch: TokenBatch, known: int) -> TokenBatch:
    """The one prompt of a batch without its first `known` tokens. The other tokens still attend to them."""
    length = batch.ids.shape[1]
    return TokenBatch(
        ids=batch.ids[:, known:],
        real=batch.real[:, known:],
        positions=batch.positions[..., known:],
        left_padded=False,
        visible=torch.ones(length, length, dtype=torch.bool).tril()[known:][None, None],
    )


def pack_suffixes(suffixes: Sequence[Sequence[int]], known: int, next_position: int) -> TokenBatch:
    """Suffixes of one prefix of `known` tokens, packed into one row without padding.

    Each token attends to the prefix and to its own suffix up to itself. `next_position` is the rotary position of the
    first token of every suffix.
    """
    lengths = torch.tensor([len(ids) for ids in suffixes])
    place = torch.cat([torch.arange(len(ids)) for ids in suffixes])
    owner = torch.arange(len(suffixes)).repeat_interleave(lengths)
    own = (owner[:, None] == owner) & (place[:, None] >= place)
    positions = place + torch.tensor([known, *[next_position] * 3])[:, None]
    ids = torch.tensor([token for ids in suffixes for token in ids])[None]
    return TokenBatch(
        ids=ids,
        real=torch.ones_like(ids, dtype=torch.bool),
        positions=positions[:, None],
        left_padded=False,
        visible=torch.cat([torch.ones(len(place), known, dtype=torch.bool), own], dim=1)[None, None],
    )


def chunks(suffixes: Sequence[Sequence[int]], most: int) -> Iterator[list[Sequence[int]]]:
    """Consecutive suffixes with at most `most` tokens together. A longer suffix is alone in its chunk."""
    chunk: list[Sequence[int]] = []
    for ids in suffixes:
        if chunk and sum(map(len, chunk)) + len(ids) > most:
            yield chunk
            chunk = []
        chunk.append(ids)
    if chunk:
        yield chunk
