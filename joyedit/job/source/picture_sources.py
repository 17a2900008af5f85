"""Sources without a manifest: one picture, and a folder of pictures. One instruction serves all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from joyedit.errors import ManifestError, Problem, UsageError, os_reason
from joyedit.job.plan import failed
from joyedit.job.source.beside_pictures import SUFFIX, needs_texts, no_texts, text_beside
from joyedit.job.source.counted_pictures import CountedPictures
from joyedit.job.source.default_ids import DefaultId, folder_id
from joyedit.job.source.item_builder import ItemBuilder
from joyedit.job.source.loras import LoraSet
from joyedit.job.source.names import default_ending, fold, safe_name
from joyedit.job.source.output_tree import Identity, OutputTree
from joyedit.job.source.passed_over import PassedOver
from joyedit.job.source.picture_folder import Entry, FolderWalk
from joyedit.job.source.problems import Problems, Record, cut, one_message, shown, utf8_safe
from joyedit.job.source.result_sizes import AskedSize, asked_size
from joyedit.job.source.source import Source, SourceSummary
from joyedit.job.source.source_options import RunDefaults, SourceOptions, compose_instruction
from joyedit.job.source.taken_names import TakenNames
from joyedit.job.spec import EditItem, FailedItem, Origin, Sampling, Settings

_SHOWN_PATH = 1000


class PictureSource(Source):
    """One picture, named on the command line. `text` is the instruction that lies beside it."""

    def __init__(self, name: str, options: SourceOptions, text: str | None = None) -> None:
        super().__init__(name, "picture", options)
        data = {"image": os.path.basename(name)}
        self._has_text = text is not None
        if text is not None:
            data["instruction"] = text  # as a line says it: whoever changes it changes this item
        if options.file_name is not None:
            data |= {"id": options.file_name, "output": options.file_name}
        self._record = Record(0, data)

    def check(self) -> SourceSummary:
        builder = self._builder(look=True)
        problems = builder.problems(self._record)
        if problems:
            raise ManifestError(problems)
        instruction = next(self._items()).instruction if self._has_text else builder.instruction
        return self._summary(1, builder.settings, instruction=instruction, loras=builder.loras)

    def _items(self) -> Iterator[EditItem | FailedItem]:
        yield self._builder(look=False).item(self._record)

    def _builder(self, *, look: bool) -> ItemBuilder:
        base = os.path.dirname(self.name)
        return ItemBuilder(file=self.name, base=base, options=self.options, defaults=RunDefaults(), look=look)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shared:
    """What all items of a folder share. `instruction` is None where each picture has a text file beside it."""

    settings: Settings
    instruction: str | None
    sampling: Sampling
    size: AskedSize
    loras: LoraSet


class FolderSource(Source):
    """A folder of pictures. The output folder gets the same tree.

    Each picture that `check` counted comes out of `items`, as a failed item if it is gone by then. `roots` are the
    folders below this one that are walked.
    """

    def __init__(self, name: str, options: SourceOptions, *, roots: Sequence[str] = ("",)) -> None:
        super().__init__(name, "folder", options)
        assert options.output is not None, "the items of a folder go into an output folder"
        tree = OutputTree(options.output)
        for root in roots:
            folder = os.path.join(name, root) if root else name
            if "" in tree.folder_names(folder):
                raise UsageError(f"{folder}: the output folder is the source folder (choose another with -o)")
        self._roots = roots
        self._pictures = [CountedPictures() for _ in roots]

    def check(self) -> SourceSummary:
        shared = self._shared()
        items, asked, passed = 0, 0, PassedOver()
        problems = Problems()
        for entry in self._entries(OutputTree(self.options.output), note=True):
            if entry.kind != "other":
                items += 1
            elif shared.instruction is not None or not entry.path.endswith(SUFFIX):
                passed.add(utf8_safe(entry.path), entry.reason)
            if shared.instruction is None and entry.kind == "picture":
                asked += 1
                problems.add(self._instruction(entry, shared)[1])
        if asked and problems.total == asked:  # nobody meant to write them
            raise ManifestError([no_texts(self.name).at(self.name)])
        problems.raise_any()
        if not items:
            counted = "".join(f", {count} x {kind}" for kind, count in passed.kinds.most_common())
            raise ManifestError([Problem(f"no pictures in this folder{counted}").at(self.name)])
        return self._summary(items, shared.settings, instruction=shared.instruction, loras=shared.loras, passed=passed)

    def _entries(self, tree: OutputTree, *, note: bool = False) -> Iterator[Entry]:
        """Raises ManifestError if a folder itself cannot be read."""
        visited: set[Identity] = set()
        for root, counted in zip(self._roots, self._pictures, strict=True):
            folder = os.path.join(self.name, root) if root else self.name
            try:
                walk = FolderWalk(folder, tree, counted, exclude=self.options.exclude, note=note, visited=visited)
                for entry in walk:
                    yield entry._replace(path=f"{root}/{entry.path}") if root else entry
            except OSError as error:
                raise ManifestError([Problem(f"cannot read this folder: {os_reason(error)}").at(folder)]) from error

    def _shared(self) -> _Shared:
        loras = self.options.run_loras()[0] or LoraSet()
        settings = self.options.settings(Settings(), loras.settings)
        needs = needs_texts(self.options)
        text, problems = (None, []) if needs else self._composed(None)
        problems = list(problems)
        asked = asked_size(settings, problems)
        if problems:
            raise ManifestError(problem.at(self.name) for problem in problems)
        return _Shared(settings=settings, instruction=text, sampling=settings.sampling(), size=asked, loras=loras)

    def _composed(self, own: str | None) -> tuple[str, list[Problem]]:
        options = self.options
        return compose_instruction(options.recipe, options.recipe_values, own=own, prompt=options.prompt, default=None)

    def _instruction(self, entry: Entry, shared: _Shared) -> tuple[str, list[Problem]]:
        """The instruction of one picture, or why it has none."""
        if shared.instruction is not None:
            return shared.instruction, []
        text = text_beside(os.path.join(self.name, entry.path))
        if isinstance(text, Problem):
            return "", [text.at(cut(utf8_safe(os.path.join(self.name, entry.path)), _SHOWN_PATH))]
        return self._composed(text)

    def _items(self) -> Iterator[EditItem | FailedItem]:
        shared = self._shared()
        tree = OutputTree(self.options.output)
        folders = [os.path.join(self.name, root) if root else self.name for root in self._roots]
        names = _FolderNames(folders, tree, self.options.format)
        for entry in self._entries(tree):
            if entry.kind == "other":
                continue
            named, taken = names.give(entry)
            instruction, problems = ("", []) if entry.kind != "picture" else self._instruction(entry, shared)
            item = self._item(entry, named, names.extension, instruction, shared)
            text = utf8_safe(entry.path)
            if text != entry.path and entry.kind == "picture":
                # Neither a record nor a message could hold its name.
                message = f"{text}: the file name is not valid UTF-8; rename it"
                yield replace(failed(item, "unreadable_picture", message), images=(), item=None)
            elif entry.kind == "folder":
                message = f"{cut(text, _SHOWN_PATH)}: {entry.reason}"
                yield replace(failed(item, entry.code, message), images=(), item=None)
            elif taken:  # a retry must not try this output either
                yield replace(failed(item, "output_taken", f"{cut(text, _SHOWN_PATH)}: {taken}"), item=None)
            elif entry.code:
                yield failed(item, entry.code, f"{cut(text, _SHOWN_PATH)}: {entry.reason}")
            elif problems:  # it was there at the check
                yield replace(failed(item, "no_instruction", one_message(problems)), item=None)
            else:
                yield item

    def _item(self, entry: Entry, name: DefaultId, extension: str, instruction: str, shared: _Shared) -> EditItem:
        return EditItem(
            id=name.id,
            images=(Path(os.path.join(self.name, entry.path)),),
            instruction=instruction,
            sampling=shared.sampling,
            basesize=shared.settings.basesize or 0,
            size=shared.size.size,
            result_size=shared.size.result,
            fit=shared.settings.fit or "crop",
            output=name.id + extension,
            origin=Origin(file=self.name),
            loras=shared.loras.loras,
            has_default_id=True,
            other_ids=name.others,
            owns=name.owns,
        )


class _FolderNames:
    """Gives out the ids of the items of a folder, in order."""

    def __init__(self, sources: Sequence[str], tree: OutputTree, format: str) -> None:
        self._format = format
        self._tree = tree
        self._taken = TakenNames(default_ending(format, None), tree.place)
        self._count = 0
        self._sources = [fold(name) + "/" for source in sources for name in tree.folder_names(source)]

    @property
    def extension(self) -> str:
        """The ending of the last item's output."""
        return self._taken.extension

    def give(self, entry: Entry) -> tuple[DefaultId, str]:
        """The id, and why the edited picture cannot be written; an empty text if it can."""
        self._count += 1
        if entry.kind == "folder":
            name = self._taken.default_id(safe_name(f"{entry.path}/{entry.code}"), with_output=True)
            self._taken.take_id(name, self._count)
            return DefaultId(name), ""
        reason = ""
        for input_name in entry.names_in_output:
            if not self._is_in_source(input_name) and self._taken.note_input(input_name) is not None:
                reason = "the edited picture of another item would overwrite it (choose another output folder with -o)"
        self._taken.extension = default_ending(self._format, entry.path)
        wish = folder_id(entry.path, *entry.alike)
        name = self._taken.default_id(wish.id, safe_name(entry.path))
        named = DefaultId(name, wish.others if name == wish.id else (), owns=wish.owns)
        self._taken.take_id(name, self._count)
        output = name + self._taken.extension
        if self._is_in_source(output):
            where = f"its edited picture {shown(output)}"
            reason = f"{where} would lie in the source folder (choose another output folder with -o)"
        elif not reason:
            self._taken.take_output(output, self._count)
        return named, reason

    def _is_in_source(self, name: str) -> bool:
        """Whether `name` below the output folder lies in the source folder."""
        if not self._sources:
            return False
        place = fold(self._tree.place(name))
        return any(place.startswith(folder) for folder in self._sources)
