"""A batch becomes conditioning: text features, reference latents and noise. What pictures alone decide is kept.

Several ranks divide this work: see `parts`.

Latents and prompt prefixes are stored by the content of their pictures, so both guidance branches, all
instructions for a picture and all items that show it share them. So are the features of its texts: items that differ
in nothing but seed, steps or guidance read them once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from joyedit.errors import ItemError
from joyedit.models import flops
from joyedit.models.qwen import TextEncoder
from joyedit.models.qwen_prompts import PictureFeatures, Prefix
from joyedit.models.vae import VAE
from joyedit.runtime.joyimage.conditioning import Conditioner, Prompts
from joyedit.runtime.joyimage.denoise import ALONE, Ranks, initial_noise
from joyedit.runtime.joyimage.feature_cache import ContentCache
from joyedit.runtime.joyimage.parts import PICTURE_READ, TEXT_READ, EncodedParts, divide
from joyedit.runtime.joyimage.pixels import levels_of, scaled
from joyedit.runtime.joyimage.streams import Streams
from joyedit.runtime.protocol import ReadyBatch, ReadyItem

ContentKey = tuple[bytes, ...]
"""What an item's references look like, in order."""
Part = tuple[ContentKey, str] | bytes
"""What a part of the conditioning is made of: a text behind pictures, or a picture."""
Company = tuple[str, ...]
"""The ids of the items of a batch."""


