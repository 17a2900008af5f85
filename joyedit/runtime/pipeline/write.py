"""Pictures are written behind the device: a few threads wait for it, encode, put the file in place, then record it.

At most `pending` pictures are on their way; the device waits for room only when the disk is slower
than it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from joyedit.errors import ItemError, concerns_the_run, system_limit
from joyedit.job.boxes import box_text
from joyedit.job.pictures.encode import QUALITIES, save_picture
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import loras_of
from joyedit.job.results.report import joyedit_version
from joyedit.job.results.resume import earlier_picture
from joyedit.job.run_config import RunConfig
from joyedit.job.source.names import EXTENSIONS
from joyedit.job.spec import Beside, EditItem, Seen, SeenMask
from joyedit.job.speed.bundles import regions_note, speed_told
from joyedit.job.speed.settings import BlockSteps
from joyedit.runtime.pipeline.admission import Admission
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.edit import Edited
from joyedit.runtime.pipeline.give_back import DriftRecord, Result, given_back
from joyedit.runtime.pipeline.join import EditedPart, Joiner
from joyedit.runtime.pipeline.outputs import Outputs
from joyedit.runtime.pipeline.record import Recorder, Written
from joyedit.runtime.protocol import BackendInfo, ReadyItem

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

WORKERS = 4
PENDING = 32
"""Two batches of eight on the device, and as many that the disk is behind with."""

_FORMATS = {ending: name for name, endings in EXTENSIONS.items() for ending in endings}


class Writers(Generic[T]):
    """A context around the writing threads. Leaving it waits until everything put in is written.

    `waiting` is a context in which `put` waits for room.
    """

    def __init__(
        self,
        write: Callable[[T], None],
        *,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        workers: int = WORKERS,
        pending: int = PENDING,
    ) -> None:
        self._write = write
        self._waiting = waiting
        self._pending = pending
        self._room = threading.Semaphore(pending)
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="joyedit-write")
        self._fatal: BaseException | None = None

    def __enter__(self) -> Writers[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.check()

    def put(self, edited: T) -> None:
        """Hand over one picture; waits for room. Raises what stopped the writers, if something did."""
        with self._waiting():
            self._room.acquire()
        self.check()
        self._pool.submit(self._work, edited)

    def put_all(self, edited: Iterable[T]) -> None:
        """Hand over some pictures, one after the other. Errors as in `put`."""
        for one in edited:
            self.put(one)

    def flush(self) -> None:
        """Wait until everything put in so far is written. Errors as in `put`."""
        for _ in range(self._pending):
            self._room.acquire()
        self._room.release(self._pending)
        self.check()

    def check(self) -> None:
        """Raise the error that stopped the writers (`OutputError` when the folder cannot be written)."""
        if self._fatal is not None:
            raise self._fatal

    def _work(self, edited: T) -> None:
        try:
            if self._fatal is None:  # what is left after that has no record, and a later run makes it anew
                self._write(edited)
        except BaseException as error:
            self._fatal = error
        finally:
            self._room.release()


class PictureEncoder:
    """Makes the file of a picture in memory. Any thread may call it."""

    def __init__(self, config: RunConfig, info: BackendInfo) -> None:
        self._config = config
        self._info = info

    def __call__(self, ready: ReadyItem, image: Image.Image) -> tuple[bytes, tuple[str, ...], DriftRecord]:
        """The file, remarks, and the drift: a fault of the encoder and one of the disk stay apart.

        Raises ItemError, and JoyeditError where the system has no file handle left.
        """
        item = ready.item
        form = _FORMATS[PurePosixPath(item.output).suffix.lower()]
        file = io.BytesIO()
        try:
            with given_back(image, ready, form, self._config) as result:
                settings = picture_metadata(item, self._info, ready.all_seen) | self._of_run(form, result)
                more = save_picture(result.image, file, form, result.quality, settings, result.beside, deep=result.deep)
                notes, drift = result.notes + more, result.drift
        except OSError as error:
            limit = system_limit(error)
            if limit is not None:
                raise limit from error
            raise ItemError("write_failed", f"cannot encode {item.output!r}: {error}") from error
        regions = regions_note(self._config, ready.sized.target, ready.sized.references)
        return file.getvalue(), notes if regions is None else (*notes, regions), drift

    def _of_run(self, form: str, result: Result) -> dict[str, str]:
        """What a picture says about how its file was made."""
        config = self._config
        told: dict[str, str] = {} if config.metadata == "keep" else {"metadata": config.metadata}
        told |= {name: "yes" for name in ("keep_unedited", "register") if getattr(config, name)}
        told |= {"panorama": "parts"} if config.panorama == "parts" else {}
        told |= speed_told(config)
        if form in QUALITIES:
            is_source_quality = config.quality is None and result.quality is not None
            told["quality"] = "source" if is_source_quality else str(config.quality or QUALITIES[form])
        return told


class Placing:
    """What the process that keeps the records does with a finished file: its final name, and what its record says."""

    def __init__(
        self,
        folder: OutputFolder,
        config: RunConfig,
        recorder: Recorder,
        fingerprints: Fingerprinter,
        admission: Admission,
        outputs: Outputs,
    ) -> None:
        self._folder = folder
        self._outputs = outputs
        self._admission = admission
        self._config = config
        self._recorder = recorder
        self._fingerprints = fingerprints

    def put(
        self, item: EditItem, write: Callable[[Callable[[], bool]], object], inputs: Sequence[Seen]
    ) -> tuple[Beside, ...]:
        """Have `write` put the file under its final name; it is told what it may replace. Gives the files beside it.

        `inputs` are the pictures that were read for it. A picture of the same item under another name goes, if that
        was asked for. Errors are those of `write`.
        """
        before = self._recorder.earlier.finished(item)
        self._admission.in_work.flush()
        self._outputs.keep(item)
        made = self._outputs.beside.write(item, inputs, before)
        write(partial(self._admission.own.names, item))
        self._admission.remove_unrecorded(item)
        earlier = earlier_picture(before, item.output)
        if before is None or earlier is None:
            return made
        if self._config.update or self._config.redo == "all" or before["id"] != item.id:
            # Before the new record: a run that is killed here finds the old record without its picture.
            self._admission.pictures.remove_earlier(self._folder, before, earlier)
        return made

    def written(
        self,
        item: EditItem,
        *,
        size: int,
        sha256: str,
        all_inputs: Sequence[Seen],
        inputs: tuple[Seen, ...],
        drift: DriftRecord,
        mask: SeenMask | None,
        work: BlockSteps | None,
        beside: tuple[Beside, ...] = (),
    ) -> Written:
        """What the record of a picture says: `size` and `sha256` of its file, what was read for it, and what ran."""
        return Written(
            fingerprint=self._fingerprints.of(item, [seen.sha256 for seen in all_inputs]),
            shared=str(self._admission.shared),
            bytes=size,
            sha256=sha256,
            inputs=inputs,
            drift=drift,
            mask=mask,
            work=work,
            beside=beside,
        )


class PictureWriter:
    """Writes one finished picture and its record; what `Writers` calls."""

    def __init__(
        self, folder: OutputFolder, encode: PictureEncoder, placing: Placing, recorder: Recorder, clock: StageClock
    ) -> None:
        self._folder = folder
        self._encode = encode
        self._placing = placing
        self._recorder = recorder
        self._clock = clock
        self._joiner = Joiner(recorder.has_failed)

    def __call__(self, edited: Edited) -> None:
        """Wait for the picture, put it in place, then its record. A fault of this item becomes its record.

        Raises `OutputError` when nothing more can be written, and `JoyeditError` at a limit of the system.
        """
        ready, item = edited.ready, edited.ready.item
        sized, notes = ready.sized, ready.notes
        seconds: dict[str, float] = {}
        code = "edit_failed"
        try:
            seconds = edited.seconds()
            whole = self._joiner.add(EditedPart(ready, edited.picture(), seconds, edited.work()))
            if whole is None:
                return
            ready, image, seconds, work = whole
            sized, notes = ready.sized, ready.notes
            code = "write_failed"
            with self._clock.stage("write") as lap:
                data, more, drift = self._encode(ready, image)
                notes += more
                write = self._folder.write_bytes
                beside = self._placing.put(
                    item, lambda may_replace: write(item.output, data, may_replace=may_replace), ready.all_seen
                )
                written = self._placing.written(
                    item,
                    size=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    all_inputs=ready.all_seen,
                    inputs=ready.seen,
                    drift=drift,
                    mask=ready.mask,
                    work=work,
                    beside=beside,
                )
        except Exception as error:
            if concerns_the_run(error):
                raise
            if code == "write_failed":
                seconds |= {"write": lap.seconds}
            self._recorder.failed(sized, error, code, seconds=seconds, notes=notes)
        else:
            self._recorder.ok(sized, written, seconds=seconds | {"write": lap.seconds}, notes=notes)


def picture_metadata(item: EditItem, info: BackendInfo, inputs: Sequence[Seen] = ()) -> dict[str, str]:
    """What a finished picture says about how it was made. A local checkpoint gives its folder's name only.

    `inputs` are the references as they were read, then the mask; of their paths only the last name is told.
    """
    height, width = item.size or (None, None)
    read = [{"name": path.name, "sha256": seen.sha256} for path, seen in zip(item.inputs, inputs, strict=False)]
    count = len(item.images)
    mask = {} if item.mask is None or len(read) <= count else {"mask": json.dumps(read[count])}
    local = Path(info.model)
    return {
        "instruction": item.instruction,
        "negative_prompt": item.sampling.negative_prompt,
        "seed": str(item.sampling.seed),
        "steps": str(item.sampling.steps),
        "guidance_scale": str(item.sampling.guidance_scale),
        "basesize": str(item.basesize),
        **({} if item.size is None else {"width": str(width), "height": str(height)}),
        "size": item.result_size,
        "fit": item.fit,
        **({} if item.box is None else {"box": box_text(item.box)}),
        **({"lora": json.dumps(loras_of(item))} if item.loras else {}),
        "inputs": json.dumps(read[:count]),
        **mask,
        "schedule": info.schedule,
        "dtype": info.dtype,
        **({} if info.precision == "exact" else {"precision": info.precision}),
        "model": local.resolve().name if os.path.exists(local) else info.model,
        "software": f"joyedit {joyedit_version()}",
    }
