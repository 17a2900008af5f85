"""Edits: the target is what the instruction says, all else stays, and held-out stays out of training."""

from __future__ import annotations

import itertools
import random
import string

import numpy as np
import pytest

from nano import edits, scenes, stream, wording
from nano.colours import COLOURS, stands_out
from nano.edits import EditPair, sample_edit, split_rng
from nano.things import KINDS


def sampled(kind: str, count: int, split: str = "train") -> list[EditPair]:
    return [sample_edit(split_rng(split, 11, index), kind, split) for index in range(count)]


@pytest.mark.parametrize("kind", wording.EDITS)
def test_nothing_changes_outside_the_mask_and_something_inside(kind: str) -> None:
    for pair in sampled(kind, 12) + sampled(kind, 4, "heldout"):
        source, target = np.asarray(pair.source_image), np.asarray(pair.target_image)
        different = (source != target).any(axis=-1)
        assert different.any()
        assert not (different & pair.unchanged).any(), pair.instruction
        assert (pair.changed ^ pair.unchanged).all()
        assert pair.unchanged.any() == (kind != "greyscale")


@pytest.mark.parametrize("split", edits.SPLITS)
@pytest.mark.parametrize("kind", wording.EDITS)
def test_scenes_of_an_edit_are_sound(kind: str, split: str) -> None:
    for pair in sampled(kind, 80, split):
        assert pair.kind == kind
        for scene in (pair.source, pair.target):
            for a, b in itertools.combinations(scene.objects, 2):
                assert a.square.clear_of(b.square, 2), pair.instruction
            for thing in scene.objects:
                assert stands_out(thing.colour, scene.background.colour)
                assert thing.square.inside(scene.height, scene.width, 0)
        others = [t for i, t in enumerate(pair.source.objects) if i != pair.subject]
        assert others == [t for i, t in enumerate(pair.target.objects) if i != pair.result]
        if pair.subject is not None and pair.result is not None:
            old, new = pair.source.objects[pair.subject], pair.target.objects[pair.result]
            assert (old.colour != new.colour) == (kind == "recolour")
            assert (old.kind != new.kind) == (kind == "shape")
            assert (old.size != new.size) == (kind == "resize")
            assert ((old.cy, old.cx) != (new.cy, new.cx)) == (kind == "move")
            assert old.kind in pair.instruction


def test_an_added_object_stands_at_one_place_of_one_size() -> None:
    for place in wording.PLACES:
        for height, width in scenes.SIZES:
            square = edits.place_square(place, height, width)
            assert square.inside(height, width, 1)
            row = "top" in place, "bottom" in place
            assert (square.cy < height / 3, square.cy > height * 2 / 3) == row
            column = "left" in place, "right" in place
            assert (square.cx < width / 3, square.cx > width * 2 / 3) == column
    for pair in sampled("add", 40):
        assert pair.result is not None
        thing = pair.target.objects[pair.result]
        assert thing.square == edits.place_square(pair.wanted, pair.source.height, pair.source.width)
        assert f"{pair.wanted}" in pair.instruction.lower()
        assert thing.name in pair.instruction


def test_a_moved_object_stands_in_the_middle_of_the_box() -> None:
    for pair in sampled("move", 40):
        assert pair.result is not None
        assert pair.subject is not None
        box = pair.source.box
        assert box is not None
        assert pair.target.box is None
        found = scenes.extent(pair.target.objects[pair.result])
        assert box.y0 + box.y1 == found.y0 + found.y1
        assert box.x0 + box.x1 == found.x0 + found.x1
        assert 0 <= box.y0 < found.y0
        assert 0 <= box.x0 < found.x0
        assert box.y1 <= pair.source.height
        assert box.x1 <= pair.source.width
        name = pair.source.objects[pair.subject].name
        assert pair.instruction == f"Move the {name} into the red box and finally remove the red box."
        for index in range(len(pair.source.objects)):
            assert not (scenes.object_mask(pair.source, index) & scenes.box_mask(pair.source)).any()


