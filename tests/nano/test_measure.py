"""The judge: true targets pass, also blurred and compressed ones; sources and wrong targets do not."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nano import edits, scenes, wording
from nano.edits import EditPair, sample_edit, split_rng
from nano.measure import PSNR_CAP, measure
from nano.scenes import Scene, Thing
from nano.things import KINDS

COUNT = 6


def sampled(kind: str, count: int = COUNT) -> list[EditPair]:
    splits = ("train", "heldout")
    return [sample_edit(split_rng(splits[i % 2], 23, i), kind, splits[i % 2]) for i in range(count)]


def compressed(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=30)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def smeared(picture: Image.Image) -> Image.Image:
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32)
    noise = np.random.default_rng(0).normal(0.0, 4.0, blurred.shape)
    return Image.fromarray(np.clip(np.round(blurred + noise), 0, 255).astype(np.uint8))


def put(scene: Scene, index: int, *things: Thing) -> Scene:
    return replace(scene, objects=(*scene.objects[:index], *things, *scene.objects[index + 1 :]))


def other_colour(rng: random.Random, scene: Scene, not_this: str) -> str:
    return rng.choice([c for c in scenes.object_colours(scene.background.colour) if c != not_this])


def wrong_targets(pair: EditPair, rng: random.Random) -> Iterator[tuple[str, Scene]]:
    """Scenes that another instruction would have asked for."""
    source, target = pair.source, pair.target
    rest = [i for i in range(len(source.objects)) if i != pair.subject]
    if pair.result is not None:
        thing = target.objects[pair.result]
        yield "result missing", put(target, pair.result)
        if pair.kind in ("recolour", "add", "shape"):
            colour = other_colour(rng, target, thing.colour)
            yield "another colour", put(target, pair.result, replace(thing, colour=colour))
        if pair.kind in ("add", "shape"):
            absent = [kind for kind in KINDS if kind not in {t.kind for t in target.objects}]
            yield "another kind", put(target, pair.result, replace(thing, kind=rng.choice(absent)))
        if pair.kind == "add":
            place = rng.choice([place for place in wording.PLACES if place != pair.wanted])
            square = edits.place_square(place, source.height, source.width)
            yield "another place", put(target, pair.result, replace(thing, cy=square.cy, cx=square.cx))
        if pair.kind == "recolour" and rest:
            index = rng.choice(rest)
            changed = replace(source.objects[index], colour=thing.colour)
            yield "another object", put(source, index, changed)
        if pair.kind == "resize" and pair.subject is not None:
            factor = edits.SHRINK if pair.wanted == "bigger" else edits.GROW
            size = scenes.even(source.objects[pair.subject].size * factor)
            yield "the other way", put(target, pair.result, replace(thing, size=size))
    if pair.kind == "background":
        names = [c for c in edits.COLOURS if c not in (pair.wanted, source.background.colour)]
        yield (
            "another colour",
            replace(target, background=replace(target.background, colour=rng.choice(names))),
        )
        yield "an object instead", put(source, 0, replace(source.objects[0], colour=pair.wanted))
        kept = target.objects[0]
        colour = other_colour(rng, target, kept.colour)
        yield "an object as well", put(target, 0, replace(kept, colour=colour))
    if pair.kind == "remove" and pair.subject is not None:
        gone = source.objects[pair.subject]
        colour = other_colour(rng, source, gone.colour)
        yield "another colour", put(source, pair.subject, replace(gone, colour=colour))
        if rest:
            yield "another object", put(source, rng.choice(rest))
    if pair.kind == "move":
        yield "box still there", replace(target, box=source.box)
        yield "not moved", replace(source, box=None)


@pytest.mark.parametrize("kind", wording.EDITS)
def test_true_targets_happened(kind: str) -> None:
    for pair in sampled(kind):
        found = measure(pair, pair.target_image)
        assert found.happened, (pair.instruction, found.detail)
        assert found.psnr_unchanged == PSNR_CAP


@pytest.mark.parametrize("kind", wording.EDITS)
def test_degraded_true_targets_happened(kind: str) -> None:
    for pair in sampled(kind):
        for degrade in (compressed, smeared):
            found = measure(pair, degrade(pair.target_image))
            assert found.happened, (degrade.__name__, pair.instruction, found.detail)
            assert 20.0 < found.psnr_unchanged < 50.0


@pytest.mark.parametrize("kind", wording.EDITS)
def test_what_was_not_edited_did_not_happen(kind: str) -> None:
    for pair in sampled(kind):
        found = measure(pair, pair.source_image)
        assert not found.happened, (pair.instruction, found.detail)
        # The source is right wherever nothing was to change.
        assert found.psnr_unchanged == PSNR_CAP


@pytest.mark.parametrize("kind", sorted(set(wording.EDITS) - {"greyscale"}))
def test_wrong_targets_did_not_happen(kind: str) -> None:
    rng = random.Random(4)
    for pair in sampled(kind):
        for what, scene in wrong_targets(pair, rng):
            found = measure(pair, scenes.render(scene))
            assert not found.happened, (what, pair.instruction, found.detail)


@pytest.mark.parametrize("kind", wording.EDITS)
def test_noise_and_flat_pictures_did_not_happen(kind: str) -> None:
    for pair in sampled(kind, 3):
        shape = (pair.source.height, pair.source.width, 3)
        noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8))
        assert not measure(pair, noise).happened
        if kind != "remove":  # one flat tone truly has no object in it, and on a plain ground it is right
            assert not measure(pair, Image.new("RGB", pair.source_image.size, (128, 128, 128))).happened


def test_half_grey_and_grey_of_another_picture_did_not_happen() -> None:
    for pair in sampled("greyscale", 4):
        half = Image.blend(pair.source_image, pair.target_image, 0.5)
        assert not measure(pair, half).happened
        corner = pair.target_image.copy()
        corner.paste(pair.source_image.crop((0, 0, 80, 80)), (0, 0))
        assert not measure(pair, corner).happened
        mirrored = pair.target_image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        upside_down = mirrored.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        assert not measure(pair, upside_down).happened


def patched(pair: EditPair, mask: scenes.Mask) -> Image.Image:
    """The target with the source's pixels where the mask is True."""
    return Image.fromarray(np.where(mask[..., None], np.asarray(pair.source_image), np.asarray(pair.target_image)))


