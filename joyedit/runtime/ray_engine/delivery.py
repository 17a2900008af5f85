"""How finished pictures of a cluster come under their names: by the driver in a folder, by the writers on a store.

In a folder a writer leaves a file under a temporary name, and the driver decides what it may replace when it comes to
it. An object has its final name from the first moment. So the driver decides before a batch goes out, and tells the
store that the pictures of these items are joyedit's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from joyedit.job.results.hand_over import take
from joyedit.job.results.objects.pictures import ObjectPictures
from joyedit.job.results.objects.uploader import JournalUploader
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.spec import Batch
from joyedit.runtime.pipeline.admission import Admission
from joyedit.runtime.ray_engine.rows import LeftFile


class Delivery(Protocol):
    """Any thread may call the methods. They raise OutputError where nothing can be written."""

    def before(self, batch: Batch) -> frozenset[str]:
        """The batch is about to go out; gives the outputs that a writer may replace."""

    def place(self, file: LeftFile, may_replace: Callable[[], bool]) -> None:
        """Give a picture its final name. Raises ItemError where another file has it."""


class FolderDelivery:
    """All machines see the output folder."""

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder

    def before(self, batch: Batch) -> frozenset[str]:
        return frozenset()

    def place(self, file: LeftFile, may_replace: Callable[[], bool]) -> None:
        take(self._folder, file.temporary, file.output, may_replace)


class ObjectDelivery:
    """The writers put pictures in place."""

    def __init__(self, pictures: ObjectPictures, uploader: JournalUploader, admission: Admission) -> None:
        self._pictures = pictures
        self._uploader = uploader
        self._admission = admission

    def before(self, batch: Batch) -> frozenset[str]:
        items = {sized.item.id: sized.item for sized in batch.items}
        known = self._admission.in_work.before
        self._uploader.claim(
            {name: (item.output, known[name].deaths if name in known else 0) for name, item in items.items()}
        )
        return frozenset(item.output for item in items.values() if self._admission.own.names(item))

    def place(self, file: LeftFile, may_replace: Callable[[], bool]) -> None:
        self._uploader.check()
        self._pictures.added(file.output, file.bytes)
