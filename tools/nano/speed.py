"""What makes training fast on a GPU: attention of a whole batch in one kernel, and passes recorded as CUDA graphs.

A recorded pass starts a thousand kernels at once, where Python would start them one by one and the GPU would
wait. It needs shapes that never change, so texts are packed into a fixed number of tokens; what is left over
are sequences of their own that nobody reads.

Legend: B samples, S image tokens a sample, T text tokens of all samples together, H heads, D channels a head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from joyedit.models.attention import Packed, TextLengths, varlen_kernel
from joyedit.models.dit import DiT

FILLERS = 8
"""Sequences into which the tokens that are left over are divided."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the tokens of [all image tokens, all text tokens] go for attention, as tensors.

    `order`: rows in the order image 0, text 0, image 1, ...; `inverse`: back. `bounds`: where each sequence
    begins, int32. `owner`: the sample of each text token (T,).
    """

    order: Tensor
    inverse: Tensor
    bounds: Tensor
    owner: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], image_tokens: int, text_tokens: int) -> Layout:
        """On the CPU. `text_tokens`, at least the sum of `lengths`, is T; the fillers take what is left."""
        real = torch.tensor(lengths)
        left = text_tokens - int(real.sum())
        if left < 0:
            raise ValueError(f"{int(real.sum())} text tokens do not fit into {text_tokens}")
        share = torch.tensor([(left + i) // FILLERS for i in range(FILLERS)])
        samples = torch.arange(len(real))
        text_owner = torch.cat([samples, torch.arange(FILLERS) + len(real)]).repeat_interleave(torch.cat([real, share]))
        owner = torch.cat([samples.repeat_interleave(image_tokens), text_owner])
        order = torch.argsort(owner, stable=True)
        ends = torch.cat([real + image_tokens, share]).cumsum(0)
        return cls(
            order=order,
            inverse=torch.argsort(order),
            bounds=F.pad(ends, (1, 0)).to(torch.int32),
            owner=torch.where(text_owner < len(real), text_owner, 0),
        )

    def pin_memory(self) -> Layout:
        return Layout(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})

    def to(self, device: torch.device) -> Layout:
        return Layout(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


@dataclass(frozen=True, slots=True)
class LaidOut(TextLengths):
    """Texts of one batch with the layout of their tokens at hand."""

    layout: Layout

    @classmethod
    def packed(cls, layout: Layout, samples: int) -> LaidOut:
        """Lengths that add up to all T tokens; who owns which token, the layout says."""
        plain = TextLengths.of([len(layout.owner) // samples] * samples)
        return cls(plain.lengths, plain.offsets, layout)

    def sample_of_token(self, device: torch.device) -> Tensor:
        return self.layout.owner


class BatchAttention:
    """Joint attention of a large batch by the variable-length kernel, in bf16.

    Where the kernel is missing, texts are padded to one length and masked.
    """

    def __init__(self, device: torch.device) -> None:
        found = [name for name, kernel in _KERNELS.items() if _works(kernel, device)]
        self.name = found[0] if found else "padded"
        self._kernel = _KERNELS.get(self.name)

    def __call__(self, query: Packed, key: Packed, value: Packed, text: TextLengths) -> Packed:
        if self._kernel is None:
            return padded_attention(query, key, value, text)
        batch, tokens = query[0].shape[:2]
        if isinstance(text, LaidOut):
            layout, longest = text.layout, tokens + max(text.lengths) + 64
        else:
            layout = Layout.of(text.lengths, tokens, text.total).to(query[0].device)
            longest = tokens + max(text.lengths)
        q, k, v = (
            _permuted(torch.cat([img.flatten(0, 1), txt]).to(torch.bfloat16), layout.order, layout.inverse)
            for img, txt in (query, key, value)
        )
        out = self._kernel(q, k, v, layout.bounds, longest)
        out = _permuted(out, layout.inverse, layout.order)
        img, txt = out.split([batch * tokens, len(query[1])])
        return img.unflatten(0, (batch, tokens)).type_as(value[0]), txt.type_as(value[1])


class Recorded:
    """A training step, recorded as one CUDA graph for each shape of its inputs, a dataclass of tensors.

    The step must leave everything it changes where it is: gradients are zeroed, the optimizer is a capturable
    one. The first two calls with a shape run as they are written, which also compiles what is to be compiled.
    """

    def __init__(self, step: Callable[[Any], Tensor]) -> None:
        self._step = step
        self._seen: Counter[tuple[torch.Size, ...]] = Counter()
        self._recordings: dict[tuple[torch.Size, ...], tuple[torch.cuda.CUDAGraph, Any, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def __call__(self, inputs: Any) -> Tensor:
        """The step's result."""
        shapes = tuple(part.shape for part in _tensors(inputs))
        self._seen[shapes] += 1
        self._stream.wait_stream(torch.cuda.current_stream())
        if self._seen[shapes] <= 2:
            with torch.cuda.stream(self._stream):
                result = self._step(inputs)
            torch.cuda.synchronize()
            return result
        if shapes not in self._recordings:
            self._recordings[shapes] = self._record(inputs)
        graph, own, result = self._recordings[shapes]
        torch._foreach_copy_(_tensors(own), _tensors(inputs))
        graph.replay()
        return result.clone()

    def _record(self, inputs: Any) -> tuple[torch.cuda.CUDAGraph, Any, Tensor]:
        own, result = _cloned(inputs), torch.zeros((), device="cuda")
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads pin memory meanwhile, which the stricter mode would take amiss.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            result.copy_(self._step(own))
        return graph, own, result


def _tensors(inputs: Any) -> list[Tensor]:
    """All tensors in a dataclass and the dataclasses in it."""
    if isinstance(inputs, Tensor):
        return [inputs]
    return [t for f in fields(inputs) for t in _tensors(getattr(inputs, f.name))] if is_dataclass(inputs) else []


def _cloned(inputs: Any) -> Any:
    """The same with copies of all tensors that `_tensors` finds."""
    if isinstance(inputs, Tensor):
        return inputs.clone()
    if not is_dataclass(inputs) or isinstance(inputs, type):
        return inputs
    return replace(inputs, **{f.name: _cloned(getattr(inputs, f.name)) for f in fields(inputs)})


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
