"""Training batches as tensors: pictures and tokenised prompts, made by worker processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from joyedit.models.qwen_loading import load_tokenizer
from joyedit.runtime.joyimage.conditioning import PromptBuilder
from nano import scenes, stream
from nano.networks import MERGE, PATCH, TOKEN_SIDE, seen_size
from nano.speed import Layout

NO_INSTRUCTION = 0.1
"""Share of prompts trained without their instruction: what guidance needs."""


PROMPT_TOKENS = 128
"""To which every prompt is padded: no instruction of the wording is longer."""

SPARE_TOKENS = 11
"""Room a prompt for its instruction, of 7.6 tokens in the mean; the shortest prompts of a batch have none."""


@dataclass(frozen=True)
class TrainingBatch:
    """`source`, `target`: (B, H, W, 3) uint8. `ids`: the prompts' tokens, (B, PROMPT_TOKENS), padded on the
    right. `kept`: indices of the features that the DiT reads, in the flattened (B * PROMPT_TOKENS);
    `lengths`: how many a prompt. `layout`: where they go in attention, where all batches of a size are to
    hold the same number of them; `kept` then goes on to that number with zeros."""

    source: Tensor
    target: Tensor
    ids: Tensor
    kept: Tensor
    lengths: list[int]
    layout: Layout | None = None

    def pin_memory(self) -> TrainingBatch:
        """For DataLoader: a copy from which the GPU reads at full speed."""
        names = ("source", "target", "ids", "kept")
        layout = None if self.layout is None else self.layout.pin_memory()
        return replace(self, **{name: getattr(self, name).pin_memory() for name in names}, layout=layout)


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
        fixed: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._image_token = image_token
        self._batch_size = batch_size
        self._seed = seed
        self._start = start
        self._sizes = sizes
        self._fixed = fixed

    def __iter__(self) -> Iterator[TrainingBatch]:
        torch.set_num_threads(1)
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        builder = PromptBuilder(load_tokenizer(self._tokenizer), self._image_token)
        rng = random.Random(f"drop/{self._seed}/{self._start}/{worker}")
        for batch in stream.batches(self._seed, self._batch_size, worker, workers, self._sizes, start=self._start):
            texts = ["" if rng.random() < NO_INSTRUCTION else text for text in batch.instructions]
            found = collate(builder, batch, texts)
            if not self._fixed:
                yield found
            elif sum(found.lengths) <= text_room(found):  # it nearly always is
                yield with_layout(found)


def collate(builder: PromptBuilder, batch: stream.Batch, texts: list[str]) -> TrainingBatch:
    """A batch of the stream with these instructions in the place of its own."""
    rows, columns = seen_size(*batch.source.shape[1:3])
    patches = rows * columns // (PATCH * MERGE) ** 2
    prompts = [builder.ids(text, [patches]) for text in texts]
    ids = torch.zeros(len(prompts), PROMPT_TOKENS, dtype=torch.long)
    real = torch.zeros(len(prompts), PROMPT_TOKENS, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
        real[row, builder.dropped : len(prompt)] = True
    return TrainingBatch(
        source=torch.from_numpy(batch.source),
        target=torch.from_numpy(batch.target),
        ids=ids,
        kept=real.flatten().nonzero()[:, 0],
        lengths=[len(prompt) - builder.dropped for prompt in prompts],
    )


def text_room(batch: TrainingBatch) -> int:
    """Text tokens that batches of this size of picture have room for: a little more than the mean needs."""
    return len(batch.lengths) * (min(batch.lengths) + SPARE_TOKENS)


def with_layout(batch: TrainingBatch) -> TrainingBatch:
    """`batch`, filled up to its room."""
    room = text_room(batch)
    height, width = batch.source.shape[1:3]
    tokens = 2 * (height // TOKEN_SIDE) * (width // TOKEN_SIDE)
    kept = F.pad(batch.kept, (0, room - len(batch.kept)))
    return replace(batch, kept=kept, layout=Layout.of(batch.lengths, tokens, room))


def loader(
    tokenizer: Path,
    image_token: int,
    batch_size: int,
    seed: int,
    start: int,
    workers: int,
    sizes: tuple[tuple[int, int], ...] = scenes.SIZES,
    fixed: bool = False,
) -> Iterator[TrainingBatch]:
    """Batches from `workers` processes (0: from this one), each of one of the `sizes`; with `fixed` and their
    layout, tensors of all batches of a size have the same shapes."""
    pairs = Pairs(tokenizer, image_token, batch_size, seed, start, sizes, fixed)
    return iter(
        DataLoader(
            pairs,
            batch_size=None,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if workers else None,
        )
    )
