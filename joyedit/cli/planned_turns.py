"""The turns of a dry run: an item that begins with the result of another one is planned by the size of that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from joyedit.job.data_picture import Reference
from joyedit.job.pause import Pause
from joyedit.job.pictures.decode import header_size
from joyedit.job.results.resume import Decision, Resume
from joyedit.job.sizes import Size
from joyedit.job.spec import Batch, EditItem, FailedItem
from joyedit.job.turns import in_folder
from joyedit.printable import brief
from joyedit.runtime.pipeline.turns import Entry, Outcome, Turns


class PlannedTurns:
    """Gives items in an order in which they can be edited. It must hear of each one: `planned` or `skipped`.

    `folder` is the output folder, `referred` as in `Turns`. In memory is what is known of the items whose results
    others begin with.
    """

    def __init__(self, folder: Path, referred: Collection[str] | None, resume: Resume | None) -> None:
        self._folder = folder
        self._referred = referred
        self._resume = resume
        self._outcomes: dict[str, Outcome] = {}
        self._sizes: dict[Path, Size] = {}
        self._turns: Turns | None = None

    def begin(self, items: Iterable[Entry]) -> Iterator[Entry | Pause]:
        """The items of the source, each behind those that it waits for."""
        if self._referred is not None and not self._referred:
            return iter(items)
        self._turns = Turns(items, self._referred, self._outcomes.__getitem__)
        return iter(self._turns)

    def size_of(self, reference: Reference) -> Size:
        """The (height, width) of a picture, also of one that is to be made. Raises ItemError."""
        known = self._sizes.get(reference) if isinstance(reference, Path) else None
        return header_size(reference) if known is None else known

    def decide(self, item: EditItem) -> Decision:
        """What a run does with the item: one whose input is made again is edited again."""
        if self._resume is None:
            return "edit"
        decision = self._resume.decide(item)
        is_new = any(image in self._sizes for image in item.images if isinstance(image, Path))
        if is_new and decision in ("done", "changed"):
            return "edit" if decision == "done" else "keep"
        return decision

    def skipped(self, item: EditItem) -> None:
        """The item is not edited."""
        file = None if self._resume is None else self._resume.finished_file(item)
        fault = None if file is not None else f"an earlier turn has no picture, and is not edited: {brief(item.id)}"
        self._ended(item.id, Outcome(file, fault))

    def planned(self, entry: Batch | FailedItem) -> None:
        """A planned batch, or an item that would fail."""
        if self._turns is None:
            return
        if isinstance(entry, FailedItem):
            self._ended(entry.id, Outcome(None, f"an earlier turn fails: {brief(entry.id)}: {entry.message}"))
            return
        for sized in entry.items:
            file = in_folder(self._folder, sized.item.output)
            if self._is_referred(sized.item.id):
                self._sizes[file] = sized.result or sized.target
            self._ended(sized.item.id, Outcome(file))

    def _is_referred(self, name: str) -> bool:
        return self._referred is None or name in self._referred

    def _ended(self, name: str, outcome: Outcome) -> None:
        if self._turns is not None:
            if self._is_referred(name):
                self._outcomes[name] = outcome
            self._turns.ended(name)
