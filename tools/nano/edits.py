"""Edits as pairs of scenes with an instruction between them.

The instruction determines the target: an added object has one place and size for each named place, a moved
one stands in the middle of the box, a resized one grows by one factor. What an edit uncovers shows the plain
background.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from nano import scenes, wording
from nano.colours import COLOURS, stands_out
from nano.scenes import Mask, Scene, Square, Thing
from nano.things import KINDS
from nano.wording import EDITS, PLACES

SPLITS = ("train", "heldout")

GROW, SHRINK = 1.5, 0.6

# What has to draw a new outline is learnt last and drawn more often; what is learnt first, less. A background is
# the whole picture with all its patterns.
WEIGHTS: dict[str, float] = {
    "recolour": 1.2,
    "background": 2.4,
    "remove": 2.0,
    "add": 1.4,
    "shape": 2.0,
    "resize": 1.4,
    "move": 0.8,
    "greyscale": 2.0,
}

# How far from an edit a picture may change a little: the reach of a blurred edge.
SPREAD = 5


@dataclass(frozen=True)
class EditPair:
    """A source, an instruction and the target it asks for, and what tells whether an output is it.

    `subject` is the index of the object the edit is about in the source, `result` its index in the target;
    either is None where there is none. `wanted` is what the instruction asked for: a colour, a kind, a place,
    "bigger" or "smaller", or nothing. `unseen` says that the target's (kind, colour) of the subject never
    occurs in training.
    """

    kind: str
    split: str
    instruction: str
    source: Scene
    target: Scene
    subject: int | None
    result: int | None
    wanted: str
    unseen: bool

    @functools.cached_property
    def source_image(self) -> Image.Image:
        return scenes.render(self.source)

    @functools.cached_property
    def target_image(self) -> Image.Image:
        return scenes.render(self.target)

    @functools.cached_property
    def changed(self) -> Mask:
        """(H, W) True where a pixel may change: the edit's own pixels and their neighbours."""
        if self.kind == "greyscale":
            return np.ones((self.source.height, self.source.width), dtype=np.bool_)
        if self.kind == "background":
            kept = ~scenes.background_mask(self.source)
            return ~scenes.grow(kept, -SPREAD)
        mask = scenes.box_mask(self.source)
        for scene, index in ((self.source, self.subject), (self.target, self.result)):
            if index is not None:
                mask = mask | scenes.object_mask(scene, index)
                if self.kind != "recolour":  # a shadow does not change with the colour of what throws it
                    mask = mask | scenes.shadow_mask(scene, index)
        return scenes.grow(mask, SPREAD)

    @property
    def unchanged(self) -> Mask:
        """(H, W) True where the target must equal the source; nowhere for greyscale."""
        return ~self.changed


def held_out(kind: str, colour: str) -> bool:
    """True for the one colour of each kind that no training edit ever produces: 10% of all combinations."""
    return (3 * KINDS.index(kind) + COLOURS.index(colour)) % len(COLOURS) == 4


