"""What makes training fast on a GPU, where the product's own code is written for a few prompts at a time.

Legend: B samples, S image tokens a sample, T text tokens of all samples together, H heads, D channels a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from joyedit.models.attention import Packed, TextLengths, varlen_kernel


class BatchAttention:
    """Joint attention of a large batch by the variable-length kernel, in bf16.

    The order of the tokens is worked out once a batch, on the CPU, and every block uses it. Where the kernel
    is missing, texts are padded to one length and masked.
    """

    def __init__(self, device: torch.device) -> None:
        self._text: TextLengths | None = None
        self._order = self._inverse = self._bounds = torch.empty(0)
        self._longest = 0
        self.packed = _kernel_works(device)

    def __call__(self, query: Packed, key: Packed, value: Packed, text: TextLengths) -> Packed:
        if not self.packed:
            return padded_attention(query, key, value, text)
        batch, tokens = query[0].shape[:2]
        if text is not self._text:
            self._prepare(text, tokens, query[0].device)
        q, k, v = (
            _Permute.apply(
                torch.cat([img.flatten(0, 1), txt]).to(torch.bfloat16), self._order, self._inverse
            )
            for img, txt in (query, key, value)
        )
        out = varlen_kernel()(q, k, v, self._bounds, self._bounds, self._longest, self._longest)
        out = _Permute.apply(out, self._inverse, self._order)
        img, txt = out.split([batch * tokens, text.total])
        return img.unflatten(0, (batch, tokens)), txt

    def _prepare(self, text: TextLengths, tokens: int, device: torch.device) -> None:
        """Positions of [all image tokens, all text tokens] in the order image 0, text 0, image 1, ..."""
        lengths = torch.tensor(text.lengths)
        samples = torch.arange(len(lengths))
        owner = torch.cat([samples.repeat_interleave(tokens), samples.repeat_interleave(lengths)])
        order = torch.argsort(owner, stable=True)
        bounds = torch.cat([torch.zeros(1, dtype=torch.long), (lengths + tokens).cumsum(0)])
        self._order, self._inverse = order.to(device), torch.argsort(order).to(device)
        self._bounds = bounds.to(device, torch.int32)
        self._longest = tokens + max(text.lengths)
        self._text = text


class _Permute(torch.autograd.Function):
    """Rows in another order; the gradient goes back by the inverse, not by a scattered sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse), None, None


def padded_attention(query: Packed, key: Packed, value: Packed, text: TextLengths) -> Packed:
    """The same on padded texts with a mask; slower, and everywhere available."""
    batch, tokens = query[0].shape[:2]
    device = query[0].device
    longest = max(text.lengths)
    real = torch.arange(longest)[None] < torch.tensor(text.lengths)[:, None]  # (B, longest)
    place = real.flatten().nonzero()[:, 0].to(device)
    mask = F.pad(real, (tokens, 0), value=True)[:, None, None].to(device)

    def joint(img: Tensor, txt: Tensor) -> Tensor:
        padded = txt.new_zeros(batch * longest, *txt.shape[1:]).index_copy(0, place, txt)
        return torch.cat([img, padded.unflatten(0, (batch, longest)).to(img.dtype)], dim=1).transpose(1, 2)

    q, k, v = (joint(*part) for part in (query, key, value))
    kind = v.dtype
    out = F.scaled_dot_product_attention(q.to(kind), k.to(kind), v, attn_mask=mask).transpose(1, 2)
    return out[:, :tokens], out[:, tokens:].flatten(0, 1).index_select(0, place)


def _kernel_works(device: torch.device) -> bool:
    """Whether the variable-length kernel runs here, forwards and backwards."""
    if device.type != "cuda":
        return False
    try:
        bounds = torch.tensor([0, 40, 64], dtype=torch.int32, device=device)
        q, k, v = (
            torch.randn(64, 2, 32, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
        )
        varlen_kernel()(q, k, v, bounds, bounds, 40, 40).float().sum().backward()
    except (ImportError, RuntimeError, NotImplementedError):
        return False
    return q.grad is not None


def batch_equal_pictures() -> None:
    """Let the vision tower take all pictures of a batch at once; they are of one size here.

    transformers attends them one by one, which on a GPU costs more than the whole step, and embeds patches
    by a 3-D convolution that is one matrix product.
    """
    from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen

    def attend(
        self: Any, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: Any = None, **_: Any
    ) -> Tensor:
        tokens = hidden_states.shape[0]
        q, k, v = self.qkv(hidden_states).reshape(tokens, 3, self.num_heads, -1).unbind(1)
        q, k = qwen.apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        pictures = len(cu_seqlens) - 1
        q, k, v = (part.to(v.dtype).unflatten(0, (pictures, -1)).transpose(1, 2) for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tokens, -1)
        result: Tensor = self.proj(out)
        return result

    def embed(self: Any, hidden_states: Tensor) -> Tensor:
        return F.linear(hidden_states, self.proj.weight.flatten(1), self.proj.bias)

    qwen.Qwen3VLVisionAttention.forward = attend
    qwen.Qwen3VLVisionPatchEmbed.forward = embed
