"""Scenes: what is drawn is where the masks say, in the colours that the names say."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

from nano import colours, scenes
from nano.scenes import Background, Box, Scene, Thing
from nano.things import KINDS


def scene_of(*things: Thing, ground: str = "blue", pattern: str = "plain", variant: int = 0) -> Scene:
    background = Background(colour=ground, pattern=pattern, variant=variant)
    return Scene(height=256, width=224, background=background, objects=things)


def thing(kind: str, colour: str = "red", size: int = 80, cy: int = 120, cx: int = 100) -> Thing:
    return Thing(kind=kind, colour=colour, cy=cy, cx=cx, size=size)


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(scenes.render(scene)).astype(np.int64)


@pytest.mark.parametrize("size", [*scenes.SIZES, (64, 128), (512, 448)])
def test_a_picture_has_the_scene_size_and_is_the_same_every_time(size: tuple[int, int]) -> None:
    first = scenes.sample_scene(random.Random(3), size)
    assert first == scenes.sample_scene(random.Random(3), size)
    picture = scenes.render(first)
    assert (picture.height, picture.width) == size
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), pixels(first))


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_change_exactly_in_the_object_and_its_shadow(kind: str) -> None:
    scene = scene_of(thing(kind), pattern="stripes", variant=3)
    changed = (pixels(scene) != pixels(replace(scene, objects=()))).any(axis=-1)
    body, shadow = scenes.object_mask(scene, 0), scenes.shadow_mask(scene, 0)
    assert changed[body].all()
    # An edge pixel that is covered by less than half belongs to no mask but has changed: one pixel around.
    rim = np.zeros_like(body)
    for dy, dx in itertools.product((-1, 0, 1), (-1, 0, 1)):
        rim |= np.roll(body, (dy, dx), (0, 1))
    # A shadow fainter than its mask's threshold moves a pixel by one level at most.
    outside = ~(rim | shadow)
    difference = np.abs(pixels(scene) - pixels(replace(scene, objects=()))).max(axis=-1)
    assert difference[outside].max() <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_main_colour_is_pure_where_the_mask_says_and_covers_a_good_part(kind: str) -> None:
    scene = scene_of(thing(kind, "purple"), ground="yellow")
    main, body = scenes.main_mask(scene, 0), scenes.object_mask(scene, 0)
    assert not (main & ~body).any()
    assert main.sum() > 0.25 * body.sum()
    assert np.array_equal(np.median(pixels(scene)[main], axis=0), colours.PALETTE["purple"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_fills_its_square_about_its_centre(kind: str) -> None:
    found = scenes.extent(thing(kind))
    assert found.y0 >= 120 - 40
    assert found.x0 >= 100 - 40
    assert found.y1 <= 120 + 40
    assert found.x1 <= 100 + 40
    assert max(found.y1 - found.y0, found.x1 - found.x0) >= 0.85 * 80
    assert abs((found.y0 + found.y1) / 2 - 120) <= 5
    assert abs((found.x0 + found.x1) / 2 - 100) <= 5


def test_edges_are_antialiased() -> None:
    scene = scene_of(thing("circle", "black"), ground="white")
    row = pixels(scene)[100, :, 0]
    between = (row > 50) & (row < 200)
    assert 2 <= between.sum() <= 6, "one or two mixed pixels at each side of the circle"


@pytest.mark.parametrize("pattern", scenes.PATTERNS)
@pytest.mark.parametrize("ground", ["red", "white", "green"])
def test_a_background_stays_between_its_two_tones(pattern: str, ground: str) -> None:
    for variant in range(0, scenes.VARIANTS, 5):
        picture = pixels(scene_of(ground=ground, pattern=pattern, variant=variant))
        light, dark = np.array(colours.TONES[ground])
        assert (picture >= np.minimum(light, dark)).all()
        assert (picture <= np.maximum(light, dark)).all()
        assert colours.nearest_ground(np.median(picture.reshape(-1, 3), axis=0)) == ground
        assert pattern == "plain" or picture.std(axis=(0, 1)).max() > 1.0


def test_colours_are_far_apart_and_stand_out() -> None:
    for a, b in itertools.combinations(colours.COLOURS, 2):
        assert colours.distance(colours.PALETTE[a], colours.PALETTE[b]) > 30, (a, b)
    for ground in colours.COLOURS:
        assert ground not in scenes.object_colours(ground)
        assert len(scenes.object_colours(ground)) >= 6
    for name, rgb in colours.PALETTE.items():
        assert colours.nearest_colour(rgb) == name


def test_sampled_objects_are_apart_inside_and_of_different_kinds() -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = scenes.sample_scene(rng)
        gap = scenes.margin(scene.height, scene.width)
        assert 1 <= len(scene.objects) <= 4
        for item in scene.objects:
            assert item.square.inside(scene.height, scene.width, gap)
            assert colours.stands_out(item.colour, scene.background.colour)
        for a, b in itertools.combinations(scene.objects, 2):
            assert a.square.clear_of(b.square, gap)


def test_masks_of_a_scene_do_not_meet_and_leave_the_background() -> None:
    scene = scenes.sample_scene(random.Random(9), count=3)
    assert len(scene.objects) == 3
    masks = [scenes.object_mask(scene, index) for index in range(3)]
    total = np.sum([*masks, scenes.background_mask(scene)], axis=0)
    assert (total == 1).all()


def test_the_box_is_a_red_outline() -> None:
    scene = replace(scene_of(), box=Box(y0=40, x0=30, y1=100, x1=150))
    outline = scenes.box_mask(scene)
    assert outline.sum() == 60 * 120 - 52 * 112
    assert (pixels(scene)[outline] == scenes.BOX_RED).all()
    assert np.array_equal(pixels(scene)[~outline], pixels(replace(scene, box=None))[~outline])


def test_a_grey_scene_has_no_colour_and_keeps_its_luminance() -> None:
    scene = scene_of(thing("car"))
    grey = scenes.render(replace(scene, grey=True))
    values = np.asarray(grey)
    assert (values == values[..., :1]).all()
    assert np.array_equal(values[..., 0], np.asarray(scenes.render(scene).convert("L")))


@pytest.mark.parametrize("size", [(250, 256), (256, 24), (32, 256)])
def test_other_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        replace(scene_of(), height=size[0], width=size[1])


def test_a_kind_may_occur_once() -> None:
    with pytest.raises(ValueError, match="once"):
        scene_of(thing("cup", size=40, cy=60), thing("cup", size=40, cy=180))
