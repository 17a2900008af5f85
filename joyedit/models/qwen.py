"""The text encoder: transformers' Qwen3-VL with its last decoder layer hooked.

It works on transformers 4.57 and 5.x. The releases differ in three things, so joyedit computes them itself: the
multimodal rotary positions, the rotary buffers of a network built on the meta device, and the features, which are the
output of the last decoder layer BEFORE the final norm. Only files named `qwen*` import transformers.

Legend: N prompts, L tokens of one prompt, P merged picture patches, D hidden channels.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        # transformers 5.24 renamed this argument.
        arguments = inspect.signature(self.model.language_model.forward).parameters
        self._cache_argument = "cache" if "cache" in arguments else "past_key_values"

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

    def hidden(
        self,
        batch: TokenBatch,
        embeddings: Tensor | None = None,
        deepstack: Sequence[Tensor] = (),
        cache: Any = None,
    ) -> Tensor:
        """Output of the last decoder layer before the final norm: (N, L, D), padding included.

        `embeddings` (P, D) and `deepstack` are the vision tower's outputs for all pictures of the
        batch, in order; None and () without pictures. `cache`, a transformers Cache, holds keys and values of the
        tokens before the batch, and those of the batch are added to it.
        """
        language = self.model.language_model
        ids = batch.ids.to(self.device)
        is_picture = (ids == self.image_token) & batch.real.to(self.device)
        # The table may have stayed on the host: a lookup there is a small copy.
        inputs = language.embed_tokens(ids.to(language.embed_tokens.weight.device)).to(self.device)
        if embeddings is not None:
            inputs = inputs.masked_scatter(is_picture[..., None], embeddings.to(inputs.dtype))
        captured: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            captured.append(output[0] if isinstance(output, tuple) else output)

        handle = language.layers[-1].register_forward_hook(keep)
        # With padding on the right, causal attention hides the padding from every real token.
        mask = batch.real if batch.left_padded else batch.visible
        try:
            language(
                inputs_embeds=inputs,
                attention_mask=None if mask is None else mask.to(self.device),
                position_ids=batch.positions.to(self.device),
                visual_pos_masks=None if embeddings is None else is_picture,
                deepstack_visual_embeds=None if embeddings is None else list(deepstack),
                use_cache=cache is not None,
                **{self._cache_argument: cache},
            )
        finally:
            handle.remove()
        return captured[0]

    def read_prefix(
        self, ids: Sequence[int], pictures: Sequence[PictureFeatures], known: Prefix | None = None
    ) -> Prefix:
        """Read a prompt's first tokens, with their pictures. `known`: the first of them, if they were read before.

        The encoder is causal: what follows does not change these features, keys and values.
        """
        batch = pack_prompts([(ids, [p.grid for p in pictures])], self.image_token)
        next_position = int(batch.positions[1:].max()) + 1
        cache = _cache(known)
        if known is not None:
            batch = without_prefix(batch, len(known.features))
        features = self.hidden(batch, *_joined(pictures), cache)[0]
        layers = range(self.config.text_config.num_hidden_layers)
        pairs = [_layer_of(cache, layer) for layer in layers]
        return Prefix(
            features=features if known is None else torch.cat([known.features, features]),
            keys=tuple(key for key, _ in pairs),
            values=tuple(value for _, value in pairs),
            next_position=next_position,
        )

    def read_suffixes(self, prefix: Prefix, suffixes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Features (L_i, D) of texts without pictures that follow one prefix.

        They form one row, not a batch: no token is padding, and the prefix's keys are not repeated.
        """
        found: list[Tensor] = []
        for chunk in chunks(suffixes, SUFFIX_TOKENS):
            batch = pack_suffixes(chunk, len(prefix.features), prefix.next_position)
            found += self.hidden(batch, cache=_cache(prefix))[0].split([len(ids) for ids in chunk])
        return found

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


def _cache(prefix: Prefix | None) -> Any:
    """A transformers Cache that holds these keys and values, or nothing."""
    from transformers import DynamicCache

    cache = DynamicCache()
    if prefix is not None:
        for layer, (key, value) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
            cache.update(key, value, layer)
    return cache


def _layer_of(cache: Any, layer: int) -> tuple[Tensor, Tensor]:
    """Keys and values of one layer. Both 4.57 and 5.x keep them in `layers`."""
    found = cache.layers[layer]
    return found.keys, found.values