class BatchEncoder:
    """Text encoder and VAE encoder, with what they computed before.

    `operations` counts the floating-point operations so far, by formula; what comes from the cache takes none.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        vae: VAE,
        conditioner: Conditioner,
        streams: Streams,
        cache: ContentCache,
        *,
        together: int = 1,
        all_seen: Callable[[], None] = lambda: None,
    ) -> None:
        """`together`: how many prefixes are read side by side; 0 stands for all of a batch. That saves passes over the
        encoder's layers, and takes memory. `all_seen` is called after the vision tower's work for them.
        """
        self.operations = 0
        self._ready: dict[Company, dict[tuple[ContentKey, str], Tensor]] = {}
        self._together = together
        self._all_seen = all_seen
        self._config = text_encoder.config
        self._vae = vae
        self._conditioner = conditioner
        self._streams = streams
        self._cache = cache

    def encode(self, batch: ReadyBatch, ranks: Ranks = ALONE) -> EncodedParts:
        """What the batch is denoised from, on the device: the parts that this one of the ranks computes.

        Raises ItemError for a text that is too long, before anything else is done.
        """
        self._refuse_long_texts(batch)
        samplings = [ready.item.sampling for ready in batch.items]
        keys = self._keys(batch)
        noise = torch.cat([self._noise(sampling.seed, *batch.target) for sampling in samplings])
        owners = _owners(batch, keys, ranks)
        company = _company(batch)
        texts = self._ready.pop(company, None) or self._read([batch], ranks)[company]
        numbers: dict[Part, int] = {}
        own: dict[int, Tensor] = {}
        for ready, key in zip(batch.items, keys, strict=True):
            for text in _texts(ready):
                number = numbers.setdefault((key, text), len(numbers))
                if owners[key] == ranks.rank:
                    own[number] = texts[key, text]
            for picture, digest in zip(ready.pictures, key, strict=True):
                number = numbers.setdefault(digest, len(numbers))
                if owners[digest] == ranks.rank and number not in own:
                    own[number] = self._latent(picture, digest)
        return EncodedParts(
            own=own,
            count=len(numbers),
            noise=self._streams.to_device(noise),
            positive=tuple(numbers[key, ready.item.instruction] for key, ready in zip(keys, batch.items, strict=True)),
            negative=tuple(
                numbers[key, sampling.negative_prompt] if sampling.guidance_scale > 1 else None
                for key, sampling in zip(keys, samplings, strict=True)
            ),
            references=tuple(tuple(numbers[key[slot]] for key in keys) for slot in range(len(keys[0]))),
            scales=tuple(sampling.guidance_scale for sampling in samplings),
        )

    def prepare(self, batches: Sequence[ReadyBatch], ranks: Ranks = ALONE) -> None:
        """Read the texts of several batches side by side, for the calls of `encode` that follow.

        What an earlier call read and nobody used is dropped. A batch with a text that is too long is left to `encode`.
        """
        self._ready = {}
        fitting = [batch for batch in batches if all(self._fits(ready) for ready in batch.items)]
        self._ready = self._read(fitting, ranks)

    def drop_ready(self) -> None:
        """Forget what `prepare` has read."""
        self._ready = {}

    def _keys(self, batch: ReadyBatch) -> list[ContentKey]:
        """What each item's references look like. A picture that items share is looked at once."""
        known = {id(picture): picture for ready in batch.items for picture in ready.pictures}
        digests = {name: content_key(picture) for name, picture in known.items()}
        return [tuple(digests[id(picture)] for picture in ready.pictures) for ready in batch.items]

    def _fits(self, ready: ReadyItem) -> bool:
        try:
            self._refuse_long_text(ready)
        except ItemError:
            return False
        return True

    def _refuse_long_texts(self, batch: ReadyBatch) -> None:
        for ready in batch.items:
            self._refuse_long_text(ready)

    def _refuse_long_text(self, ready: ReadyItem) -> None:
        builder, has_pictures, sampling = self._conditioner.builder, bool(ready.pictures), ready.item.sampling
        builder.suffix(ready.item.instruction, has_pictures)
        if sampling.guidance_scale > 1:
            builder.suffix(sampling.negative_prompt, has_pictures, "negative prompt")

    def _noise(self, seed: int, height: int, width: int) -> Tensor:
        factor = self._vae.cfg.spatial_factor
        return initial_noise(seed, self._vae.cfg.z_dim, height // factor, width // factor)

    def _read(self, batches: Sequence[ReadyBatch], ranks: Ranks) -> dict[Company, dict[tuple[ContentKey, str], Tensor]]:
        """Features (L, D) of each batch, by pictures and text: of those texts that are this rank's.

        Texts behind the same pictures share a prefix. Those of one batch are packed together; those of another batch
        never are, as that would change their roundings.
        """
        wanted: dict[ContentKey, _Wanted] = {}
        for batch in batches:
            keys = self._keys(batch)
            owners = _owners(batch, keys, ranks)
            for key, one in _wanted(batch, keys).items():
                if owners[key] == ranks.rank:
                    wanted.setdefault(key, one).texts.update(one.texts)
        found: dict[Company, dict[tuple[ContentKey, str], Tensor]] = {_company(batch): {} for batch in batches}
        alike: dict[tuple[ContentKey, tuple[str, ...]], list[Company]] = {}
        for key, one in wanted.items():
            self._take_read(key, one, found)
            for company, texts in list(one.texts.items()):
                others = alike.setdefault((key, tuple(texts)), [])
                others.append(company)
                if len(others) > 1:  # the first of them is read for all
                    del one.texts[company]
        whole = [(key, one) for key, one in wanted.items() if one.texts]
        size = self._together or max(1, len(whole))
        for part in (whole[start : start + size] for start in range(0, len(whole), size)):
            prompts = [self._prompts(key, one) for key, one in part]
            self._all_seen()
            self._read_together(prompts, [key for key, _ in part])
            for (key, one), read in zip(part, prompts, strict=True):
                for texts, features in zip(one.texts.values(), read.features, strict=True):
                    for each in alike[key, tuple(texts)]:
                        found[each] |= {(key, text): f for text, f in zip(texts, features, strict=True)}
                    self._cache.put(("texts", key, tuple(texts)), _Texts(tuple(features)))
        return found

    def _take_read(
        self, key: ContentKey, wanted: _Wanted, found: dict[Company, dict[tuple[ContentKey, str], Tensor]]
    ) -> None:
        """Take what an earlier batch has read behind these pictures out of `wanted`, and put it into `found`.

        Only the same texts together count: with others beside them they would have other roundings.
        """
        for company, texts in list(wanted.texts.items()):
            known: _Texts | None = self._cache.find(("texts", key, tuple(texts)))
            if known is not None:
                found[company] |= {(key, text): f for text, f in zip(texts, known.features, strict=True)}
                del wanted.texts[company]

    def _prompts(self, key: ContentKey, wanted: _Wanted) -> Prompts:
        prompts = Prompts(
            prefix=self._cache.find(("prefix", key)),
            instructions=[list(texts) for texts in wanted.texts.values()],
            has_pictures=bool(wanted.pictures),
        )
        if prompts.prefix is None:
            prompts.pictures = [self._conditioner.see(picture) for picture in wanted.pictures]
        return prompts

    def _read_together(self, prompts: Sequence[Prompts], keys: Sequence[ContentKey]) -> None:
        """Read them, count the operations, and keep what there is room for."""
        new = [(one, key) for one, key in zip(prompts, keys, strict=True) if one.prefix is None]
        if not self._together:  # all at once: keys and values of all of them would be there together
            room = self._cache.capacity
            for one, _ in reversed(new):
                room -= self._prefix_bytes(one)
                one.keep = room >= 0
        self._conditioner.read_together(prompts)
        for one, key in new:
            assert one.prefix is not None
            self._count_prefix(one.prefix, one.pictures)
            if one.keep:
                self._cache.put(("prefix", key), one.prefix)
        for one in prompts:
            assert one.prefix is not None
            for features in one.features:
                self._count_suffixes(one.prefix, features)

    def _prefix_bytes(self, prompts: Prompts) -> int:
        """Bytes of what is kept of a prefix: features, and keys and values of all layers."""
        text = self._config.text_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        tokens = len(self._conditioner.builder.prefix([p.grid[0] * p.grid[1] for p in prompts.pictures]))
        a_token = text.hidden_size + 2 * text.num_hidden_layers * text.num_key_value_heads * head
        return int(tokens * a_token * self._vae.dtype.itemsize)

    def _count_suffixes(self, prefix: Prefix, features: Sequence[Tensor]) -> None:
        length = len(prefix.features)
        kept = length - self._conditioner.builder.dropped
        self.operations += sum(
            flops.text_encoder(self._config.text_config, len(f) - kept, length) for f in features if len(f) > kept
        )

    def _count_prefix(self, prefix: Prefix, seen: Sequence[PictureFeatures]) -> None:
        text, vision = self._config.text_config, self._config.vision_config
        merge = vision.spatial_merge_size
        shared = self._conditioner.builder.shared(len(prefix.features))
        self.operations += flops.text_encoder(text, len(prefix.features) - shared, shared)
        self.operations += sum(
            flops.vision_tower(vision, merge * rows, merge * columns)
            for rows, columns in (features.grid for features in seen)
        )

    def _latent(self, picture: Image.Image, key: bytes) -> Tensor:
        return self._cache.get(("latent", key), partial(self._vae_encode, picture))

    def _vae_encode(self, picture: Image.Image) -> Tensor:
        self.operations += flops.vae_encode(self._vae.cfg, picture.height, picture.width)
        return self._vae.encode(scaled(self._streams.to_device(levels_of(picture))))


@dataclass(frozen=True, slots=True)
class _Texts:
    """What was read of some texts together behind the same pictures: (L, D) for each."""

    features: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in self.features)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """The texts to be read behind the same pictures, by the batch that wants them; each once a batch."""

    pictures: tuple[Image.Image, ...]
    texts: dict[Company, dict[str, None]]


