"""The text encoder: transformers' Qwen3-VL with its last decoder layer hooked.

It works on transformers 4.57 and 5.x. The releases differ in three things, so joyedit computes them itself: the
multimodal rotary positions, the rotary buffers of a network built on the meta device, and the features, which are the
output of the last decoder layer BEFORE the final norm. Only files named `qwen*` import transformers.

Legend: N prompts, L tokens of one prompt, P merged picture patches, D hidden channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from joyedit.models.qwen_layers import Chain, DecoderLayers, Reading, empty_cache, layer_of
from joyedit.models.qwen_loading import rope_theta, set_frequencies, with_both_rope_spellings
from joyedit.models.qwen_prompts import (
    MergedGrid,
    PictureFeatures,
    Prefix,
    Prompt,
    TokenBatch,
    chunks,
    pack_prompts,
    pack_suffixes,
    without_prefix,
)

SUFFIX_TOKENS = 1024
"""Most tokens of suffixes in one row. The mask grows with their square."""


@dataclass(kw_only=True)
class Request:
    """A prefix with its pictures, and texts behind it: what `read_together` reads, and what it found.

    `ids` are the prefix's tokens; `known` the first of them, if they were read before; or `prefix` all of it. With
    `keep`, `prefix` gets keys and values for texts to come; without, only its features. `suffixes` are the texts'
    tokens, in groups that are packed together; `features` gets for each group an (L_i, D) tensor for each text.
    """

    ids: Sequence[int] = ()
    pictures: Sequence[PictureFeatures] = ()
    known: Prefix | None = None
    prefix: Prefix | None = None
    keep: bool = True
    suffixes: Sequence[Sequence[Sequence[int]]] = ()
    features: list[list[Tensor]] = field(default_factory=list)
    next_position: int = 0


class PatchEmbed(nn.Module):
    """The vision tower's patch embedding as one matrix product. As a 3-D convolution it takes several times as long."""

    def __init__(self, proj: nn.Conv3d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(4P, 3 * 2 * 16 * 16) -> (4P, hidden)."""
        return F.linear(pixel_values.to(self.proj.weight.dtype), self.proj.weight.flatten(1), self.proj.bias)


class BypassedNorm(nn.Module):
    """Stands for the final norm and does nothing: features are read before it. It holds the checkpoint's weight."""

    def __init__(self, norm: nn.RMSNorm) -> None:
        super().__init__()
        self.weight = norm.weight
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return x


class TextEncoder(nn.Module):
    """Qwen3-VL without its language-model head, read at the last decoder layer."""

    def __init__(self, config: dict[str, Any]) -> None:
        """`config` is the checkpoint's `config.json`. Raises ValueError on one of another model."""
        super().__init__()
        from transformers import Qwen3VLConfig, Qwen3VLModel

        if config.get("model_type") != "qwen3_vl":
            raise ValueError(f"text encoder of type {config.get('model_type')!r}, expected 'qwen3_vl'")
        self.config: Any = Qwen3VLConfig.from_dict(with_both_rope_spellings(config))
        self.config._attn_implementation = "sdpa"
        self.model = Qwen3VLModel._from_config(self.config)
        self.model.visual.patch_embed = PatchEmbed(self.model.visual.patch_embed.proj)
        _fuse_norms(self.model.language_model)
        self.model.language_model.norm = BypassedNorm(self.model.language_model.norm)
        self.image_token = int(self.config.image_token_id)
        self.layers = DecoderLayers(self.model.language_model)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.language_model.embed_tokens.weight.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.language_model.norm.weight.device
        return device

    def rebuild_rotary(self, device: torch.device) -> None:
        """Compute the rotary frequencies after a build on the meta device. No checkpoint holds them."""
        text, vision = self.config.text_config, self.config.vision_config
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        set_frequencies(self.model.language_model.rotary_emb, head_dim, rope_theta(text), device)
        set_frequencies(self.model.visual.rotary_pos_emb, vision.hidden_size // vision.num_heads // 2, 10000.0, device)

    def see(self, pixel_values: Tensor, grid: MergedGrid) -> PictureFeatures:
        """Run one picture through the vision tower.

        `pixel_values`: (4P, 3 * 2 * 16 * 16) patches of Qwen's image processor; `grid`: merged rows
        and columns, rows * columns = P.
        """
        merge = self.config.vision_config.spatial_merge_size
        thw = torch.tensor([[1, grid[0] * merge, grid[1] * merge]], device=self.device)
        out = self.model.visual(pixel_values.to(self.device, self.dtype), grid_thw=thw)
        if isinstance(out, tuple):  # transformers 4.57
            embeddings, deepstack = out
        else:
            embeddings, deepstack = out.pooler_output, out.deepstack_features
        return PictureFeatures(embeddings=embeddings, deepstack=tuple(deepstack or ()), grid=grid)

    def prepare(
        self,
        batch: TokenBatch,
        embeddings: Tensor | None = None,
        deepstack: Sequence[Tensor] = (),
        cache: Any = None,
    ) -> Reading:
        """A batch that is ready for the decoder layers.

        `embeddings` (P, D) and `deepstack` are the vision tower's outputs for all pictures of the
        batch, in order; None and () without pictures. `cache`, a transformers Cache, holds keys and values of the
        tokens before the batch, and those of the batch are added to it.
        """
        table = self.model.language_model.embed_tokens
        ids = batch.ids.to(self.device)
        is_picture = (ids == self.image_token) & batch.real.to(self.device)
        # The table may have stayed on the host: a lookup there is a small copy.
        inputs = table(batch.ids.to(table.weight.device)).to(self.device)
        if embeddings is None:
            return self.layers.prepare(batch, inputs, cache=cache)
        inputs = inputs.masked_scatter(is_picture[..., None], embeddings.to(inputs.dtype))
        return self.layers.prepare(batch, inputs, is_picture, deepstack, cache)

    def hidden(
        self,
        batch: TokenBatch,
        embeddings: Tensor | None = None,
        deepstack: Sequence[Tensor] = (),
        cache: Any = None,
    ) -> Tensor:
        """Output of the last decoder layer before the final norm: (N, L, D), padding included.

        It takes what `prepare` takes.
        """
        reading = self.prepare(batch, embeddings, deepstack, cache)
        self.layers.run([Chain(prefix=reading)])
        assert reading.features is not None
        return reading.features

    def read_prefix(
        self, ids: Sequence[int], pictures: Sequence[PictureFeatures], known: Prefix | None = None
    ) -> Prefix:
        """Read a prompt's first tokens, with their pictures. `known`: the first of them, if they were read before.

        The encoder is causal: what follows does not change these features, keys and values.
        """
        request = Request(ids=ids, pictures=pictures, known=known)
        self.read_together([request])
        assert request.prefix is not None
        return request.prefix

    def read_suffixes(self, prefix: Prefix, suffixes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Features (L_i, D) of texts without pictures that follow one prefix.

        They form one row, not a batch: no token is padding, and the prefix's keys are not repeated.
        """
        request = Request(prefix=prefix, suffixes=[suffixes])
        self.read_together([request])
        return request.features[0]

    def read_together(self, requests: Sequence[Request]) -> None:
        """Read prefixes and the texts behind them, all of them in one pass over the decoder layers."""
        chains = [self._chain(request) for request in requests]
        self.layers.run(chains)
        for request, chain in zip(requests, chains, strict=True):
            if chain.prefix is not None:
                request.prefix = self._prefix_of(request, chain)
            followers = iter(chain.followers)
            request.features = [
                [
                    features
                    for chunk in chunks(group, SUFFIX_TOKENS)
                    for features in _features(next(followers))[0].split([len(ids) for ids in chunk])
                ]
                for group in request.suffixes
            ]

    def _chain(self, request: Request) -> Chain:
        """A request that is ready for the decoder layers."""
        chain = Chain(keep=request.keep)
        if request.prefix is not None:
            chain.known = request.prefix
            length, position = len(request.prefix.features), request.prefix.next_position
        else:
            batch = pack_prompts([(request.ids, [p.grid for p in request.pictures])], self.image_token)
            length, position = len(request.ids), int(batch.positions[1:].max()) + 1
            if request.known is not None:
                batch = without_prefix(batch, len(request.known.features))
            chain.prefix = self.prepare(batch, *_joined(request.pictures), _cache(request.known))
            request.next_position = position
        for chunk in (chunk for group in request.suffixes for chunk in chunks(group, SUFFIX_TOKENS)):
            chain.followers.append(self.prepare(pack_suffixes(chunk, length, position), cache=empty_cache()))
        return chain

    def _prefix_of(self, request: Request, chain: Chain) -> Prefix:
        assert chain.prefix is not None
        features, known = _features(chain.prefix)[0], request.known
        layers = range(self.config.text_config.num_hidden_layers)
        pairs = [layer_of(chain.prefix.cache, layer) for layer in layers]
        return Prefix(
            features=features if known is None else torch.cat([known.features, features]),
            keys=tuple(key for key, _ in pairs),
            values=tuple(value for _, value in pairs),
            next_position=request.next_position,
        )

    def forward(self, prompts: Sequence[Prompt], padding: Literal["right", "left"] = "right") -> list[Tensor]:
        """Features of each prompt, before the final norm: a list of (L_i, D). All prompts form one batch."""
        packed = [(p.ids, [picture.grid for picture in p.pictures]) for p in prompts]
        batch = pack_prompts(packed, self.image_token, padding)
        pictures = [picture for prompt in prompts for picture in prompt.pictures]
        hidden = self.hidden(batch, *_joined(pictures))
        return [row[mask] for row, mask in zip(hidden, batch.real.to(self.device), strict=True)]


def _fuse_norms(module: nn.Module) -> None:
    """Exchange transformers' RMS norms, six kernels each, for torch's single one with the same weights."""
    child: Any
    for name, child in module.named_children():
        if hasattr(child, "variance_epsilon"):
            fused = nn.RMSNorm(len(child.weight), eps=child.variance_epsilon, device="meta")
            fused.weight = child.weight
            setattr(module, name, fused)
        else:
            _fuse_norms(child)


def _joined(pictures: Sequence[PictureFeatures]) -> tuple[Tensor | None, list[Tensor]]:
    """The vision tower's outputs for several pictures, one after the other."""
    if not pictures:
        return None, []
    levels = zip(*(p.deepstack for p in pictures), strict=True)
    return torch.cat([p.embeddings for p in pictures]), [torch.cat(level) for level in levels]


def _features(reading: Reading) -> Tensor:
    assert reading.features is not None
    return reading.features


def _cache(prefix: Prefix | None) -> Any:
    """A transformers Cache that holds these keys and values, or nothing."""
    cache = empty_cache()
    if prefix is not None:
        for layer, (key, value) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
            cache.update(key, value, layer)
    return cache
