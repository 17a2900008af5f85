"""What people say for each kind of edit: templates to train on, others held out, and how they are filled.

A held-out template says the same in another order with the same words, so that it asks whether the model
reads a sentence and not whether it knows a word. Slots: {object} "the red house" or "the house", {thing} "a
red house", {colour}, {kind} "a house", {at} "at the top left", {bigger}, {enlarge}, {up}.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from nano.colours import COLOURS
from nano.things import KINDS

EDITS: tuple[str, ...] = ("recolour", "background", "remove", "add", "shape", "resize", "move", "greyscale")

PLACES: tuple[str, ...] = (
    "top left",
    "top",
    "top right",
    "left",
    "centre",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)

# The model's own sentence for this edit; it is never reworded.
MOVE = "Move {object} into the red box and finally remove the red box."

TRAIN: dict[str, tuple[str, ...]] = {
    "recolour": (
        "make {object} {colour}",
        "turn {object} {colour}",
        "paint {object} {colour}",
        "can you paint {object} {colour}",
        "change {object} to {colour}",
        "change the colour of {object} to {colour}",
        "{object} should be {colour}",
        "please make {object} {colour} and keep the rest",
        "change the color of {object} to {colour}",
        "please turn {object} {colour}",
        "paint {object} {colour} and keep all the rest",
    ),
    "background": (
        "make the background {colour}",
        "turn the background {colour}",
        "paint the background {colour}",
        "change the background to {colour}",
        "can you change the background to {colour}",
        "change the colour of the background to {colour}",
        "the background should be {colour}",
        "please make the background {colour} and keep the rest",
        "change the background color to {colour}",
        "can you make the background {colour}",
        "please change the background to {colour}",
        "please paint the background {colour}",
        "turn the colour of the background to {colour}",
        "paint the background {colour} and keep the rest",
        "make the background {colour} and keep all the objects",
        "the background should be {colour}, keep all the objects",
    ),
    "remove": (
        "remove {object}",
        "delete {object}",
        "erase {object}",
        "take {object} away",
        "take away {object}",
        "can you take {object} away",
        "remove {object} from the picture",
        "make {object} disappear",
        "please remove {object} and keep the rest",
        "remove {object}, please",
        "please delete {object}",
        "remove {object} and keep all the rest",
        "please take away {object}",
        "erase {object} from the picture",
        "please remove {object} from the picture",
        "please make {object} disappear",
        "make {object} disappear and keep the rest",
        "delete {object} and keep the rest",
    ),
    "add": (
        "add {thing} {at}",
        "put {thing} {at}",
        "draw {thing} {at}",
        "{at}, add {thing}",
        "add {thing} {at} of the picture",
        "there should be {thing} {at}",
        "please add {thing} {at} and keep the rest",
        "{at}, place {thing}",
        "place {thing} {at}",
        "can you draw {thing} {at}",
        "can you put {thing} {at}",
        "add {thing} {at} and keep all the rest",
    ),
    "shape": (
        "turn {object} into {kind}",
        "change {object} into {kind}",
        "replace {object} with {kind}",
        "can you replace {object} with {kind}",
        "make {object} {kind}",
        "{object} should be {kind}",
        "change the shape of {object} to {kind}",
        "please turn {object} into {kind} and keep the colour",
        "replace {object} with {kind} of the same colour",
        "please turn {object} into {kind}",
        "turn {object} into {kind} and keep all the rest",
    ),
    "resize": (
        "make {object} {bigger}",
        "{enlarge} {object}",
        "{object} should be {bigger}",
        "scale {object} {up}",
        "change the size of {object} to be {bigger}",
        "please make {object} {bigger} and keep the rest",
        "turn {object} into a {bigger} one",
        "scale {up} {object}",
        "can you {enlarge} {object}",
        "please make {object} {bigger}",
        "make {object} {bigger} and keep all the rest",
    ),
    "move": (MOVE,),
    "greyscale": (
        "make it black and white",
        "make the picture black and white",
        "turn the picture into black and white",
        "change the picture to black and white",
        "turn it into greyscale",
        "make it greyscale",
        "remove the colour from the picture",
        "please remove all color",
        "can you make it black and white",
        "remove all the colour from the picture",
        "take the colour away",
        "take all the color out of the picture",
        "please take the colour from it",
        "please make it greyscale",
    ),
}

HELD_OUT: dict[str, tuple[str, ...]] = {
    "recolour": (
        "please paint {object} {colour}",
        "turn the colour of {object} to {colour}",
        "the color of {object} should be {colour}",
        "{object} should change to {colour}",
    ),
    "background": (
        "please turn the background {colour}",
        "the colour of the background should be {colour}",
        "paint the background {colour} and keep all the rest",
        "the background should change to {colour}",
    ),
    "remove": (
        "please take {object} away",
        "delete {object} from the picture",
        "please make {object} disappear from the picture",
        "erase {object} and keep the rest",
    ),
    "add": (
        "please draw {thing} {at}",
        "{at}, please put {thing}",
        "put {thing} {at} of the picture",
        "{at} of the picture, place {thing}",
    ),
    "shape": (
        "please change {object} into {kind}",
        "the shape of {object} should be {kind}",
        "turn {object} into {kind} of the same color",
        "please replace {object} with {kind} and keep the rest",
    ),
    "resize": (
        "please {enlarge} {object}",
        "the size of {object} should be {bigger}",
        "turn {object} {bigger}",
        "{enlarge} {object} and keep the rest",
    ),
    "move": (MOVE,),
    "greyscale": (
        "please turn it into black and white",
        "the picture should be black and white",
        "change the picture to greyscale",
        "take all the colour from the picture",
    ),
}


def at(place: str) -> tuple[str, ...]:
    """The ways to say that something stands at a place."""
    if place == "centre":
        return ("in the centre", "at the centre")
    if place in ("left", "right"):
        return (f"on the {place}", f"at the {place}")
    if place in ("top", "bottom"):
        return (f"at the {place}",)
    return (f"at the {place}", f"in the {place}", f"on the {place}")


_BIGGER = {True: ("bigger", "larger"), False: ("smaller",)}
_ENLARGE = {True: ("enlarge",), False: ("shrink",)}
_UP = {True: "up", False: "down"}


def templates(edit: str, split: str) -> tuple[str, ...]:
    """The templates of one edit in "train" or "heldout"."""
    return TRAIN[edit] if split == "train" else HELD_OUT[edit]


def article(words: str) -> str:
    """The words with "a" or "an" in front."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def word(rng: random.Random, edit: str, split: str, slots: Mapping[str, str], grow: bool = True) -> str:
    """One instruction for the edit.

    `slots` may hold "colour" and "kind" as bare words, "place", and the object it is about as "object_colour"
    and "object_kind"; `grow` chooses between the words for bigger and smaller.
    """
    template = rng.choice(templates(edit, split))
    if "object_kind" in slots:
        # Each kind occurs once in a scene, so its name alone is enough.
        short = edit != "move" and rng.random() < 0.3
        named = slots["object_kind"] if short else f"{slots['object_colour']} {slots['object_kind']}"
    else:
        named = ""
    thing = f"{slots.get('colour', '')} {slots.get('kind', '')}".strip()
    sentence = template.format(
        object=f"the {named}",
        thing=article(thing) if thing else "",
        colour=slots.get("colour", ""),
        kind=article(slots["kind"]) if "kind" in slots else "",
        at=rng.choice(at(slots.get("place", ""))),
        bigger=rng.choice(_BIGGER[grow]),
        enlarge=rng.choice(_ENLARGE[grow]),
        up=_UP[grow],
    )
    return sentence if edit == "move" else _style(rng, sentence)


