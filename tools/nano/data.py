"""Training batches as tensors: pictures and tokenised prompts, made by worker processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from joyedit.models.qwen import TokenBatch, load_tokenizer, pack_prompts
from joyedit.runtime.conditioning import PromptBuilder
from nano import scenes, stream
from nano.networks import MERGE, PATCH, seen_size

NO_INSTRUCTION = 0.1
"""Share of prompts trained without their instruction: what guidance needs."""


@dataclass(frozen=True)
class TrainingBatch:
    """`source`, `target`: (B, H, W, 3) uint8. `tokens`: the prompts. `kept`: indices of the features
    that the DiT reads, in the flattened (B * L) tokens; `lengths`: how many a prompt."""

    source: Tensor
    target: Tensor
    tokens: TokenBatch
    kept: Tensor
    lengths: list[int]

    def pin_memory(self) -> TrainingBatch:
        """For DataLoader: a copy from which the GPU reads at full speed."""
        tokens = replace(
            self.tokens,
            ids=self.tokens.ids.pin_memory(),
            real=self.tokens.real.pin_memory(),
            positions=self.tokens.positions.pin_memory(),
        )
        return replace(
            self,
            source=self.source.pin_memory(),
            target=self.target.pin_memory(),
            tokens=tokens,
            kept=self.kept.pin_memory(),
        )


class Pairs(IterableDataset[TrainingBatch]):
    """An endless stream of batches; `start` goes on where a run stopped."""

    def __init__(
        self,
        tokenizer: Path,
        image_token: int,
        batch_size: int,
        seed: int,
        start: int,
        sizes: tuple[tuple[int, int], ...] = scenes.SIZES,
    ) -> None:
        self._tokenizer = tokenizer
        self._image_token = image_token
        self._batch_size = batch_size
        self._seed = seed
        self._start = start
        self._sizes = sizes

    def __iter__(self) -> Iterator[TrainingBatch]:
        torch.set_num_threads(1)
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        builder = PromptBuilder(load_tokenizer(self._tokenizer), self._image_token)
        rng = random.Random(f"drop/{self._seed}/{self._start}/{worker}")
        for batch in stream.batches(self._seed, self._batch_size, worker, workers, self._sizes, start=self._start):
            texts = ["" if rng.random() < NO_INSTRUCTION else text for text in batch.instructions]
            yield collate(builder, self._image_token, batch, texts)


def collate(builder: PromptBuilder, image_token: int, batch: stream.Batch, texts: list[str]) -> TrainingBatch:
    """A batch of the stream with these instructions in the place of its own."""
    rows, columns = seen_size(*batch.source.shape[1:3])
    grid = (rows // (PATCH * MERGE), columns // (PATCH * MERGE))
    prompts = [(builder.ids(text, [grid[0] * grid[1]]), [grid]) for text in texts]
    tokens = pack_prompts(prompts, image_token)
    real = tokens.real.clone()
    real[:, : builder.dropped] = False
    return TrainingBatch(
        source=torch.from_numpy(batch.source),
        target=torch.from_numpy(batch.target),
        tokens=tokens,
        kept=real.flatten().nonzero()[:, 0],
        lengths=[len(ids) - builder.dropped for ids, _ in prompts],
    )


def loader(
    tokenizer: Path,
    image_token: int,
    batch_size: int,
    seed: int,
    start: int,
    workers: int,
    sizes: tuple[tuple[int, int], ...] = scenes.SIZES,
) -> Iterator[TrainingBatch]:
    """Batches from `workers` processes (0: from this one), each of one of the `sizes`."""
    pairs = Pairs(tokenizer, image_token, batch_size, seed, start, sizes)
    return iter(
        DataLoader(
            pairs,
            batch_size=None,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if workers else None,
        )
    )
