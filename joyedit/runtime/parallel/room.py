"""Whether a rank has room for its share of a batch, asked before the ranks depend on each other.

Lack of memory in the midst of a denoising leaves the ranks out of step. So each takes what the memory model expects,
and gives it back to torch's allocator, which hands it out again.
"""

from __future__ import annotations

import torch

from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.encoded import Encoded
from joyedit.runtime.joyimage.memory import denoising_bytes, memory_faults, reuse_bytes
from joyedit.runtime.parallel.ranks import GroupRanks


def bytes_of_share(backend: JoyImageBackend, encoded: Encoded, ranks: GroupRanks) -> int:
    """What denoising a batch takes in this rank, by the memory model, and the parts that are exchanged before it. The
    exchanged heads are within it.
    """
    given, cfg, itemsize = encoded.conditioning, backend.dit.cfg, backend.dit.dtype.itemsize
    image = 0
    for latent in (given.noise, *given.references):
        rows, columns = backend.dit.grid(latent)
        image += rows * columns
    texts = [len(features) for features in (*given.positive, *given.negative) if features is not None]
    own = [texts[branch] for branch in ranks.own(len(texts))]
    tokens = sum(own) + len(own) * image
    reuse = backend.speed.reuse
    kept = 0
    if reuse is not None:
        rows, columns = backend.dit.grid(given.noise)
        kept = sum(reuse_bytes(cfg, rows * columns, length + image, reuse, itemsize) for length in own)
    size = 1 if ranks.sequence is None else ranks.sequence.size
    computed = denoising_bytes(cfg, -(-tokens // size), encoded.steps, itemsize) + kept // size
    sent = sum(spec.nbytes for spec in encoded.specs if spec.rank == ranks.rank) * (1 + ranks.world)
    return computed + sum(spec.nbytes for spec in encoded.specs) + sent


@memory_faults()
def check_room(backend: JoyImageBackend, encoded: Encoded, ranks: GroupRanks) -> None:
    """Raises OutOfMemory where the device has no room for the rank's share."""
    if backend.device.type == "cuda":
        torch.empty(bytes_of_share(backend, encoded, ranks), dtype=torch.uint8, device=backend.device)
