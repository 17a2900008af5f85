"""Any source -> a stream of items, checked as a whole before anything is loaded.

A source is a manifest (JSONL, YAML, a JSON list, CSV), a folder of pictures, one picture, or `-`.
`check()` passes over all of it and tells every fault at once; `items()` streams it. Neither holds
more than one item and the hashes of the names given out.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from joyedit.errors import ManifestError, Problem, UsageError
from joyedit.job.source import readers as records
from joyedit.job.source.item_builder import (
    ItemBuilder,
    RunDefaults,
    SourceOptions,
    compose,
    effective_settings,
    item_schema,
    read_defaults,
)
from joyedit.job.source.names import EXTENSIONS, safe_name
from joyedit.job.source.picture_folder import PICTURE_SUFFIXES, walk
from joyedit.job.source.problems import Problems, Record, ascii_safe, nearest, shown
from joyedit.job.source.taken_names import TakenNames
from joyedit.job.spec import EditItem, FailedItem, Origin, Sampling, Settings

__all__ = ["Source", "SourceOptions", "SourceSummary", "open_source", "reopen"]

_KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".csv": "csv",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSummary:
    """What a check found: how many items will come (None: only the end will tell), how many files
    of a folder are no pictures, and the settings in force for items without any of their own."""

    items: int | None
    passed_over: int
    settings: Settings


class Source(ABC):
    """A checked stream of items. `kind`: jsonl, yaml, json, csv, folder, picture or stdin."""

    def __init__(self, name: str, kind: str, options: SourceOptions) -> None:
        self.name = name
        self.kind = kind
        self.options = options

    @abstractmethod
    def check(self) -> SourceSummary:
        """Passes over the whole source (standard input: its first line). Raises ManifestError."""

    def outline(self) -> SourceSummary:
        """As much of the summary as can be told without passing over a manifest. Raises ManifestError."""
        return self.check()

    def asked(self) -> dict[str, Any]:
        """All that the ids of the items depend on, as JSON; `reopen` makes of it a source of the same ids."""
        recipe = self.options.recipe
        return {
            "path": "-" if self.kind == "stdin" else os.path.abspath(self.name),
            "format": self.options.format,
            "limit": self.options.limit,
            "keys": [] if recipe is None else sorted(recipe.parameters),
        }

    def items(self) -> Iterator[EditItem | FailedItem]:
        """The items in order, at most `limit` of them. What went bad since the check is a failed item."""
        return islice(self._items(), self.options.limit)

    @abstractmethod
    def _items(self) -> Iterator[EditItem | FailedItem]: ...

    def _summary(self, items: int | None, settings: Settings, passed_over: int = 0) -> SourceSummary:
        limit = self.options.limit
        if items is not None and limit is not None:
            items = min(items, limit)
        return SourceSummary(items=items, passed_over=passed_over, settings=settings)


def open_source(source: str, options: SourceOptions, stdin: BinaryIO | None = None) -> Source:
    """The source that `source` names; nothing of it is read yet.

    `-` is `stdin`, or else the standard input of this process. Raises UsageError.
    """
    options.check()
    if source == "-":
        return _Stdin(options, sys.stdin.buffer if stdin is None else stdin)
    if "\0" in source or not source:
        raise UsageError(f"{shown(source)} is no name of a file or folder")
    if not os.path.exists(source):
        raise UsageError(f"{source}: no such file or folder")
    if os.path.isdir(source):
        return _Folder(source, options)
    suffix = os.path.splitext(source)[1].lower()
    if suffix in PICTURE_SUFFIXES:
        return _Picture(source, options)
    if suffix in _KINDS:
        return _Manifest(source, _KINDS[suffix], options)
    near = nearest(suffix, _KINDS) if suffix else f"valid: {', '.join(_KINDS)}"
    raise UsageError(f"{source}: neither a manifest nor a picture by its ending ({near}; a list of paths goes to '-')")


def reopen(asked: object, output: Path) -> Source:
    """A source for its items' ids alone, from what `Source.asked` gave.

    Raises UsageError where there is no such source, or none that can be read twice. Its `items` may too.
    """
    message = asked if isinstance(asked, dict) else {}
    path, format, limit, keys = (message.get(key) for key in ("path", "format", "limit", "keys"))
    if not isinstance(path, str) or path == "-" or not isinstance(format, str):
        raise UsageError("the source was not one that can be read again")
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UsageError(f"{path}: neither a file nor a folder")  # opening a pipe would wait for ever
    options = SourceOptions(
        prompt="any",
        format=format,
        output=output,
        limit=limit if isinstance(limit, int) else None,
        keys=tuple(str(key) for key in keys) if isinstance(keys, list) else (),
        look=False,
    )
    return open_source(path, options)


class _Manifest(Source):
    """A manifest file."""

    def check(self) -> SourceSummary:
        problems = Problems()
        defaults, faults = self._defaults()
        problems.add(faults)
        builder = self._builder(defaults, look=self.options.look)
        count = 0
        for got in self._records():
            count += 1
            problems.add([got] if isinstance(got, Problem) else builder.faults(got))
        if not count and not problems.total:
            problems.add([Problem(file=self.name, message="no items in this manifest")])
        problems.raise_any()
        return self._summary(count, builder.settings)

    def outline(self) -> SourceSummary:
        return self._summary(None, self._unlooked().settings)

    def _items(self) -> Iterator[EditItem | FailedItem]:
        builder = self._unlooked()
        for got in self._records():
            yield builder.failed(got) if isinstance(got, Problem) else builder.item(got)

    def _unlooked(self) -> ItemBuilder:
        """For items whose pictures are looked at later, by others."""
        defaults, faults = self._defaults()
        if faults:
            raise ManifestError(faults)
        return self._builder(defaults, look=False)

    def _builder(self, defaults: RunDefaults, *, look: bool) -> ItemBuilder:
        return ItemBuilder(
            file=self.name,
            base=os.path.dirname(self.name),
            options=self.options,
            defaults=defaults,
            look=look,
        )

    def _defaults(self) -> tuple[RunDefaults, list[Problem]]:
        if self.kind != "yaml":
            return RunDefaults(), []
        with self._open() as file:
            record = records.read_yaml_defaults(file, self.name)
        return read_defaults(record, self.options, self.name)

    def _records(self) -> records.Records:
        with self._open() as file:
            if self.kind == "csv":
                yield from records.read_csv(file, self.name, item_schema(self.options))
            else:
                read = {"jsonl": records.read_jsonl, "json": records.read_json, "yaml": records.read_yaml}
                yield from read[self.kind](file, self.name)

    def _open(self) -> BinaryIO:
        try:
            return open(self.name, "rb")
        except OSError as error:
            raise UsageError(f"{self.name}: cannot read this manifest: {error.strerror or error}") from error


class _Picture(Source):
    """One picture, named on the command line."""

    def __init__(self, name: str, options: SourceOptions) -> None:
        super().__init__(name, "picture", options)
        self._record = Record(0, {"image": os.path.basename(name)})

    def check(self) -> SourceSummary:
        builder = self._builder(look=True)
        problems = builder.faults(self._record)
        if problems:
            raise ManifestError(problems)
        return self._summary(1, builder.settings)

    def _items(self) -> Iterator[EditItem | FailedItem]:
        yield self._builder(look=False).item(self._record)

    def _builder(self, *, look: bool) -> ItemBuilder:
        return ItemBuilder(
            file=self.name,
            base=os.path.dirname(self.name),
            options=self.options,
            defaults=RunDefaults(),
            look=look,
        )


class _Folder(Source):
    """A folder of pictures; its tree is mirrored in the output."""

    def __init__(self, name: str, options: SourceOptions) -> None:
        super().__init__(name, "folder", options)
        assert options.output is not None
        if os.path.realpath(options.output) == os.path.realpath(name):
            raise UsageError(f"{name}: the output folder is the source folder (choose another with -o)")

    def check(self) -> SourceSummary:
        settings, _, _ = self._in_force()
        pictures = passed_over = 0
        try:
            for entry in walk(self.name, skip=str(self.options.output), format=self.options.format):
                pictures += entry.is_picture
                passed_over += not entry.is_picture
        except OSError as error:
            message = f"cannot read this folder: {error.strerror or error}"
            folder = os.fspath(error.filename or self.name)
            raise ManifestError([Problem(file=ascii_safe(folder), message=message)]) from error
        if not pictures:
            message = f"no pictures in this folder, {passed_over} other files"
            raise ManifestError([Problem(file=self.name, message=message)])
        return self._summary(pictures, settings, passed_over)

    def _in_force(self) -> tuple[Settings, str, Sampling]:
        settings = effective_settings(self.options, Settings())
        text, faults = compose(self.options.recipe, self.options.recipe_values, None, self.options.prompt, None)
        problems = [Problem(file=self.name, message=fault.message, remedy=fault.remedy) for fault in faults]
        if (settings.width is None) != (settings.height is None):
            problems.append(Problem(file=self.name, message="width and height go together"))
        if problems:
            raise ManifestError(problems)
        return settings, text, Sampling(**{key: getattr(settings, key) for key in Sampling.__slots__})

    def _items(self) -> Iterator[EditItem | FailedItem]:
        settings, text, sampling = self._in_force()
        both = settings.height is not None and settings.width is not None
        size = (settings.height or 0, settings.width or 0) if both else None
        extension = EXTENSIONS[self.options.format][0]
        claims = TakenNames(extension)
        origin = Origin(file=self.name)
        found = walk(self.name, skip=str(self.options.output), format=self.options.format)
        pictures = (entry.path for entry in found if entry.is_picture)
        for number, path in enumerate(pictures, 1):
            stem = safe_name(os.path.splitext(path)[0])
            name = claims.default_id(stem, safe_name(path))
            claims.id(name, number)
            claims.output(name + extension, number)
            if ascii_safe(path) != path:
                # Its name could not be written into the record, nor into a message.
                yield FailedItem(
                    id=name,
                    images=(),
                    instruction=text,
                    origin=origin,
                    code="unreadable_picture",
                    message=f"{ascii_safe(path)}: the file name is not valid UTF-8; rename it",
                )
                continue
            yield EditItem(
                id=name,
                images=(Path(os.path.join(self.name, path)),),
                instruction=text,
                sampling=sampling,
                basesize=settings.basesize or 0,
                size=size,
                output=name + extension,
                origin=origin,
            )


class _Stdin(Source):
    """Standard input: JSONL if its first line begins with "{", else the path of a picture on each line."""

    def __init__(self, options: SourceOptions, stream: BinaryIO) -> None:
        super().__init__("-", "stdin", options)
        self._lines = records.lines_of(stream, "-")
        self._builder = ItemBuilder(file="-", base="", options=options, defaults=RunDefaults(), look=True)
        self._is_json = False
        self._first: EditItem | None = None

    def check(self) -> SourceSummary:
        if self._first is None:
            first = next(self._lines, None)
            if first is None:
                raise ManifestError([Problem(file="-", message="nothing came on standard input")])
            if not isinstance(first, Problem):
                self._is_json = first[1].lstrip().startswith("{")
            got = self._record(first)
            if isinstance(got, Problem):
                raise ManifestError([got])
            item, problems = self._builder.build(got)  # once only: it takes its names by that
            if item is None:
                raise ManifestError(problems)
            self._first = item
        return self._summary(None, self._builder.settings)

    def _items(self) -> Iterator[EditItem | FailedItem]:
        self.check()
        assert self._first is not None
        rest = map(self._record, self._lines)
        made = (self._builder.failed(got) if isinstance(got, Problem) else self._builder.item(got) for got in rest)
        return chain([self._first], made)

    def _record(self, got: tuple[int, str] | Problem) -> Record | Problem:
        if isinstance(got, Problem):
            return got
        number, text = got
        return records.json_line("-", number, text) if self._is_json else Record(number, {"image": text})
