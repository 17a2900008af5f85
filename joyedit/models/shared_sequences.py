"""Sequences that several ranks share: each holds some tokens of every sample, and attends with some of the heads.

Everything but the attention looks at one token at a time, so each rank runs it over its own tokens. For the attention
the ranks exchange: each gives the others their heads of its own tokens, and gets its heads of theirs. Then every rank
has whole sequences of few heads, and any attention kernel serves. A second exchange brings the results back.
Tokens of a sample come in the order of the ranks; attention does not depend on the order of tokens, as positions are
part of query and key already. Nothing is padded: shares may differ in size, and may be empty.

Legend: B samples, S image tokens a sample, T text tokens of all samples, H heads, D channels a head, R ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from joyedit.models.attention import AttentionFn, Spans, TextLengths


class Arriving(Protocol):
    """What other ranks send."""

    def wait(self) -> Tensor:
        """All of it, one rank's part behind the other's: one-dimensional."""


class Exchange(Protocol):
    """The ranks that share sequences. All of them make the same calls in the same order."""

    rank: int
    size: int

    def all_to_all(self, given: Tensor, given_sizes: Sequence[int], sizes: Sequence[int]) -> Arriving:
        """Send parts of `given`, one-dimensional, of these sizes to the ranks in order; parts of `sizes` come back."""


def share(count: int, rank: int, size: int) -> range:
    """The rank's part of `count` things in a row: all parts are of about the same size, none overlap."""
    return range(count * rank // size, count * (rank + 1) // size)


class SharedSequences:
    """How the ranks of one exchange divide the sequences of one forward.

    Of each item (the target, each reference) and of each text, every rank has a contiguous part. So every rank has an
    equal part of the target, which alone is computed in the last block. `text` are the lengths of this rank's texts,
    `target` is the number of its target tokens.
    """

    def __init__(self, exchange: Exchange, items: Sequence[int], text: TextLengths) -> None:
        """`items`: image tokens of the target and of each reference. `text`: lengths of the whole texts."""
        self._exchange = exchange
        self._items = tuple(items)
        self._whole_text = text
        ranks = range(exchange.size)
        self._targets = [len(share(self._items[0], rank, exchange.size)) for rank in ranks]
        images = [sum(len(share(count, rank, exchange.size)) for count in items) for rank in ranks]
        texts = [[len(share(length, rank, exchange.size)) for length in text.lengths] for rank in ranks]
        self._tokens = [[image + length for length in of_rank] for image, of_rank in zip(images, texts, strict=True)]
        self.text = TextLengths.of(texts[exchange.rank])
        self.target = self._targets[exchange.rank]

    def image_part(self, whole: Sequence[Tensor], dim: int) -> Tensor:
        """This rank's tokens of all items, given one tensor an item with its tokens along `dim`."""
        parts = []
        for item, count in zip(whole, self._items, strict=True):
            own = self._own(count)
            parts.append(item.narrow(dim, own.start, len(own)))
        return torch.cat(parts, dim)

    def positions(self, table: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Cosine and sine (S, D / 2) of all items' tokens -> those of this rank's tokens."""
        cos, sin = (self.image_part(part.split(self._items), 0) for part in table)
        return cos, sin

    def text_part(self, txt: Tensor) -> Tensor:
        """This rank's tokens of the packed texts (T, M)."""
        offsets, lengths = self._whole_text.offsets, self._whole_text.lengths
        parts = [self._own(length) for length in lengths]
        return torch.cat(
            [txt[at + own.start : at + own.stop] for at, own in zip(offsets[:-1], parts, strict=True)]
        )  # fmt: skip

    def gather(self, tokens: Tensor) -> Tensor:
        """Results for the target's tokens of all ranks: (B, own, C) -> (B, target, C)."""
        batch, own, channels = tokens.shape
        size = self._exchange.size
        given = tokens.reshape(-1).repeat(size)
        sizes = [batch * count * channels for count in self._targets]
        arrived = self._exchange.all_to_all(given, [batch * own * channels] * size, sizes).wait()
        return torch.cat(
            [part.view(batch, -1, channels) for part in arrived.split(sizes) if len(part)], dim=1
        )  # fmt: skip

    def attention(self, attend: AttentionFn) -> AttentionOverRanks:
        """An attention over this rank's tokens that sees the tokens of all ranks, through `attend`."""
        return AttentionOverRanks(self._exchange, attend, self._targets, self._tokens)

    def _own(self, count: int) -> range:
        return share(count, self._exchange.rank, self._exchange.size)


class AttentionOverRanks:
    """An `AttentionFn` over this rank's tokens, in three parts: between them others may compute, or exchange."""

    def __init__(
        self, exchange: Exchange, attend: AttentionFn, targets: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> None:
        """`targets`: target tokens of each rank. `tokens`: all tokens of each rank and sample."""
        self._exchange = exchange
        self._attend = attend
        self._targets = targets
        self._tokens = tokens

    def of_sample(self, number: int) -> AttentionOverRanks:
        """The same for one sample alone."""
        tokens = [[of_rank[number]] for of_rank in self._tokens]
        return AttentionOverRanks(self._exchange, self._attend, self._targets, tokens)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Tensor]:
        """All three parts. The exchanges of one sample run beside the attention of another."""
        return self.finish(self.attend(self.start(query, key, value, spans)))

    def start(self, query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Coming]:
        """Send query, key and value: of each sample in one exchange, where each token has a query."""
        asking = [[target] * len(spans.keys) for target in self._targets] if spans.trimmed else self._tokens
        samples = zip(query.split(spans.queries), key.split(spans.keys), value.split(spans.keys), strict=True)
        found = []
        for number, (q, k, v) in enumerate(samples):
            rows, tokens = ([of_rank[number] for of_rank in counts] for counts in (asking, self._tokens))
            if spans.trimmed:
                parts = [self._send_heads([q], rows), self._send_heads([k, v], tokens)]
            else:
                parts = [self._send_heads([q, k, v], tokens)]
            found.append(Coming(parts, rows, query.shape[1]))
        return found

    def attend(self, coming: Sequence[Coming]) -> list[Leaving]:
        """The attention of each sample when it is there; its results go to the ranks that hold its tokens."""
        return [self._send_tokens(_attended(self._attend, *one.wait()), one) for one in coming]

    def finish(self, leaving: Sequence[Leaving]) -> list[Tensor]:
        """Each sample's output for this rank's tokens, (rows, H, D)."""
        return [self._joined_heads(*one) for one in leaving]

    def _heads(self, heads: int) -> list[range]:
        return [share(heads, rank, self._exchange.size) for rank in range(self._exchange.size)]

    def _send_heads(self, tensors: Sequence[Tensor], rows: Sequence[int]) -> _ArrivingHeads:
        """Tensors (own rows, H, D), side by side -> this rank's heads of all ranks' `rows`."""
        own, heads, dim = tensors[0].shape
        parts, width = self._heads(heads), len(tensors) * dim
        given_sizes = [own * len(part) * width for part in parts]
        given = tensors[0].new_empty(own * heads * width)
        if heads % len(parts) == 0:  # one copy a tensor
            places = given.view(len(parts), own, len(tensors), len(parts[0]), dim)
            for number, tensor in enumerate(tensors):
                places[:, :, number].copy_(tensor.unflatten(1, (len(parts), -1)).transpose(0, 1))
        else:
            for part, place in zip(parts, given.split(given_sizes), strict=True):
                for number, tensor in enumerate(tensors):
                    place.view(own, len(tensors), len(part), dim)[:, number].copy_(tensor[:, part.start : part.stop])
        mine = len(parts[self._exchange.rank])
        arriving = self._exchange.all_to_all(given, given_sizes, [count * mine * width for count in rows])
        return _ArrivingHeads(arriving, (sum(rows), len(tensors), mine, dim))

    def _send_tokens(self, out: Tensor, one: Coming) -> Leaving:
        """Send each rank the results for its own tokens."""
        own, dim = one.rows[self._exchange.rank], out.shape[2]
        given_sizes = [count * out.shape[1] * dim for count in one.rows]
        sizes = [own * len(part) * dim for part in self._heads(one.heads)]
        return Leaving(self._exchange.all_to_all(out.reshape(-1), given_sizes, sizes), own, one.heads, dim)

    def _joined_heads(self, arriving: Arriving, rows: int, heads: int, dim: int) -> Tensor:
        """Heads of all ranks, (rows, H_r, D) each and one behind the other -> (rows, H, D)."""
        parts = self._heads(heads)
        pieces = arriving.wait().split([rows * len(part) * dim for part in parts])
        views = [piece.view(rows, len(part), dim) for piece, part in zip(pieces, parts, strict=True)]
        return torch.cat(views, dim=1)


class _ArrivingHeads:
    """Tensors of this rank's heads that come from all ranks."""

    def __init__(self, arriving: Arriving, shape: tuple[int, int, int, int]) -> None:
        self._arriving = arriving
        self._shape = shape

    def wait(self) -> tuple[Tensor, ...]:
        """Each of them (rows, H_r, D); side by side in memory."""
        return self._arriving.wait().view(self._shape).unbind(1)


class Coming(NamedTuple):
    """Query, key and value of a sample on their way: what of each rank has a query, and the heads of all ranks."""

    parts: Sequence[_ArrivingHeads]
    rows: Sequence[int]
    heads: int

    def wait(self) -> tuple[Tensor, Tensor, Tensor]:
        """They are there, with this rank's heads."""
        query, key, value = (tensor for part in self.parts for tensor in part.wait())
        return query, key, value


class Leaving(NamedTuple):
    """Results of a sample for this rank's `rows` on their way from all ranks, with their shape."""

    arriving: Arriving
    rows: int
    heads: int
    dim: int


def _attended(attend: AttentionFn, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of one whole sample; nothing where this rank has no heads."""
    if not query.shape[1]:
        return query
    (out,) = attend(query, key, value, Spans((len(query),), (len(key),)))
    return out
