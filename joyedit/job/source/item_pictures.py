"""The pictures of one item: where each is, its mask, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from joyedit.errors import Problem
from joyedit.job.contained import ContainedPicture
from joyedit.job.data_picture import Reference
from joyedit.job.source.data_uris import is_data
from joyedit.job.source.line_pictures import images_of, of_mask, shown_paths, take_pictures
from joyedit.job.source.output_tree import OutputTree
from joyedit.job.source.picture_finder import FoundPicture, PictureFinder
from joyedit.job.source.problems import Record, Table, shown
from joyedit.job.source.schema import PICTURE_KEYS, Line, Schema
from joyedit.job.source.written_paths import is_plain
from joyedit.job.turns import earlier_id


class OwnPictures(NamedTuple):
    """The pictures of an item, its mask, and why one of them is missing if that stops only the item.

    `held` are those that are no plain files, by what takes their place in the line.
    """

    pictures: list[FoundPicture]
    mask: FoundPicture | None
    missing: Problem | None
    held: Mapping[str, Reference]

    @property
    def images(self) -> tuple[Reference, ...]:
        """The references."""
        return tuple([self.reference(found) for found in self.pictures])

    def reference(self, found: FoundPicture) -> Reference:
        """What an item holds of a picture."""
        return self.held.get(found.path) or found.contained or Path(found.path)

    @property
    def name(self) -> str:
        """The path of the first picture for the name of an output; "" without one."""
        if not self.pictures:
            return ""
        return self.pictures[0].file_name


class ItemPictures:
    """Finds the pictures of records. `mask` is the path of that of items without one of their own.

    With `look`, a picture that does not exist is a problem; with `skip_missing` too, it stops only its item.
    """

    def __init__(
        self, base: str, tree: OutputTree, schema: Schema, *, mask: str | None, look: bool, skip_missing: bool
    ) -> None:
        self._finder = PictureFinder(base, tree, look=look)
        self._mask = None if mask is None else PictureFinder("", tree, look=False).find(mask)
        self._schema = schema
        self._skip_missing = skip_missing
        self.count_missing = 0
        self.first_missing = ""

    def of(self, line: Line, record: Record, problems: list[Problem], *, names_results: bool) -> OwnPictures:
        """The pictures of one record; pictures that stand in its line are taken out of it.

        `names_results`: `@id` is the result of another item.
        """
        known = {} if record.dataset is None else record.dataset.pictures
        held: Mapping[str, Reference] = {**take_pictures(line, problems, known), **known}
        if line.image is not None and line.images is not None:
            problems.append(Problem("'image' and 'images' are both given", "keep one of them"))
        pictures = [self._find(image, held, names_results) for image in images_of(line)]
        mask = self._mask
        if line.mask is not None:
            mask = self._find(line.mask, held, names_results)
            mask = mask if mask.problem is None else mask._replace(problem=of_mask(mask.problem))
        missing: Problem | None = None
        for found in pictures if mask is None else (*pictures, mask):
            if found.problem is None:
                continue
            if found.is_missing and self._skip_missing:
                missing = missing or found.problem
            else:
                problems.append(found.problem)
        if missing is not None:
            self.count_missing += 1
            self.first_missing = self.first_missing or missing.text
        return OwnPictures(pictures, mask, missing, held)

    def shown(self, line: Line | None, record: Record | None) -> tuple[Reference, ...]:
        """The pictures of a record that is no item, as its record shows them."""
        if line is None:
            return ()
        held = {} if record is None or record.dataset is None else record.dataset.pictures
        return tuple(held.get(str(one), one) for one in shown_paths(line, self._finder))

    def left_empty(self, data: dict[str, object]) -> Problem | None:
        """The problem of an item whose picture is left empty; None if nothing says that it should have one."""
        remedy = "--text-to-image makes a picture of the instruction alone"
        if isinstance(data, Table):
            for name in data.empty:
                if self._schema.key(name) in PICTURE_KEYS:
                    return Problem(f"{name} is empty, and an edit needs a picture", remedy, key=name)
        mapped = self._schema.mapped_pictures
        if mapped and not any(name in data for name in mapped):
            message = f"the item has no {shown(mapped[0])}, and an edit needs a picture"
            return Problem(message, remedy, once="no mapped picture")
        return None

    def _find(self, image: str, held: Mapping[str, Reference], names_results: bool) -> FoundPicture:
        """A picture in a file or in the line. Of a broken one in the line the problems tell already."""
        if image in held or (not is_plain(image) and is_data(image)):
            one = held.get(image)
            return FoundPicture(image, (), None, contained=one if isinstance(one, ContainedPicture) else None)
        if names_results and earlier_id(image) is not None:
            return FoundPicture(image, (), None)
        return self._finder.find(image)
