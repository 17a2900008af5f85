"""Opens an output on an object store for one run: locks it, brings its records here, and back when the run ends.

Where this machine and the store have different records, the longer ones count, as long as they begin alike: the last
records of a driver that died here may not have come to the store. If another machine has gone on since, its records
count, and it has made again what these told of.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from joyedit.errors import JoyeditError, OutputError, UsageError, os_reason
from joyedit.job.own_files import OWN_NAMES, REPORT, RESULTS, TEMPORARY_SUFFIX, UNFINISHED
from joyedit.job.results.journal import Journal
from joyedit.job.results.lock import OutputLock
from joyedit.job.results.objects.names import ABOUT, MARK, Mark, segment_begin, state_folder
from joyedit.job.results.objects.remote_lock import RemoteLock
from joyedit.job.results.objects.restore import (
    begins_with,
    life_of,
    refuse_strange_objects,
    restore_beside,
    restore_records,
    restore_unfinished,
)
from joyedit.job.results.objects.store import ObjectStore
from joyedit.job.results.objects.uploader import JournalUploader
from joyedit.job.results.picture_place import objects_of

_REMOTE = f".{'0' * 16}{TEMPORARY_SUFFIX}"
"""The journal as the store has it, while the two are compared."""


class ObjectOutput:
    """The output at `address`, as a context. `folder` is its state folder, `tell` hears remarks.

    Entering raises UsageError for an address that cannot work, OutputError where the store does not answer or another
    run writes there. Leaving raises OutputError where the last records do not get there: the state folder has them,
    and the same command goes on.
    """

    uploader: JournalUploader

    def __init__(
        self, address: str, tell: Callable[[str], None], *, store: ObjectStore | None = None, folder: Path | None = None
    ) -> None:
        self.address = address
        self.store = store or ObjectStore(address)
        self.folder = folder or state_folder(address)
        self._tell = tell
        self._stack = ExitStack()
        self._is_new = False

    def __enter__(self) -> ObjectOutput:
        with self._stack:
            self._take_locks()
            length = self._bring_records()
            self.uploader = JournalUploader(self.store, self.folder, self.lock, length, self._claimed)
            self._stack.enter_context(self.uploader)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.uploader.__exit__(None, None, None)
        pictures = objects_of(self.folder)
        if pictures is not None:
            pictures.forget()
        with self._stack:
            if error is None:
                self.uploader.finish()
                return
            with suppress(JoyeditError):  # the error that ended the run is the one to tell
                self.uploader.finish()
                if self._is_new and not any((self.folder / name).exists() for name in (RESULTS, REPORT)):
                    self.store.remove(ABOUT)  # the run was refused

    def _take_locks(self) -> None:
        place = self.folder.parent
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._mark = Mark.read(self.folder)
        except OSError as error:
            raise OutputError(f"cannot make the state folder {self.folder}: {os_reason(error)}") from error
        local = self._stack.enter_context(OutputLock(place))
        try:
            local.acquire()
        except OutputError as error:
            raise OutputError(str(error).replace(str(place), self.store.shown)) from error
        # Where the lock of the state folder tells nothing, its last driver may be alive on another machine.
        is_dead = self._mark is not None and local.note is None
        self.lock = RemoteLock(self.store, dead=self._mark.token if self._mark is not None and is_dead else "")
        self.lock.acquire()
        self._stack.callback(self._release)
        self._keep_token("" if self._mark is None else self._mark.life)
        if self.lock.note is not None:
            self._tell(self.lock.note)

    def _keep_token(self, life: str) -> None:
        """From now on the next run on this machine knows whose lock it is, if this driver dies."""
        try:
            Mark(address=self.address, life=life, token=self.lock.token).write(self.folder)
        except OSError as error:
            raise OutputError(f"cannot write the state folder {self.folder}: {os_reason(error)}") from error

    def _release(self) -> None:
        with suppress(JoyeditError):  # it is stale soon
            self.lock.release()

    def _bring_records(self) -> int:
        """Gives how many bytes of the journal the store has."""
        store, folder = self.store, self.folder
        sizes = store.sizes()
        life = life_of(store, sizes)
        if not life or self._mark is None or self._mark.life != life:
            self._empty()
        if not life:
            restore_beside(store, sizes, folder)
            refuse_strange_objects(store, sizes, folder)
            self._is_new, life = True, secrets.token_hex(8)
            store.write(ABOUT, json.dumps({"life": life, "format": 1}).encode())
        try:
            self._remove_copies()
            remote, own = folder / _REMOTE, folder / RESULTS
            length = restore_records(store, sizes, remote)
            _cut_torn_line(own)
            if not begins_with(own, remote):
                if not begins_with(remote, own):
                    self._tell(
                        f"another machine went on below {store.shown}: records that only this one has are dropped"
                    )
                restore_beside(store, sizes, folder)
                (folder / UNFINISHED).unlink(missing_ok=True)  # of a run before that
                os.replace(remote, own)
            remote.unlink(missing_ok=True)
            self._claimed = restore_unfinished(store, sizes, folder)
            self._keep_token(life)
        except OSError as error:
            raise OutputError(f"cannot write the state folder {folder}: {os_reason(error)}") from error
        return self._repaired(length, sizes)

    def _repaired(self, length: int, sizes: dict[str, int]) -> int:
        """Let the journal cut off what is no record now: what the store has of it is changed, too."""
        path = self.folder / RESULTS
        if not path.exists():
            return length
        try:
            journal = Journal(self.folder)
        except UsageError as error:
            raise UsageError(str(error).replace(str(path), f"{self.store.shown}/{RESULTS}")) from error
        journal.close()
        now = path.stat().st_size
        if now >= length:
            return length
        self.store.upload(RESULTS, path)
        for name in sorted(sizes, reverse=True):  # the last one first: a kill leaves no gap before it
            if segment_begin(name) is not None:
                self.store.remove(name)
        return now

    def _remove_copies(self) -> None:
        """Remove the local copies of pictures that a driver has left when it died: the store may have others by now."""
        for path in self.folder.iterdir():
            if path.name in OWN_NAMES or path.name == MARK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _empty(self) -> None:
        """The state folder is of another life of the prefix: somebody has emptied that, or another machine began."""
        try:
            shutil.rmtree(self.folder)
            self.folder.mkdir()
            self._keep_token("")
        except OSError as error:
            raise OutputError(f"cannot empty the state folder {self.folder}: {os_reason(error)}") from error


def _cut_torn_line(path: Path) -> None:
    """Remove what a kill has left behind the last complete line."""
    if path.exists():
        with path.open("r+b") as file:
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)