def test_an_object_that_was_copied_and_not_moved_did_not_happen() -> None:
    for pair in sampled("move"):
        assert pair.subject is not None
        found = measure(pair, patched(pair, scenes.object_mask(pair.source, pair.subject)))
        assert found.detail["there"]
        assert not found.happened


def test_a_shadow_that_stays_behind_is_seen() -> None:
    for pair in sampled("remove"):
        assert pair.subject is not None
        body = scenes.object_mask(pair.source, pair.subject)
        found = measure(pair, patched(pair, scenes.shadow_mask(pair.source, pair.subject) & ~body))
        # On black and deep red a shadow is hardly there.
        seen = pair.source.background.colour not in ("black", "red", "brown")
        assert found.detail["gone"]
        assert not (seen and found.happened), found.detail


def test_half_a_background_did_not_happen() -> None:
    for pair in sampled("background"):
        half = np.zeros((pair.source.height, pair.source.width), dtype=np.bool_)
        half[: pair.source.height * 6 // 10] = True
        assert not measure(pair, patched(pair, half)).happened


def test_a_size_in_between_and_a_shifted_object_did_not_happen() -> None:
    for pair in sampled("resize"):
        assert pair.subject is not None
        assert pair.result is not None
        old, new = pair.source.objects[pair.subject], pair.target.objects[pair.result]
        between = replace(new, size=scenes.even((2 * old.size + new.size) / 3))
        found = measure(pair, scenes.render(put(pair.target, pair.result, between)))
        assert found.detail["direction"]
        assert not found.happened
        shifted = replace(new, cx=new.cx + new.size // 2)
        assert not measure(pair, scenes.render(put(pair.target, pair.result, shifted))).happened


def test_damage_elsewhere_lowers_the_psnr_and_not_the_verdict() -> None:
    for pair in sampled("recolour", 4):
        values = np.array(pair.target_image)
        values[pair.unchanged] = np.clip(values[pair.unchanged].astype(np.int64) - 30, 0, 255)
        found = measure(pair, Image.fromarray(values))
        assert 15.0 < found.psnr_unchanged < 23.0


def test_another_size_is_refused() -> None:
    pair = sample_edit(split_rng("train", 0), size=(256, 256))
    with pytest.raises(ValueError, match="256 x 256"):
        measure(pair, Image.new("RGB", (256, 240)))