def test_held_out_combinations_never_come_out_of_training() -> None:
    combinations = {(kind, colour) for kind in KINDS for colour in COLOURS if edits.held_out(kind, colour)}
    assert len(combinations) == len(KINDS), "one colour of each kind, a tenth of all"
    assert len({colour for _, colour in combinations}) == len(COLOURS), "no colour is always or never held out"
    kinds = ("recolour", "add", "shape", "resize", "move")
    for kind in kinds:
        for pair in sampled(kind, 150):
            assert pair.result is not None
            thing = pair.target.objects[pair.result]
            assert (thing.kind, thing.colour) not in combinations
            assert not pair.unseen
    pairs = [pair for kind in kinds for pair in sampled(kind, 60, "heldout")]
    for pair in pairs:
        assert pair.result is not None
        thing = pair.target.objects[pair.result]
        assert pair.unseen == ((thing.kind, thing.colour) in combinations)
    assert 0.35 < np.mean([pair.unseen for pair in pairs]) < 0.65


def words(text: str) -> set[str]:
    return set(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


def test_templates_are_many_and_apart() -> None:
    assert set(wording.TRAIN) == set(wording.HELD_OUT) == set(wording.EDITS)
    for edit in wording.EDITS:
        train, held = wording.TRAIN[edit], wording.HELD_OUT[edit]
        if edit == "move":
            assert train == held == (wording.MOVE,)
            continue
        assert len(set(train)) >= 6
        assert len(set(held)) >= 3
        assert not set(train) & set(held)


def test_held_out_wordings_recombine_known_words() -> None:
    known = set().union(*(words(text) for text in wording.corpus("train")))
    for text in wording.corpus("heldout"):
        assert words(text) <= known, text
    for split in edits.SPLITS:
        for kind in wording.EDITS:
            for pair in sampled(kind, 40, split):
                assert words(pair.instruction) <= known, pair.instruction


def test_held_out_sentences_are_never_said_in_training() -> None:
    said = {text.lower().rstrip(".?") for text in wording.corpus("train")} - {wording.MOVE}
    trained = {pair.instruction.lower().rstrip(".?") for kind in wording.EDITS for pair in sampled(kind, 60)}
    for kind in set(wording.EDITS) - {"move"}:
        for pair in sampled(kind, 60, "heldout"):
            assert pair.instruction.lower().rstrip(".?") not in said | trained


def test_the_split_and_the_seed_decide() -> None:
    assert sample_edit(split_rng("train", 1, 2)) == sample_edit(split_rng("train", 1, 2))
    assert sample_edit(split_rng("train", 1, 2)) != sample_edit(split_rng("train", 1, 3))
    assert split_rng("train", 1).random() != split_rng("heldout", 1).random()
    with pytest.raises(ValueError, match="split"):
        split_rng("test", 1)
    with pytest.raises(ValueError, match="split"):
        sample_edit(random.Random(0), split="test")
    with pytest.raises(ValueError, match="an edit is one of"):
        sample_edit(random.Random(0), "rotate")


def test_workers_share_one_stream() -> None:
    alone = list(itertools.islice(stream.pairs(5, size=(192, 320)), 6))
    shared = [list(itertools.islice(stream.pairs(5, worker, 2, (192, 320)), 3)) for worker in (0, 1)]
    assert [pair for both in zip(*shared, strict=True) for pair in both] == alone
    assert {(pair.source.height, pair.source.width) for pair in alone} == {(192, 320)}
    with pytest.raises(ValueError, match="worker"):
        next(stream.pairs(5, 2, 2))


def test_batches_have_one_size_and_can_be_gone_on_with() -> None:
    found = list(itertools.islice(stream.batches(5, 3), 6))
    for batch in found:
        assert batch.source.shape == batch.target.shape
        assert batch.source.shape[1:3] in scenes.SIZES
        assert batch.source.shape[0] == len(batch.instructions) == len(batch.kinds) == 3
        assert batch.source.dtype == np.uint8
    assert len({batch.source.shape for batch in found}) > 1
    later = next(stream.batches(5, 3, start=4))
    assert later.instructions == found[4].instructions
    assert np.array_equal(later.target, found[4].target)
    second = next(stream.batches(5, 3, worker=1, workers=2))
    assert second.instructions == found[1].instructions


def test_kinds_come_by_weight() -> None:
    kinds = [pair.kind for pair in itertools.islice(stream.pairs(1, size=(256, 256)), 1500)]
    for kind, weight in edits.WEIGHTS.items():
        share = kinds.count(kind) / len(kinds)
        assert abs(share - weight / sum(edits.WEIGHTS.values())) < 0.035, kind
