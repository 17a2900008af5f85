"""Sources without a manifest: one picture, and a folder of pictures. One instruction serves all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from joyedit.errors import ManifestError, Problem, UsageError, os_reason
from joyedit.job.source.item_builder import ItemBuilder
from joyedit.job.source.names import EXTENSIONS, safe_name
from joyedit.job.source.picture_folder import walk
from joyedit.job.source.problems import Record, utf8_safe
from joyedit.job.source.source import Source, SourceSummary
from joyedit.job.source.source_options import PAIR, RunDefaults, SourceOptions, compose_instruction
from joyedit.job.source.taken_names import TakenNames
from joyedit.job.spec import EditItem, FailedItem, Origin, Sampling, Settings, Size


class PictureSource(Source):
    """One picture, named on the command line."""

    def __init__(self, name: str, options: SourceOptions) -> None:
        super().__init__(name, "picture", options)
        self._record = Record(0, {"image": os.path.basename(name)})

    def check(self) -> SourceSummary:
        builder = self._builder(look=True)
        problems = builder.problems(self._record)
        if problems:
            raise ManifestError(problems)
        return self._summary(1, builder.settings)

    def _items(self) -> Iterator[EditItem | FailedItem]:
        yield self._builder(look=False).item(self._record)

    def _builder(self, *, look: bool) -> ItemBuilder:
        base = os.path.dirname(self.name)
        return ItemBuilder(file=self.name, base=base, options=self.options, defaults=RunDefaults(), look=look)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shared:
    """What all items of a folder share."""

    settings: Settings
    instruction: str
    sampling: Sampling
    size: Size | None


class FolderSource(Source):
    """A folder of pictures. The output folder gets the same tree."""

    def __init__(self, name: str, options: SourceOptions) -> None:
        super().__init__(name, "folder", options)
        assert options.output is not None, "the items of a folder go into an output folder"
        if os.path.realpath(options.output) == os.path.realpath(name):
            raise UsageError(f"{name}: the output folder is the source folder (choose another with -o)")

    def check(self) -> SourceSummary:
        shared = self._shared()
        pictures = passed_over = 0
        try:
            for entry in walk(self.name, skip=str(self.options.output), format=self.options.format):
                pictures += entry.is_picture
                passed_over += not entry.is_picture
        except OSError as error:
            folder = utf8_safe(os.fspath(error.filename or self.name))
            raise ManifestError([Problem(f"cannot read this folder: {os_reason(error)}").at(folder)]) from error
        if not pictures:
            message = f"no pictures in this folder, {passed_over} other files"
            raise ManifestError([Problem(message).at(self.name)])
        return self._summary(pictures, shared.settings, passed_over)

    def _shared(self) -> _Shared:
        settings = self.options.settings(Settings())
        text, problems = compose_instruction(
            self.options.recipe, self.options.recipe_values, own=None, prompt=self.options.prompt, default=None
        )
        height, width = settings.height, settings.width
        if (width is None) != (height is None):
            problems = [*problems, PAIR]
        if problems:
            raise ManifestError(problem.at(self.name) for problem in problems)
        size = None if height is None or width is None else (height, width)
        return _Shared(settings=settings, instruction=text, sampling=settings.sampling(), size=size)

    def _items(self) -> Iterator[EditItem | FailedItem]:
        shared = self._shared()
        extension = EXTENSIONS[self.options.format][0]
        taken = TakenNames(extension)
        origin = Origin(file=self.name)
        found = walk(self.name, skip=str(self.options.output), format=self.options.format)
        pictures = (entry.path for entry in found if entry.is_picture)
        for number, path in enumerate(pictures, 1):
            name = taken.default_id(safe_name(os.path.splitext(path)[0]), safe_name(path))
            taken.take_id(name, number)
            taken.take_output(name + extension, number)
            if utf8_safe(path) != path:
                # Neither a record nor a message could hold its name.
                yield FailedItem(
                    id=name,
                    images=(),
                    instruction=shared.instruction,
                    origin=origin,
                    code="unreadable_picture",
                    message=f"{utf8_safe(path)}: the file name is not valid UTF-8; rename it",
                )
                continue
            yield EditItem(
                id=name,
                images=(Path(os.path.join(self.name, path)),),
                instruction=shared.instruction,
                sampling=shared.sampling,
                basesize=shared.settings.basesize or 0,
                size=shared.size,
                output=name + extension,
                origin=origin,
            )
