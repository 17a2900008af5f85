"""Which rank encodes what, and a conditioning that is put together of its parts."""

from __future__ import annotations

import pytest
import torch

from joyedit.runtime.joyimage.denoise import ALONE, PartSpec
from joyedit.runtime.joyimage.encoded import EncodedShare
from joyedit.runtime.joyimage.parts import EncodedParts, divide


@pytest.mark.parametrize(
    ("costs", "ranks", "expected"),
    [
        ({"text": 80, "picture": 10}, 1, {"text": 0, "picture": 0}),
        ({"text": 80, "picture": 10}, 2, {"text": 0, "picture": 1}),
        ({"picture": 10, "text": 80}, 4, {"text": 0, "picture": 1}),
        ({"a": 80, "b": 80, "c": 10, "d": 10}, 2, {"a": 0, "b": 1, "c": 0, "d": 1}),
        ({"b": 80, "a": 80}, 2, {"a": 0, "b": 1}),
        ({"a": 80, "b": 30, "c": 30, "d": 30}, 2, {"a": 0, "b": 1, "c": 1, "d": 1}),
        ({}, 2, {}),
    ],
)
def test_no_rank_takes_much_longer_than_others(costs: dict[str, int], ranks: int, expected: dict[str, int]) -> None:
    assert divide(costs, ranks) == expected


def parts(own: dict[int, torch.Tensor]) -> EncodedParts:
    """Of a batch of two items with the same picture and negative prompt; the second one has no guidance."""
    return EncodedParts(
        own=own,
        count=4,
        noise=torch.zeros(2, 16, 4, 4),
        positive=(0, 3),
        negative=(1, None),
        references=((2, 2),),
        scales=(4.0, 1.0),
    )


def test_of_all_parts() -> None:
    own = {0: torch.full((5, 8), 1.0), 1: torch.full((3, 8), 2.0), 2: torch.full((1, 16, 4, 4), 3.0)}
    own[3] = torch.full((7, 8), 4.0)
    whole = parts(own).whole()
    assert whole.positive == (own[0], own[3])
    assert whole.negative == (own[1], None)
    assert torch.equal(whole.references[0], torch.full((2, 16, 4, 4), 3.0))
    assert ALONE.everywhere(own, tuple(parts(own).specs(0).values())) == [own[n] for n in range(4)]


def test_before_the_ranks_have_exchanged() -> None:
    """Everything that does not look at values can be asked already."""
    own = {2: torch.full((1, 16, 4, 4), 3.0)}
    texts = {n: PartSpec(1, (length, 8), torch.bfloat16) for n, length in ((0, 5), (1, 3), (3, 7))}
    share = EncodedShare(parts=parts(own), whole=None, steps=3, operations=1, loras=())
    encoded = share.encoded(share.parts.specs(0) | texts, 12)
    assert [len(one) for one in encoded.conditioning.positive] == [5, 7]
    assert encoded.conditioning.references[0].shape == (2, 16, 4, 4)
    assert encoded.conditioning.references[0].is_meta
    assert (encoded.steps, encoded.operations) == (3, 12)
    assert [spec.nbytes for spec in encoded.specs] == [80, 48, 1024, 112]
    assert encoded.parts is share.parts