def _style(rng: random.Random, sentence: str) -> str:
    """Upper or lower case at the start, a final stop or none: people type both."""
    if rng.random() < 0.7:
        sentence = _capital(sentence)
    return sentence + _stop(sentence) if rng.random() < 0.6 else sentence


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _stop(sentence: str) -> str:
    return "?" if sentence.lower().startswith("can you") else "."


def corpus(split: str) -> Iterator[str]:
    """Sentences that between them hold every word of a split in each of its written forms.

    Every template is filled in each style with one choice for each slot; that every colour, kind and place
    occurs is seen to by walking through them.
    """
    turn = 0
    for edit in EDITS:
        for template in templates(edit, split):
            for _ in range(max(len(COLOURS), len(KINDS), len(PLACES))):
                colour, kind = COLOURS[turn % len(COLOURS)], KINDS[turn % len(KINDS)]
                ways = at(PLACES[turn % len(PLACES)])
                grow = turn % 2 == 0
                sentence = template.format(
                    object=f"the {colour} {kind}",
                    thing=article(f"{colour} {kind}"),
                    colour=colour,
                    kind=article(kind),
                    at=ways[turn // len(PLACES) % len(ways)],
                    bigger=_BIGGER[grow][turn // 2 % len(_BIGGER[grow])],
                    enlarge=_ENLARGE[grow][0],
                    up=_UP[grow],
                )
                turn += 1
                if edit == "move":
                    yield sentence
                    continue
                for written in (sentence, _capital(sentence)):
                    yield from (written, written + _stop(written))
