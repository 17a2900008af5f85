"""A batch becomes conditioning: text features, reference latents and noise. What pictures alone decide is kept.

Latents and prompt prefixes are stored by the content of their pictures, so both guidance branches, all
instructions for a picture and all items that show it share them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from joyedit.models import flops
from joyedit.models.qwen import TextEncoder
from joyedit.models.qwen_prompts import Prefix
from joyedit.models.vae import VAE
from joyedit.runtime.joyimage.conditioning import Conditioner
from joyedit.runtime.joyimage.denoise import Conditioning, initial_noise
from joyedit.runtime.joyimage.feature_cache import ContentCache
from joyedit.runtime.joyimage.pixels import levels_of, scaled
from joyedit.runtime.joyimage.streams import Streams
from joyedit.runtime.protocol import ReadyBatch

ContentKey = tuple[bytes, ...]
"""What an item's references look like, in order."""


class BatchEncoder:
    """Text encoder and VAE encoder, with what they computed before.

    `operations` counts the floating-point operations so far, by formula; what comes from the cache takes none.
    """

    def __init__(
        self, text_encoder: TextEncoder, vae: VAE, conditioner: Conditioner, streams: Streams, cache: ContentCache
    ) -> None:
        self.operations = 0
        self._config = text_encoder.config
        self._vae = vae
        self._conditioner = conditioner
        self._streams = streams
        self._cache = cache

    def encode(self, batch: ReadyBatch) -> Conditioning:
        """What the batch is denoised from, on the device.

        Raises ItemError for a text that is too long, before anything else is done.
        """
        self._refuse_long_texts(batch)
        samplings = [ready.item.sampling for ready in batch.items]
        pictures = [ready.pictures for ready in batch.items]
        known = {id(picture): content_key(picture) for shown in pictures for picture in shown}
        keys = [tuple(known[id(picture)] for picture in shown) for shown in pictures]
        slots = range(len(pictures[0]))
        noise = torch.cat([self._noise(ready.item.sampling.seed, *batch.target) for ready in batch.items])
        texts = self._texts(batch, keys)
        return Conditioning(
            noise=self._streams.to_device(noise),
            references=tuple(
                torch.cat([self._latent(shown[slot], key[slot]) for shown, key in zip(pictures, keys, strict=True)])
                for slot in slots
            ),
            positive=tuple(texts[n, ready.item.instruction] for n, ready in enumerate(batch.items)),
            negative=tuple(
                texts[n, sampling.negative_prompt] if sampling.guidance_scale > 1 else None
                for n, sampling in enumerate(samplings)
            ),
            scales=tuple(sampling.guidance_scale for sampling in samplings),
        )

    def _refuse_long_texts(self, batch: ReadyBatch) -> None:
        builder = self._conditioner.builder
        for ready in batch.items:
            has_pictures, sampling = bool(ready.pictures), ready.item.sampling
            builder.suffix(ready.item.instruction, has_pictures)
            if sampling.guidance_scale > 1:
                builder.suffix(sampling.negative_prompt, has_pictures, "negative prompt")

    def _noise(self, seed: int, height: int, width: int) -> Tensor:
        factor = self._vae.cfg.spatial_factor
        return initial_noise(seed, self._vae.cfg.z_dim, height // factor, width // factor)

    def _texts(self, batch: ReadyBatch, keys: Sequence[ContentKey]) -> dict[tuple[int, str], Tensor]:
        """Features (L, D) by item and text. Items with the same references share a prefix and one call."""
        groups: dict[ContentKey, list[int]] = {}
        for number, key in enumerate(keys):
            groups.setdefault(key, []).append(number)
        found: dict[tuple[int, str], Tensor] = {}
        for key, numbers in groups.items():
            pictures = batch.items[numbers[0]].pictures
            prefix = self._cache.get(("prefix", key), partial(self._prefix, pictures))
            wanted: dict[str, None] = {}
            for number in numbers:
                item = batch.items[number].item
                wanted[item.instruction] = None
                if item.sampling.guidance_scale > 1:
                    wanted[item.sampling.negative_prompt] = None
            features = self._conditioner.read_suffixes(prefix, list(wanted), bool(pictures))
            self._count_suffixes(prefix, features)
            found |= {(n, text): f for n in numbers for text, f in zip(wanted, features, strict=True)}
        return found

    def _count_suffixes(self, prefix: Prefix, features: Sequence[Tensor]) -> None:
        length = len(prefix.features)
        kept = length - self._conditioner.builder.dropped
        self.operations += sum(
            flops.text_encoder(self._config.text_config, len(f) - kept, length) for f in features if len(f) > kept
        )

    def _prefix(self, pictures: Sequence[Image.Image]) -> Prefix:
        seen = [self._conditioner.see(picture) for picture in pictures]
        prefix = self._conditioner.read_prefix(seen)
        text, vision = self._config.text_config, self._config.vision_config
        merge = vision.spatial_merge_size
        shared = self._conditioner.builder.shared(len(prefix.features))
        self.operations += flops.text_encoder(text, len(prefix.features) - shared, shared)
        self.operations += sum(
            flops.vision_tower(vision, merge * rows, merge * columns)
            for rows, columns in (features.grid for features in seen)
        )
        return prefix

    def _latent(self, picture: Image.Image, key: bytes) -> Tensor:
        return self._cache.get(("latent", key), partial(self._vae_encode, picture))

    def _vae_encode(self, picture: Image.Image) -> Tensor:
        self.operations += flops.vae_encode(self._vae.cfg, picture.height, picture.width)
        return self._vae.encode(scaled(self._streams.to_device(levels_of(picture))))


def content_key(picture: Image.Image) -> bytes:
    """A digest of an RGB picture's size and pixels."""
    digest = hashlib.sha256(f"{picture.width}x{picture.height}".encode())
    digest.update(picture.tobytes())
    return digest.digest()
