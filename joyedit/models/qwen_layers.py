"""The decoder layers of the text encoder, over one text or over several side by side, layer by layer.

Each text goes through a layer by itself, so its features do not depend on its company. Side by side means that a
layer's weights are needed once for all texts: that counts where they come from the host's memory.

Legend: L tokens of one text, D hidden channels, Hkv key and value heads, Dh channels of such a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from joyedit.models.qwen_prompts import Prefix, TokenBatch
from joyedit.models.strategies import LayerWeights, ResidentWeights


class _Caught(Exception):  # noqa: N818 - no error: it ends a forward that was called for its preparations
    """The first layer was called."""


@dataclass(kw_only=True)
class Reading:
    """A text on its way through the layers. `features` is what the last layer gave, (N, L, D)."""

    hidden: Tensor
    arguments: dict[str, Any]
    cache: Any = None
    visual_mask: Tensor | None = None
    deepstack: Sequence[Tensor] = ()
    features: Tensor | None = None


@dataclass(kw_only=True)
class Chain:
    """A prefix, and the texts that follow it. `prefix` is the reading of it, or `known` what was read before.

    With `keep`, the keys and values of `prefix` stay in its cache; else they go layer by layer.
    """

    prefix: Reading | None = None
    known: Prefix | None = None
    keep: bool = True
    followers: list[Reading] = field(default_factory=list)


class DecoderLayers:
    """transformers' decoder layers with a loop of our own. `weights` says where the layers' weights are."""

    def __init__(self, language: nn.Module) -> None:
        self.weights: LayerWeights = ResidentWeights()
        self._language: Any = language
        # transformers 5.24 renamed this argument.
        arguments = inspect.signature(language.forward).parameters
        self._cache_argument = "cache" if "cache" in arguments else "past_key_values"

    def prepare(
        self,
        batch: TokenBatch,
        inputs: Tensor,
        visual_mask: Tensor | None = None,
        deepstack: Sequence[Tensor] = (),
        cache: Any = None,
    ) -> Reading:
        """What transformers gives to the first layer for these embedded tokens (N, L, D): masks, positions, rotations.

        `deepstack` are the vision tower's outputs for the tokens of `visual_mask` (N, L), one (P, D) tensor a level.
        `cache`, a transformers Cache, holds keys and values of the tokens before; those of the batch are added to it.
        """
        caught: list[dict[str, Any]] = []

        def catch(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append({"hidden_states": args[0], **kwargs} if args else kwargs)
            raise _Caught

        # With padding on the right, causal attention hides the padding from every real token.
        mask = batch.real if batch.left_padded else batch.visible
        handle = self._language.layers[0].register_forward_pre_hook(catch, with_kwargs=True, prepend=True)
        try:
            self._language(
                inputs_embeds=inputs,
                attention_mask=None if mask is None else mask.to(inputs.device),
                position_ids=batch.positions.to(inputs.device),
                use_cache=cache is not None,
                **{self._cache_argument: cache},
            )
        except _Caught:
            pass
        finally:
            handle.remove()
        arguments = caught[0]
        hidden = arguments.pop("hidden_states")
        return Reading(hidden=hidden, arguments=arguments, cache=cache, visual_mask=visual_mask, deepstack=deepstack)

    def run(self, chains: Sequence[Chain]) -> None:
        """Take all readings of the chains through all layers. A prefix comes before its followers in each layer."""
        last = len(self._language.layers) - 1
        for number, layer in enumerate(self._language.layers):
            self.weights.need(number)
            for chain in chains:
                self._one_layer(chain, number, layer, number == last)
            self.weights.used(number)

    def _one_layer(self, chain: Chain, number: int, layer: Any, is_last: bool) -> None:
        first = chain.prefix
        if first is not None:
            self._step(first, number, layer, is_last)
        for follower in chain.followers:
            if first is not None:
                keys, values = layer_of(first.cache, number)
            else:
                assert chain.known is not None
                keys, values = chain.known.keys[number], chain.known.values[number]
            follower.cache.update(keys, values, number)
            self._step(follower, number, layer, is_last)
            _drop(follower.cache, number)
        if first is not None and not chain.keep:
            _drop(first.cache, number)

    def _step(self, reading: Reading, number: int, layer: Any, is_last: bool) -> None:
        # The module's own forward: hooks of the module would count each text as a use of its weights.
        output = layer.forward(reading.hidden, **reading.arguments)
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        if is_last:
            reading.features = hidden
        if number < len(reading.deepstack) and reading.visual_mask is not None:
            hidden = hidden.clone()
            hidden[reading.visual_mask] += reading.deepstack[number].to(hidden.dtype)
        reading.hidden = hidden


def empty_cache() -> Any:
    """A transformers Cache that holds nothing."""
    from transformers import DynamicCache

    return DynamicCache()


def layer_of(cache: Any, layer: int) -> tuple[Tensor, Tensor]:
    """Keys and values of one layer, (1, Hkv, L, Dh) each. Both 4.57 and 5.x keep them in `layers`."""
    found = cache.layers[layer]
    return found.keys, found.values


def _drop(cache: Any, layer: int) -> None:
    """Give the memory of a layer's keys and values back."""
    if cache is not None:
        found = cache.layers[layer]
        found.keys, found.values = (torch.empty(0, dtype=t.dtype, device=t.device) for t in layer_of(cache, layer))