def place_square(place: str, height: int, width: int) -> Square:
    """The square that an object added at a named place fills."""
    row, column = divmod(PLACES.index(place), 3)
    size = scenes.even(0.29 * min(height, width))
    return Square(cy=height * (2 * row + 1) // 6, cx=width * (2 * column + 1) // 6, size=size)


def split_rng(split: str, seed: int, index: int = 0) -> random.Random:
    """The generator of one stream. The split is part of the seed: training and held-out never meet."""
    if split not in SPLITS:
        raise ValueError(f"a split is one of {SPLITS}, not {split!r}")
    return random.Random(f"nano/{split}/{seed}/{index}")


def sample_edit(
    rng: random.Random, kind: str | None = None, split: str = "train", size: tuple[int, int] | None = None
) -> EditPair:
    """A random pair; `kind` and (height, width) `size` are drawn where they are not given.

    In "train" the subject never ends up as a held-out combination of kind and colour; in "heldout" it does in
    about half of the pairs, and the wording is always one that training lacks.
    """
    if split not in SPLITS:
        raise ValueError(f"a split is one of {SPLITS}, not {split!r}")
    if kind is None:
        kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if kind not in _BUILDERS:
        raise ValueError(f"an edit is one of {EDITS}, not {kind!r}")
    height, width = size or rng.choice(scenes.SIZES)
    unseen = split == "heldout" and kind in _WITH_RESULT and rng.random() < 0.5
    while True:  # a crowded layout may leave no room for an edit; each try is independent and nearly all succeed
        pair = _BUILDERS[kind](rng, split, height, width, unseen)
        if pair is not None:
            return pair


def _others(rng: random.Random) -> int:
    """How many objects stand around the one that an edit is about."""
    return rng.choices((0, 1, 2, 3), (4, 6, 5, 1))[0]


def _empty(rng: random.Random, height: int, width: int, colours: tuple[str, ...] = COLOURS) -> Scene:
    return Scene(height=height, width=width, background=scenes.sample_background(rng, colours))


def _subject(rng: random.Random, ground: str, square: Square, size: int, unseen: bool) -> Thing | None:
    """An object to stand in the square whose combination of kind and colour is, or is not, a held-out one."""
    kind = rng.choice(KINDS)
    colours = [c for c in scenes.object_colours(ground) if held_out(kind, c) == unseen]
    if not colours:
        return None
    return Thing(kind=kind, colour=rng.choice(colours), cy=square.cy, cx=square.cx, size=size)


def _swap(scene: Scene, index: int, thing: Thing | None) -> Scene:
    """The scene with one object replaced, or taken out where `thing` is None."""
    rest = scene.objects[index + 1 :]
    middle = () if thing is None else (thing,)
    return replace(scene, objects=(*scene.objects[:index], *middle, *rest))


def _slots(thing: Thing) -> dict[str, str]:
    return {"object_colour": thing.colour, "object_kind": thing.kind}


def _recolour(rng: random.Random, split: str, height: int, width: int, unseen: bool) -> EditPair | None:
    source = scenes.add_bystanders(rng, _empty(rng, height, width), 1 + _others(rng))
    if not source.objects:
        return None
    index = rng.randrange(len(source.objects))
    old = source.objects[index]
    ground = source.background.colour
    colours = [c for c in scenes.object_colours(ground) if c != old.colour and held_out(old.kind, c) == unseen]
    if not colours:
        return None
    colour = rng.choice(colours)
    target = _swap(source, index, replace(old, colour=colour))
    text = wording.word(rng, "recolour", split, {**_slots(old), "colour": colour})
    return EditPair("recolour", split, text, source, target, index, index, colour, unseen)


def _background(rng: random.Random, split: str, height: int, width: int, unseen: bool) -> EditPair | None:
    source = scenes.add_bystanders(rng, _empty(rng, height, width), 1 + _others(rng))
    old = source.background
    worn = {thing.colour for thing in source.objects}
    colours = [c for c in COLOURS if c != old.colour and all(stands_out(w, c) for w in worn)]
    if not colours:
        return None
    colour = rng.choice(colours)
    target = replace(source, background=replace(old, colour=colour))
    text = wording.word(rng, "background", split, {"colour": colour})
    return EditPair("background", split, text, source, target, None, None, colour, unseen)


def _remove(rng: random.Random, split: str, height: int, width: int, unseen: bool) -> EditPair | None:
    source = scenes.add_bystanders(rng, _empty(rng, height, width), 1 + _others(rng))
    if not source.objects:
        return None
    index = rng.randrange(len(source.objects))
    text = wording.word(rng, "remove", split, _slots(source.objects[index]))
    return EditPair("remove", split, text, source, _swap(source, index, None), index, None, "", unseen)


def _add(rng: random.Random, split: str, height: int, width: int, unseen: bool) -> EditPair | None:
    place = rng.choice(PLACES)
    square = place_square(place, height, width)
    empty = _empty(rng, height, width)
    thing = _subject(rng, empty.background.colour, square, square.size, unseen)
    if thing is None:
        return None
    kinds = [kind for kind in KINDS if kind != thing.kind]
    source = scenes.add_bystanders(rng, empty, _others(rng), taken=[square], kinds=kinds)
    target = replace(source, objects=(*source.objects, thing))
    text = wording.word(rng, "add", split, {"colour": thing.colour, "kind": thing.kind, "place": place})
    return EditPair("add", split, text, source, target, None, len(source.objects), place, unseen)


def _shape(rng: random.Random, split: str, height: int, width: int, unseen: bool) -> EditPair | None:
    empty = _empty(rng, height, width)
    size = scenes.sample_size(rng, height, width)
    square = scenes.free_square(rng, height, width, size, ())
    new = None if square is None else _subject(rng, empty.background.colour, square, size, unseen)
    if new is None:
        return None
    old = replace(new, kind=rng.choice([kind for kind in KINDS if kind != new.kind]))
    kinds = [kind for kind in KINDS if kind != new.kind]
    source = scenes.add_bystanders(rng, replace(empty, objects=(old,)), _others(rng), kinds=kinds)
    index = source.objects.index(old)
    text = wording.word(rng, "shape", split, {**_slots(old), "kind": new.kind})
    return EditPair("shape", split, text, source, _swap(source, index, new), index, index, new.kind, unseen)


def _resize(rng: random.Random, split: str, height: int, width: int, unseen: bool) -> EditPair | None:
    grow = rng.random() < 0.5
    old_size = scenes.sample_size(rng, height, width, ("small", "medium") if grow else ("medium", "large"))
    new_size = scenes.even(old_size * (GROW if grow else SHRINK))
    square = scenes.free_square(rng, height, width, max(old_size, new_size), ())
    empty = _empty(rng, height, width)
    old = None if square is None else _subject(rng, empty.background.colour, square, old_size, unseen)
    if old is None or square is None:
        return None
    source = scenes.add_bystanders(rng, replace(empty, objects=(old,)), _others(rng), taken=[square])
    index = source.objects.index(old)
    target = _swap(source, index, replace(old, size=new_size))
    text = wording.word(rng, "resize", split, _slots(old), grow)
    wanted = "bigger" if grow else "smaller"
    return EditPair("resize", split, text, source, target, index, index, wanted, unseen)


def _move(rng: random.Random, split: str, height: int, width: int, unseen: bool) -> EditPair | None:
    # Red tones would hide the box.
    empty = _empty(rng, height, width, tuple(c for c in COLOURS if c != "red"))
    size = scenes.sample_size(rng, height, width)
    room = scenes.even(size * 1.2) + 2 * scenes.BOX_STROKE
    start = scenes.free_square(rng, height, width, size, ())
    goal = None if start is None else scenes.free_square(rng, height, width, room, [start])
    old = None if start is None else _subject(rng, empty.background.colour, start, size, unseen)
    if old is None or goal is None:
        return None
    # The box has the object's aspect; in the target the object's own middle is the box's middle.
    found = scenes.extent(old)
    pad = round(0.08 * size) + scenes.BOX_STROKE
    down, right = goal.cy - old.cy, goal.cx - old.cx
    box = scenes.Box(
        y0=found.y0 + down - pad,
        x0=found.x0 + right - pad,
        y1=found.y1 + down + pad,
        x1=found.x1 + right + pad,
    )
    source = scenes.add_bystanders(rng, replace(empty, objects=(old,), box=box), _others(rng), taken=[goal])
    index = source.objects.index(old)
    target = replace(_swap(source, index, replace(old, cy=goal.cy, cx=goal.cx)), box=None)
    text = wording.word(rng, "move", split, _slots(old))
    return EditPair("move", split, text, source, target, index, index, "box", unseen)


def _greyscale(rng: random.Random, split: str, height: int, width: int, unseen: bool) -> EditPair | None:
    # A white or black background with a white or black object is grey already.
    empty = _empty(rng, height, width, tuple(c for c in COLOURS if c not in ("white", "black")))
    source = scenes.add_bystanders(rng, empty, 1 + _others(rng))
    text = wording.word(rng, "greyscale", split, {})
    return EditPair("greyscale", split, text, source, replace(source, grey=True), None, None, "", unseen)


_BUILDERS = {
    "recolour": _recolour,
    "background": _background,
    "remove": _remove,
    "add": _add,
    "shape": _shape,
    "resize": _resize,
    "move": _move,
    "greyscale": _greyscale,
}

# The edits after which there is a subject to look at, so that its combination of kind and colour can be held
# out.
_WITH_RESULT = frozenset(("recolour", "add", "shape", "resize", "move"))
