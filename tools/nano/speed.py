"""What makes training fast on a GPU, where the product's own code is written for a few prompts at a time.

Legend: B samples, S image tokens a sample, T text tokens of all samples together, H heads, D channels a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from joyedit.models.attention import Packed, TextLengths, varlen_kernel
from joyedit.models.dit import DiT


class BatchAttention:
    """Joint attention of a large batch by the variable-length kernel, in bf16.

    The order of the tokens is worked out once a batch, on the CPU, and every block uses it. Where the kernel
    is missing, texts are padded to one length and masked.
    """

    def __init__(self, device: torch.device) -> None:
        self._text: TextLengths | None = None
        self._order = self._inverse = self._bounds = torch.empty(0)
        self._longest = 0
        found = [name for name, kernel in _KERNELS.items() if _works(kernel, device)]
        self.name = found[0] if found else "padded"
        self._kernel = _KERNELS.get(self.name)

    def __call__(self, query: Packed, key: Packed, value: Packed, text: TextLengths) -> Packed:
        if self._kernel is None:
            return padded_attention(query, key, value, text)
        batch, tokens = query[0].shape[:2]
        if text is not self._text:
            self._prepare(text, tokens, query[0].device)
        q, k, v = (
            _permuted(torch.cat([img.flatten(0, 1), txt]).to(torch.bfloat16), self._order, self._inverse)
            for img, txt in (query, key, value)
        )
        out = self._kernel(q, k, v, self._bounds, self._longest)
        out = _permuted(out, self._inverse, self._order)
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse), None, None


def _permuted(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    out: Tensor = _Permute.apply(x, order, inverse)  # type: ignore[no-untyped-call]
    return out


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


def _varlen(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """flash-attn where it is installed, else torch's own."""
    try:
        kernel = varlen_kernel("fa2")
    except ImportError:
        kernel = varlen_kernel("varlen")
    out = kernel(q, k, v, bounds, bounds, longest, longest)
    return out[0] if isinstance(out, tuple) else out


def _aten(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
    out: Tensor = torch.ops.aten._flash_attention_forward(q, k, v, bounds, bounds, longest, longest, 0.0, False, False)[
        0
    ]
    return out


_KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]] = {
    "varlen": _varlen,
    "aten": _aten,
}


def _works(kernel: Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor], device: torch.device) -> bool:
    """Whether a variable-length kernel runs here, forwards and backwards, and is right."""
    if device.type != "cuda":
        return False
    text = TextLengths.of([8, 8])
    parts = [torch.randn(2, 24, 2, 32, device=device), torch.randn(16, 2, 32, device=device)]
    img, txt = (part.to(torch.bfloat16).requires_grad_() for part in parts)
    want_img, _ = padded_attention((img, txt), (img, txt), (img, txt), text)
    try:
        bounds = torch.tensor([0, 32, 64], dtype=torch.int32, device=device)
        joint = torch.cat([img, txt.unflatten(0, (2, 8))], dim=1).flatten(0, 1)
        got = kernel(joint, joint, joint, bounds, 32).unflatten(0, (2, 32))[:, :24]
        (grad,) = torch.autograd.grad(got.float().square().sum(), img)
    except (ImportError, RuntimeError, NotImplementedError, TypeError):
        return False
    (want,) = torch.autograd.grad(want_img.float().square().sum(), img)
    return torch.allclose(got, want_img, atol=0.05) and torch.allclose(grad, want, atol=0.2, rtol=0.05)


def fp32_streams(dit: DiT) -> None:
    """Let both streams enter the first block in fp32, as they leave it under autocast: one compilation."""
    for module in (dit.img_in, dit.condition_embedder.text_embedder):
        module.register_forward_hook(lambda _module, _args, out: out.float())


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

    for kind, forward in ((qwen.Qwen3VLVisionAttention, attend), (qwen.Qwen3VLVisionPatchEmbed, embed)):
        setattr(kind, "forward", forward)  # noqa: B010
