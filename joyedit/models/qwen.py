"""The text encoder: transformers' Qwen3-VL with its last decoder layer hooked.

The only file that imports transformers. It works on transformers 4.57 and 5.x, and takes three
things into its own hands because the releases differ in them: the multimodal rotary positions, the
rotary buffers of a network built on the meta device, and the features, which are the output of the
last decoder layer BEFORE the final norm.

Legend: N prompts, L tokens of one prompt, P merged picture patches, D hidden channels.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SUFFIX_TOKENS = 1024
"""So many tokens of suffixes go in one row at most: what they may see grows with the square."""

Grid = tuple[int, int]
"""(rows, columns) of merged patches of one picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFeatures:
    """One picture through the vision tower: embeddings (P, D) and one (P, D) tensor a deepstack level."""

    embeddings: Tensor
    deepstack: tuple[Tensor, ...]
    grid: Grid


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Token ids of one prompt, in which each picture's placeholders are already repeated P times."""

    ids: tuple[int, ...]
    pictures: tuple[PictureFeatures, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix:
    """The opening that several prompts share, read once.

    `features`: (L, D), before the final norm. `keys`, `values`: one (1, Hkv, L, Dh) tensor a layer.
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

    `visible`: which tokens each token may see, if not all before it: bool (1, 1, L, known + L).
    """

    ids: Tensor
    real: Tensor
    positions: Tensor
    left_padded: bool
    visible: Tensor | None = None


def rope_positions(ids: Sequence[int], grids: Sequence[Grid], image_token: int) -> Tensor:
    """Multimodal rotary positions of a prompt: int64 (3, L), rows time, height, width.

    Text counts on in all three. A picture holds one time position; its rows and columns count from
    there, and the text after it goes on behind the longer side.
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
    prompts: Sequence[tuple[Sequence[int], Sequence[Grid]]],
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
    # A first row of plain positions: without it, 4.57 takes equal time positions for packed sequences.
    batch.positions[0] = torch.arange(shape[1])
    for row, (ids, grids) in enumerate(prompts):
        start = shape[1] - len(ids) if padding == "left" else 0
        span = slice(start, start + len(ids))
        batch.ids[row, span] = torch.tensor(ids)
        batch.real[row, span] = True
        batch.positions[1:, row, span] = rope_positions(ids, grids, image_token)
    return batch


def behind(batch: TokenBatch, known: int) -> TokenBatch:
    """The one prompt of a batch without its first `known` tokens, which each of the others still sees."""
    length = batch.ids.shape[1]
    return TokenBatch(
        ids=batch.ids[:, known:],
        real=batch.real[:, known:],
        positions=batch.positions[..., known:],
        left_padded=False,
        visible=torch.ones(length, length, dtype=torch.bool).tril()[known:][None, None],
    )


def pack_suffixes(suffixes: Sequence[Sequence[int]], known: int, next_position: int) -> TokenBatch:
    """Texts that all follow the same `known` tokens, one after the other as one row without padding.

    Each token sees what is known and its own text up to itself. `next_position` is the rotary position of
    every text's first token.
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
    """Neighbours with together at most `most` tokens; a longer text goes alone."""
    chunk: list[Sequence[int]] = []
    for ids in suffixes:
        if chunk and sum(map(len, chunk)) + len(ids) > most:
            yield chunk
            chunk = []
        chunk.append(ids)
    if chunk:
        yield chunk


class PatchEmbed(nn.Module):
    """The vision tower's patch embedding as what it is, one product; a 3-D convolution takes several times as long."""

    def __init__(self, proj: nn.Conv3d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(4P, 3 * 2 * 16 * 16) -> (4P, hidden)."""
        return F.linear(pixel_values.to(self.proj.weight.dtype), self.proj.weight.flatten(1), self.proj.bias)


class BypassedNorm(nn.Module):
    """The final norm. Features are read before it: its weight is kept, as the checkpoint has it, and nothing runs."""

    def __init__(self, norm: nn.RMSNorm) -> None:
        super().__init__()
        self.weight = norm.weight
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return x

    def normed(self, x: Tensor) -> Tensor:
        """What it would make of (..., D)."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class TextEncoder(nn.Module):
    """Qwen3-VL without its language-model head, read at the last decoder layer."""

    def __init__(self, config: dict[str, Any]) -> None:
        """`config` is the checkpoint's `config.json`. Raises ValueError on one of another model."""
        super().__init__()
        from transformers import Qwen3VLConfig, Qwen3VLModel

        if config.get("model_type") != "qwen3_vl":
            raise ValueError(f"text encoder of type {config.get('model_type')!r}, expected 'qwen3_vl'")
        self.config: Any = Qwen3VLConfig.from_dict(_with_both_rope_spellings(config))
        self.config._attn_implementation = "sdpa"
        self.model = Qwen3VLModel._from_config(self.config)
        self.model.visual.patch_embed = PatchEmbed(self.model.visual.patch_embed.proj)
        _fuse_norms(self.model.language_model)
        self.model.language_model.norm = BypassedNorm(self.model.language_model.norm)
        self.image_token = int(self.config.image_token_id)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.language_model.embed_tokens.weight.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.language_model.embed_tokens.weight.device
        return device

    def rebuild_rotary(self, device: torch.device) -> None:
        """Compute the rotary frequencies, which no checkpoint holds, after a build on the meta device."""
        text, vision = self.config.text_config, self.config.vision_config
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        _set_frequencies(self.model.language_model.rotary_emb, head_dim, _rope_theta(text), device)
        _set_frequencies(self.model.visual.rotary_pos_emb, vision.hidden_size // vision.num_heads // 2, 10000.0, device)

    def see(self, pixel_values: Tensor, grid: Grid) -> PictureFeatures:
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
        batch, in order; None and () without pictures. `cache`, a transformers Cache, holds what came
        before the batch and takes what the batch adds.
        """
        language = self.model.language_model
        ids = batch.ids.to(self.device)
        is_picture = (ids == self.image_token) & batch.real.to(self.device)
        inputs = language.embed_tokens(ids)
        if embeddings is not None:
            inputs = inputs.masked_scatter(is_picture[..., None], embeddings.to(inputs.dtype))
        captured: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            captured.append(output[0] if isinstance(output, tuple) else output)

        handle = language.layers[-1].register_forward_hook(keep)
        # Padded on the right, the causal attention keeps the padding from every real token.
        mask = batch.real if batch.left_padded else batch.visible
        try:
            language(
                inputs_embeds=inputs,
                attention_mask=None if mask is None else mask.to(self.device),
                position_ids=batch.positions.to(self.device),
                visual_pos_masks=None if embeddings is None else is_picture,
                deepstack_visual_embeds=None if embeddings is None else list(deepstack),
                past_key_values=cache,
                use_cache=cache is not None,
            )
        finally:
            handle.remove()
        return captured[0]

    def open(self, ids: Sequence[int], pictures: Sequence[PictureFeatures], known: Prefix | None = None) -> Prefix:
        """Read the opening of a prompt, its pictures included. `known`: its first tokens, if they were read before.

        The encoder is causal, so whatever follows, these features and keys and values stay the same.
        """
        batch = pack_prompts([(ids, [p.grid for p in pictures])], self.image_token)
        next_position = int(batch.positions[1:].max()) + 1
        cache = _cache(known)
        if known is not None:
            batch = behind(batch, len(known.features))
        features = self.hidden(batch, *_joined(pictures), cache)[0]
        layers = range(self.config.text_config.num_hidden_layers)
        pairs = [_layer_of(cache, layer) for layer in layers]
        return Prefix(
            features=features if known is None else torch.cat([known.features, features]),
            keys=tuple(key for key, _ in pairs),
            values=tuple(value for _, value in pairs),
            next_position=next_position,
        )

    def follow(self, prefix: Prefix, suffixes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Features (L_i, D) of texts without pictures that follow one opening.

        They go in one row, not in a batch: no token is padding, and the opening's keys are not repeated.
        """
        found: list[Tensor] = []
        for chunk in chunks(suffixes, SUFFIX_TOKENS):
            batch = pack_suffixes(chunk, len(prefix.features), prefix.next_position)
            found += self.hidden(batch, cache=_cache(prefix))[0].split([len(ids) for ids in chunk])
        return found

    def forward(self, prompts: Sequence[Prompt], padding: Literal["right", "left"] = "right") -> list[Tensor]:
        """Features of each prompt, before the final norm: a list of (L_i, D). All go in one batch."""
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


def load_image_processor(folder: Path) -> Any:
    """Qwen's image processor on PIL, which needs no torchvision, with the checkpoint's settings."""
    try:
        module = importlib.import_module("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
        processor: Any = module.Qwen2VLImageProcessorPil
    except ImportError:  # transformers 4.57
        processor = importlib.import_module("transformers").Qwen2VLImageProcessor
    # 4.57 drops `size` and keeps limits of its own, which would shrink a picture of 1024 x 1024;
    # both releases obey these two names.
    config = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    size = config.get("size") or {}
    limits = {
        "min_pixels": config.get("min_pixels") or size.get("shortest_edge"),
        "max_pixels": config.get("max_pixels") or size.get("longest_edge"),
    }
    return processor.from_pretrained(folder, **{name: n for name, n in limits.items() if n})


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's own tokenizer. No remote code is run."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _rope_theta(text_config: Any) -> float:
    parameters = getattr(text_config, "rope_parameters", None) or {}
    theta = parameters.get("rope_theta") or getattr(text_config, "rope_theta", None)
    kind = parameters.get("rope_type") or (getattr(text_config, "rope_scaling", None) or {}).get("rope_type")
    if theta is None or kind not in (None, "default"):
        raise ValueError(f"text encoder with rope_type {kind!r} and theta {theta!r} is not supported")
    return float(theta)


def _set_frequencies(rotary: nn.Module, dim: int, theta: float, device: torch.device) -> None:
    frequencies = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    for name in ("inv_freq", "original_inv_freq"):
        if hasattr(rotary, name):
            setattr(rotary, name, frequencies.to(device))


def _with_both_rope_spellings(config: dict[str, Any]) -> dict[str, Any]:
    """4.57 writes `rope_theta` and `rope_scaling`, 5.x `rope_parameters`; each reads only its own."""
    text = dict(config.get("text_config") or {})
    parameters = dict(text.get("rope_parameters") or {})
    scaling = dict(text.get("rope_scaling") or {})
    theta = parameters.get("rope_theta", text.get("rope_theta"))
    merged = {**scaling, **parameters}
    if theta is not None:
        merged["rope_theta"] = theta
        text["rope_theta"] = theta
    if merged:
        merged.setdefault("rope_type", "default")
        text["rope_parameters"] = merged
        text["rope_scaling"] = {k: v for k, v in merged.items() if k != "rope_theta"}
    return {**config, "text_config": text}
