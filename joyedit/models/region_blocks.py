"""Blocks of which only some tokens of the target run. All other tokens give the keys and values that they had.

In a whole forward of one sample, `KeptKeys` stands around the attention and keeps what every block gave it. A later
forward runs some of the target's tokens alone: in each block they get new keys and values, in their own places among
those that were kept, and ask for all of them.

Legend: K running tokens, N image and text tokens of the sample, H heads, D channels a head, M = H * D hidden channels.
"""

from __future__ import annotations

from torch import Tensor

from joyedit.models.attention import AttentionFn, Spans
from joyedit.models.blocks import DoubleBlock, modulate
from joyedit.models.rope import apply_rope
from joyedit.models.strategies import ForwardPass


class KeptKeys:
    """Keys and values of one sample in every block, (N, H, D) each, as its last whole forward gave them."""

    def __init__(self) -> None:
        self._blocks: list[tuple[Tensor, Tensor]] = []
        self._next = 0

    def around(self, attend: AttentionFn) -> AttentionFn:
        """`attend` for one whole forward, whose blocks call it in order; keys and values are kept on the way."""
        self._next = 0

        def keeping(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Tensor]:
            self._keep(key, value)
            return attend(query, key, value, spans)

        return keeping

    def _keep(self, key: Tensor, value: Tensor) -> None:
        if self._next < len(self._blocks):  # the memory of the forward before
            for kept, new in zip(self._blocks[self._next], (key, value), strict=True):
                kept.copy_(new)
        else:
            # Copies, as a strategy may hold query, key and value in one piece.
            self._blocks.append((key.clone(), value.clone()))
        self._next += 1

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """Key and value of a block."""
        return self._blocks[layer]


class RegionBlocks:
    """Runs the blocks of one forward over K tokens of the target of one sample: a `RunBlock`.

    Plain operations of torch, on every device: the products are few, and no token of a text runs.
    """

    def __init__(self, forward: ForwardPass, kept: KeptKeys, places: Tensor) -> None:
        """`forward`: its positions are those of the running tokens. `places`: (K,) int64, theirs in the target."""
        self._forward = forward
        self._kept = kept
        self._places = places

    def __call__(
        self, block: DoubleBlock, layer: int, img: Tensor, txt: Tensor, target: int | None
    ) -> tuple[Tensor, Tensor]:
        """img (1, K, M) after the block, and txt as it was. All tokens are the target's, so `target` trims none."""
        forward, attn = self._forward, block.attn
        mod, _ = forward.mods(layer)
        parts = attn.img_attn_qkv(modulate(img, mod[0], mod[1])).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (attn.num_heads, -1)) for part in parts)  # (1, K, H, D)
        query = apply_rope(attn.img_attn_q_norm(query), *forward.pe)
        key = apply_rope(attn.img_attn_k_norm(key), *forward.pe)
        keys, values = self._kept.of(layer)
        keys.index_copy_(0, self._places, key[0])
        values.index_copy_(0, self._places, value[0])
        spans = Spans((len(self._places),), (len(keys),), trimmed=True)
        (out,) = forward.attend(query[0], keys, values, spans)
        img = img.addcmul(mod[2], attn.img_attn_proj(out.flatten(-2)[None]))
        return img.addcmul(mod[5], block.img_mlp(modulate(img, mod[3], mod[4]))), txt
