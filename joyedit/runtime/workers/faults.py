"""Errors on their way from a worker to its parent: as text, so that no library's exception needs to be known there."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from joyedit.errors import (
    CheckpointError,
    DeviceError,
    ItemError,
    JoyeditError,
    OutputError,
    UsageError,
    concerns_the_run,
)
from joyedit.runtime.pipeline.record import fault_of

_KINDS = {kind.__name__: kind for kind in (JoyeditError, UsageError, CheckpointError, DeviceError, OutputError)}
"""What stops a run with one message. Anything else is unexpected."""


class InWorkerError(RuntimeError):
    """An error of a worker that nobody expected. Its text ends with the traceback from there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """`kind` is the class of the error, `code` and `message` are what a record says; `trace` may be empty."""

    kind: str
    code: str
    message: str
    trace: str = ""

    @classmethod
    def of(cls, error: BaseException, code: str = "edit_failed") -> Fault:
        """`code` stands if the error brings none of its own."""
        kind = next((one.__name__ for one in type(error).__mro__ if one.__name__ in _KINDS), type(error).__name__)
        if isinstance(error, ItemError):
            kind = ItemError.__name__
        told = isinstance(error, JoyeditError) and error.__cause__ is None
        trace = "" if told else "".join(traceback.format_exception(error))
        if concerns_the_run(error):
            return cls(kind=kind, code=code, message=str(error), trace=trace)
        found, message = fault_of(error, code) if isinstance(error, Exception) else (code, repr(error))
        return cls(kind=kind, code=found, message=message, trace=trace)

    def of_item(self) -> ItemError:
        """The error as that of one item: its record is what it would be in one process."""
        error = ItemError(self.code, self.message)
        error.__cause__ = InWorkerError(self.trace) if self.trace else None
        return error

    def of_run(self) -> Exception:
        """The error that stops the run: one of joyedit's own, or `InWorkerError`."""
        kind = _KINDS.get(self.kind)
        if kind is not None:
            return kind(self.message)
        return InWorkerError(f"{self.message}\n{self.trace}" if self.trace else self.message)
