"""An endless, repeatable stream of training pairs, and batches of one picture size from it.

It uses no torch: a data loader's worker iterates `batches` with its own number and hands the arrays on. A
pair depends on the seed and its own number only, and workers share the numbers out among them, so that more
workers give the same pairs, only interleaved in another way.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nano import scenes
from nano.edits import EditPair, sample_edit, split_rng


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pairs of one size: pictures as (B, H, W, 3) uint8, B instructions and kinds."""

    source: npt.NDArray[np.uint8]
    target: npt.NDArray[np.uint8]
    instructions: list[str]
    kinds: list[str]


def pair_at(seed: int, index: int, split: str = "train", size: tuple[int, int] | None = None) -> EditPair:
    """Pair number `index` of the stream with this seed. Kinds come by weight: `edits.WEIGHTS`."""
    return sample_edit(split_rng(split, seed, index), split=split, size=size)


def pairs(
    seed: int, worker: int = 0, workers: int = 1, size: tuple[int, int] | None = None, split: str = "train"
) -> Iterator[EditPair]:
    """Endlessly, the pairs whose number is `worker` modulo `workers`; of (height, width) `size` or any."""
    _check(worker, workers)
    for index in itertools.count(worker, workers):
        yield pair_at(seed, index, split, size)


def batches(
    seed: int,
    batch_size: int,
    worker: int = 0,
    workers: int = 1,
    sizes: tuple[tuple[int, int], ...] = scenes.SIZES,
    split: str = "train",
    start: int = 0,
) -> Iterator[Batch]:
    """Endlessly, batches whose pictures all have one of the `sizes`, drawn anew for each batch.

    Batch number n holds pairs n * batch_size onwards; `start` is the number of the first, for going on where
    a run stopped.
    """
    _check(worker, workers)
    if batch_size < 1 or not sizes:
        raise ValueError("a batch has at least one pair, and a size to be of")
    for number in itertools.count(start + worker, workers):
        # A seed below zero belongs to no pair, so that sizes and pairs never share a generator.
        size = split_rng(split, -1 - seed, number).choice(sizes)
        yield collate([pair_at(seed, number * batch_size + i, split, size) for i in range(batch_size)])


def collate(found: list[EditPair]) -> Batch:
    """Render pairs of one size into a batch."""
    return Batch(
        source=np.stack([np.asarray(pair.source_image) for pair in found]),
        target=np.stack([np.asarray(pair.target_image) for pair in found]),
        instructions=[pair.instruction for pair in found],
        kinds=[pair.kind for pair in found],
    )


def _check(worker: int, workers: int) -> None:
    if not 0 <= worker < workers:
        raise ValueError(f"worker {worker} is not one of {workers}")
