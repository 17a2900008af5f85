"""Every item's final state passes here once: journal, counts, progress and log take it from here."""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from joyedit.errors import ItemError, OutputError, first_line
from joyedit.job.clock import utc_now
from joyedit.job.data_picture import address_of
from joyedit.job.own_files import LOG
from joyedit.job.results.earlier_ids import EarlierIds
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import settings_of
from joyedit.job.results.report import joyedit_version
from joyedit.job.results.run_counts import Tally
from joyedit.job.results.safe_open import open_own, reason_of
from joyedit.job.spec import Beside, EditItem, FailedItem, ItemResult, Seen, SeenMask, SizedItem
from joyedit.job.speed.settings import BlockSteps
from joyedit.job.turns import addresses_of
from joyedit.printable import printable
from joyedit.runtime.protocol import BackendInfo

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A finished picture on the disk: what it was made of, and what its file holds."""

    fingerprint: str
    shared: str
    bytes: int
    sha256: str
    inputs: tuple[Seen, ...]
    drift: dict[str, float] | None = None
    mask: SeenMask | None = None
    work: BlockSteps | None = None
    beside: tuple[Beside, ...] = ()


class Recorder:
    """The open records of a run, as a context; all methods may be called from any thread.

    `on_result` hears of each result and its line in the journal, one at a time, after the line was
    written. Each method raises `OutputError` when the record cannot be written.
    """

    def __init__(
        self,
        folder: OutputFolder,
        info: BackendInfo,
        tally: Tally,
        on_result: Callable[[ItemResult, str], None],
        speed: Callable[[int], Mapping[str, Any]] = lambda steps: {},
    ) -> None:
        """`speed`: what the settings of an item with so many steps say of what they leave out."""
        self.tally = tally
        self.info = info
        self._on_result = on_result
        self._lock = threading.Lock()
        self._failed_in_parts: set[str] = set()
        self._version = joyedit_version()
        self._speed = speed
        self._folder = folder
        self._refuse_log()
        self.journal = Journal(folder.path, handle=folder.handle)
        self.earlier = EarlierIds(self.journal)
        for told in (self.journal.repaired, self.journal.damaged):
            if told is not None:
                self.log(told)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journal.close()

    def ok(self, sized: SizedItem, written: Written, *, seconds: Mapping[str, float], notes: tuple[str, ...]) -> None:
        """An item whose picture stands under its final name."""
        self._add(self._result(sized.item, sized, seconds=seconds, notes=notes, written=written))

    def skipped(self) -> None:
        """An item that an earlier run has done; its record stands."""
        with self._lock:
            self.tally.skipped += 1

    def left(self) -> None:
        """An item that this run does not edit although it is not as asked."""
        with self._lock:
            self.tally.left += 1

    def given_up(self, code: str) -> None:
        """An item that failed in an earlier run and is not tried again; its record stands."""
        with self._lock:
            self.tally.failed[code] += 1

    def failed(
        self,
        sized: SizedItem,
        error: Exception,
        code: str,
        *,
        seconds: Mapping[str, float] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """A planned item that `error` stopped; `code` stands if the error brings none of its own.

        Of an item in parts the first part that fails is its record.
        """
        if sized.part is not None:
            with self._lock:
                if sized.item.id in self._failed_in_parts:
                    return
                self._failed_in_parts.add(sized.item.id)
            sized = sized.whole
        code, message = fault_of(error, code)
        self.log(f"{sized.item.id}: {code}: {message}", error)
        fault = {"code": code, "message": message}
        self._add(self._result(sized.item, sized, seconds=seconds or {}, notes=notes, error=fault))

    def has_failed(self, item: EditItem) -> bool:
        """Whether a part of this item has failed."""
        with self._lock:
            return item.id in self._failed_in_parts

    def unplanned(self, item: FailedItem) -> None:
        """An item that failed before it joined a batch."""
        self.log(f"{item.id}: {item.code}: {item.message}")
        fault = {"code": item.code, "message": item.message}
        if item.item is not None:
            self._add(self._result(item.item, None, seconds={}, notes=(), error=fault))
            return
        self._add(
            ItemResult(
                id=item.id,
                status="failed",
                instruction=item.instruction,
                inputs=tuple(address_of(one) for one in item.images),
                output=None,
                bucket=None,
                error=fault,
                origin=item.origin,
            )
        )

    def log(self, text: str, error: BaseException | None = None) -> None:
        """Append to joyedit.log, with the traceback of `error`. Only an entry's first line begins at the left."""
        entry = f"{utc_now()} {printable(text)}\n"
        if error is not None and not (isinstance(error, ItemError) and error.__cause__ is None):
            lines = "".join(traceback.format_exception(error)).splitlines()
            entry += "".join(f"    {printable(line)}\n" for line in lines)
        try:
            with self._lock, open(open_own(self._folder.handle, LOG, _APPEND), "ab") as file:
                file.write(entry.encode("utf-8", "backslashreplace"))
        except OSError as fault:
            raise self._log_error(fault) from fault

    def _refuse_log(self) -> None:
        """Raises `OutputError` if joyedit.log cannot be written: better now than at the first failure."""
        try:
            with contextlib.suppress(FileNotFoundError):
                os.close(open_own(self._folder.handle, LOG, os.O_WRONLY))
        except OSError as fault:
            raise self._log_error(fault) from fault

    def _log_error(self, fault: OSError) -> OutputError:
        path = self._folder.path / LOG
        return OutputError(f"cannot write {path}: {reason_of(fault, path)}")

    def _add(self, result: ItemResult) -> None:
        with self._lock:
            line = self.journal.append(result)
            self.tally.result(result)
            self._on_result(result, line)

    def _result(
        self,
        item: EditItem,
        sized: SizedItem | None,
        *,
        seconds: Mapping[str, float],
        notes: tuple[str, ...],
        written: Written | None = None,
        error: dict[str, str] | None = None,
    ) -> ItemResult:
        return ItemResult(
            id=item.id,
            status="ok" if error is None else "failed",
            instruction=item.instruction,
            inputs=addresses_of(item),
            output=item.output if error is None else None,
            bucket=None if sized is None else sized.target,
            result=None if sized is None or written is None else sized.result or sized.target,
            drift=None if written is None else written.drift,
            mask=None if item.mask is None else address_of(item.mask),
            work=None if written is None else written.work,
            mask_seen=None if written is None else written.mask,
            fit=None if sized is None or not sized.fits else sized.fits[-1],
            parts=None if sized is None else sized.parts,
            settings=self._settings(item),
            seconds=dict(seconds),
            notes=notes,
            error=error,
            origin=item.origin,
            fingerprint=None if written is None else written.fingerprint,
            shared=None if written is None else written.shared,
            output_bytes=None if written is None else written.bytes,
            output_sha256=None if written is None else written.sha256,
            inputs_seen=() if written is None else written.inputs,
            planned_output=None if error is None else item.output,
            replaces=self.earlier.replaced(item),
            loras=tuple(os.path.abspath(lora.file) for lora in item.loras),
            earlier=item.earlier,
            chain=item.chain,
            columns=item.columns,
            row=item.row,
            beside=() if written is None else written.beside,
        )

    def _settings(self, item: EditItem) -> dict[str, Any]:
        return settings_of(item) | {
            "schedule": self.info.schedule,
            "model": self.info.model,
            "dtype": self.info.dtype,
            **({} if self.info.precision == "exact" else {"precision": self.info.precision}),
            "attention": self.info.attention,
            "joyedit": self._version,
            **self._speed(item.sampling.steps),
        }


def fault_of(error: Exception, code: str) -> tuple[str, str]:
    """The stable code and the one-line message of an error; `code` if it brings none of its own."""
    if isinstance(error, ItemError):
        return error.code, " ".join(str(error).splitlines())
    name, line = type(error).__name__, first_line(error)
    return code, name if line == name else f"{name}: {line}"
