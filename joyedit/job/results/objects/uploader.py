"""The journal of a run goes to the object store while it grows: as segments that never change, a few seconds behind.

The driver keeps results.jsonl in its state folder, because an object cannot be appended to. At the end of the run the
whole file takes the place of the segments. Before a batch goes out, the store hears of its items, so that a picture
whose record was lost with the driver is known as joyedit's own.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from joyedit.errors import JoyeditError, OutputError
from joyedit.job.own_files import FAILED, LOG, REPORT, RESULTS
from joyedit.job.results.objects.names import IN_WORK, segment_begin, segment_name
from joyedit.job.results.objects.remote_lock import RemoteLock
from joyedit.job.results.objects.store import ObjectStore
from joyedit.job.results.records import parse

SEGMENT_SECONDS = 5.0
SEGMENT_RECORDS = 64
"""A segment is uploaded after so many seconds or records, whatever comes first."""
_TICK = 0.25


class JournalUploader:
    """A context with a thread. `length` bytes of the journal are in the store already, and so are `claimed` items of
    earlier runs that have no record.

    `claim` and `check` may be called from any thread; they raise OutputError where the store cannot be written, or
    another driver has the lock.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        lock: RemoteLock,
        length: int,
        claimed: Mapping[str, tuple[str, int]],
    ) -> None:
        self._store = store
        self._folder = folder
        self._lock = lock
        self._length = length
        self._start = _size(folder / RESULTS)  # what stands before tells nothing about items that go out from now on
        self._claimed = dict(claimed)
        self._claims = threading.Lock()
        self._writing = threading.Lock()
        self._broken: JoyeditError | None = None
        self._report: tuple[int, int] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="joyedit-upload", daemon=True)

    def __enter__(self) -> JournalUploader:
        if self._claimed:  # they told from which byte of another journal on
            self._write_claims()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def token(self) -> str:
        """The token in the lock of this run."""
        return self._lock.token

    def check(self) -> None:
        """Raises what has stopped the thread."""
        if self._broken is not None:
            raise self._broken

    def claim(self, items: Mapping[str, tuple[str, int]]) -> None:
        """These items go out: id, output, and at how many deaths of the process each was in work."""
        self.check()
        with self._claims:
            self._claimed.update(items)
        self._write_claims()

    def finish(self) -> None:
        """The end of a run: the whole journal, report, log and failed items stand beside the pictures.

        To be called when the thread has ended. Raises OutputError.
        """
        self.check()
        self._lock.check()
        path = self._folder / RESULTS
        sizes = self._store.sizes()
        self._forget_claims(self._new_records())
        segments = [name for name in sizes if segment_begin(name) is not None]
        if path.exists() and (segments or sizes.get(RESULTS) != path.stat().st_size):
            self._store.upload(RESULTS, path)
        for name in (FAILED, REPORT, LOG):
            if (self._folder / name).exists():
                self._store.upload(name, self._folder / name)
            elif name in sizes:
                self._store.remove(name)
        # results.jsonl has them all, so whoever takes the lock meanwhile misses none, whichever are gone.
        self._store.remove_each(segments, self._lock.renew)
        if self._claimed:  # a picture of theirs may be there: Ray may have ended with a task that wrote it
            self._write_claims()
        elif IN_WORK in sizes:
            self._store.remove(IN_WORK)

    def _work(self) -> None:
        last = time.monotonic()
        try:
            while not self._ended.wait(_TICK):
                self._lock.renew()
                data = self._new_records()
                if not data:
                    last = time.monotonic()
                elif data.count(b"\n") >= SEGMENT_RECORDS or time.monotonic() - last >= SEGMENT_SECONDS:
                    self._upload(data)
                    last = time.monotonic()
                self._upload_report()
        except JoyeditError as error:
            self._broken = error
        except Exception as error:  # whoever waits must hear of all of them
            self._broken = OutputError(f"{self._store.shown}: {type(error).__name__}: {error}")

    def _new_records(self) -> bytes:
        """The complete lines that the store does not have."""
        with suppress(FileNotFoundError), (self._folder / RESULTS).open("rb") as file:
            file.seek(self._length)
            data = file.read()
            return data[: data.rfind(b"\n") + 1]
        return b""

    def _upload(self, data: bytes) -> None:
        self._store.write(segment_name(self._length), data)
        self._forget_claims(data)
        self._length += len(data)

    def _forget_claims(self, data: bytes) -> None:
        """The items of these lines, which the store does not have, have a record of this run."""
        records = (parse(line) for line in data[max(0, self._start - self._length) :].splitlines())
        with self._claims:
            for record in records:
                self._claimed.pop("" if record is None else record["id"], None)

    def _write_claims(self) -> None:
        with self._writing:  # one after the other: the last one written has the claims of all
            with self._claims:
                items = [[name, output, deaths] for name, (output, deaths) in self._claimed.items()]
            self._store.write(IN_WORK, json.dumps({"start": self._start, "items": items}).encode())

    def _upload_report(self) -> None:
        """A report of a run that goes on says how many items there are."""
        with suppress(FileNotFoundError):
            status = (self._folder / REPORT).stat()
            if self._report != (status.st_mtime_ns, status.st_size):
                self._store.upload(REPORT, self._folder / REPORT)
                self._report = status.st_mtime_ns, status.st_size


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