def _company(batch: ReadyBatch) -> Company:
    return tuple(ready.item.id for ready in batch.items)


def _wanted(batch: ReadyBatch, keys: Sequence[ContentKey]) -> dict[ContentKey, _Wanted]:
    """What a batch needs to have read, by its items' pictures."""
    company = _company(batch)
    wanted: dict[ContentKey, _Wanted] = {}
    for ready, key in zip(batch.items, keys, strict=True):
        texts = wanted.setdefault(key, _Wanted(pictures=ready.pictures, texts={company: {}})).texts[company]
        texts.update(dict.fromkeys(_texts(ready)))
    return wanted


def _texts(ready: ReadyItem) -> tuple[str, ...]:
    """The texts of an item's branches."""
    sampling = ready.item.sampling
    guided = (sampling.negative_prompt,) if sampling.guidance_scale > 1 else ()
    return (ready.item.instruction, *guided)


def _owners(batch: ReadyBatch, keys: Sequence[ContentKey], ranks: Ranks) -> dict[ContentKey | bytes, int]:
    """The rank that reads the texts behind these pictures, and the one that makes a picture's latent."""
    costs: dict[ContentKey | bytes, int] = {}
    for ready, key in zip(batch.items, keys, strict=True):
        areas = {digest: one.width * one.height for digest, one in zip(key, ready.pictures, strict=True)}
        costs[key] = TEXT_READ + PICTURE_READ * sum(areas.values())
        for digest, area in areas.items():
            costs[digest] = area
    return divide(costs, ranks.world)


def content_key(picture: Image.Image) -> bytes:
    """A digest of an RGB picture's size and pixels."""
    digest = hashlib.sha256(f"{picture.width}x{picture.height}".encode())
    digest.update(picture.tobytes())
    return digest.digest()
