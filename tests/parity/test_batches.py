"""The same picture, whatever its company: alone, in a mixed batch, in another order."""

from __future__ import annotations

import pytest

from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.protocol import ReadyBatch
from support.editing import Edit, batch_of, levels_apart, picture, run

TEXTS = (
    "Red.",
    "Turn the sky into a red evening and remove the car that stands in front of the house.",
    "Remove the car.",
    "Add a very small bird, then another one, then a third one, and then a tree behind all of them." * 3,
)


def mixed_batch() -> list[Edit]:
    """Texts of different lengths, other pictures, seeds, negative prompts and guidance scales."""
    return [
        Edit(
            text=text,
            images=[picture(256, 320, seed=number)],
            seed=number,
            guidance=(4.0, 1.0, 2.5, 6.0)[number],
            negative=("", "unused", "blurry", "a much longer negative prompt than the others have")[number],
        )
        for number, text in enumerate(TEXTS)
    ]


def test_alone_in_a_batch_of_four_and_in_another_order(ours: JoyImageBackend) -> None:
    edits = mixed_batch()
    alone = [run(ours, edit)[0] for edit in edits]
    together = run(ours, *edits)
    order = [2, 0, 3, 1]
    shuffled = run(ours, *(edits[i] for i in order))
    for number, picture_alone in enumerate(alone):
        assert levels_apart(picture_alone, together[number]) <= 1
        assert levels_apart(picture_alone, shuffled[order.index(number)]) <= 1
    assert min(levels_apart(alone[0], other) for other in alone[1:]) > 20


def test_two_references_of_other_sizes_in_a_batch(ours_plus: JoyImageBackend) -> None:
    edits = [
        Edit(text=text, images=[picture(200, 390, seed=n), picture(256, 320, seed=n + 9)], seed=n)
        for n, text in enumerate(TEXTS[:3])
    ]
    together = run(ours_plus, *edits)
    for edit, got in zip(edits, together, strict=True):
        assert levels_apart(run(ours_plus, edit)[0], got) <= 1


@pytest.mark.parametrize("padding", ["right", "left"])
def test_padding_reaches_no_token(ours: JoyImageBackend, padding: str) -> None:
    conditioner = ours.conditioner
    seen = conditioner.see(picture(256, 320))
    prompts = [conditioner.prompt(text, [seen]) for text in TEXTS] + [conditioner.prompt("No picture.", [])]
    together = conditioner.features(prompts, padding)  # type: ignore[arg-type]
    for prompt, got in zip(prompts, together, strict=True):
        (alone,) = conditioner.features([prompt])
        assert got.shape == alone.shape
        assert (got - alone).abs().max() <= 1e-5 * alone.abs().max()


def test_a_picture_shared_by_two_items_is_encoded_once(ours: JoyImageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    see = ours.conditioner.see
    monkeypatch.setattr(ours.conditioner, "see", lambda p: calls.append(1) or see(p))
    shared = picture(256, 320, seed=77)
    batch = batch_of([Edit(text=text, images=[shared]) for text in TEXTS[:2]])
    first = batch.items[0].pictures
    ours.encode(ReadyBatch.of([ready.sized for ready in batch.items], [first, first]))
    assert len(calls) == 1
