"""The pictures that a line of a manifest names, and those that stand in the line itself."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from pathlib import Path

from joyedit.errors import Problem
from joyedit.job.data_picture import DataPicture, Reference
from joyedit.job.sizes import Size
from joyedit.job.source.data_uris import DataUriError, is_data, picture_of
from joyedit.job.source.picture_finder import PictureFinder
from joyedit.job.source.problems import cut
from joyedit.job.source.schema import Line
from joyedit.job.source.written_paths import is_plain

SHOWN_DATA = 100
"""So many characters of a picture that stands in a line are shown where it is told of."""
_SHOWN_PATH = 1000
_SHOWN_IMAGES = 20


def images_of(line: Line) -> list[str]:
    """The pictures of a line, in its order, whether it says `image` or `images`."""
    return [line.image] if line.image is not None else line.images or []


def shown_paths(line: Line, finder: PictureFinder) -> tuple[Reference, ...]:
    """The paths of a line that is no item, as its record shows them: the first few, the long ones cut."""
    return tuple(_shown_path(image, finder) for image in images_of(line)[:_SHOWN_IMAGES])


def _shown_path(image: str, finder: PictureFinder) -> Reference:
    if not is_plain(image) and is_data(image):
        return DataPicture(cut(image, SHOWN_DATA), "", b"")
    return Path(cut(finder.find(image).path, _SHOWN_PATH))


def of_mask(problem: Problem) -> Problem:
    """The problem of a picture that is a mask."""
    return replace(problem, message=f"mask: {problem.message}", key="mask")


def mask_problem(pictures: int, size: Size | None) -> Problem | None:
    """Why an item of so many pictures can have no mask. `size` is what it asks for; None: that of its picture."""
    if not pictures:
        return Problem("a mask says what of a picture may change, and this item has no picture", key="mask")
    if pictures > 1 and size is not None:
        message = "a mask fits the last of several pictures, and this item has another size"
        return Problem(message, "leave the size out, or give it as long=PIXELS", key="mask")
    return None


def too_many_references(pictures: int, most: int | None) -> Problem | None:
    """Why an item of so many pictures cannot be edited by a checkpoint that takes `most`; None: nobody knows."""
    if most is None or pictures <= most:
        return None
    if most == 1:
        message = f"this item has {pictures} pictures, and Edit, the model that is given, takes one"
        return Problem(message, "--model with a checkpoint of Edit-Plus, which takes up to 5", key="images")
    return Problem(f"this item has {pictures} pictures, and the model takes at most {most}", key="images")


def take_pictures(line: Line, problems: list[Problem], known: Container[str] = ()) -> dict[str, DataPicture]:
    """The pictures that stand in the line, by their addresses; these take the place of the pictures there.

    `known` are addresses of pictures that somebody holds already.
    """
    taken: dict[str, DataPicture] = {}

    def taken_out(image: str, key: str = "image") -> str:
        if is_plain(image) or image in known or not is_data(image):
            return image
        try:
            picture = picture_of(image)
        except DataUriError as error:
            problems.append(error.problem if key == "image" else of_mask(error.problem))
            return image[:SHOWN_DATA]
        taken[picture.address] = picture
        return picture.address

    if line.image is not None:
        line.image = taken_out(line.image)
    if line.images is not None:
        line.images = [taken_out(image) for image in line.images]
    if line.mask is not None:
        line.mask = taken_out(line.mask, "mask")
    return taken
