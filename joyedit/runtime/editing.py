"""One batch through the networks; where a batch fails, its items go through in smaller ones.

A batch that runs out of memory is halved, and the size that fits is remembered for its shapes. After any
other fault the items go through one by one, so an item that breaks the networks takes none of its mates
with it. Runs on the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from joyedit.errors import ItemError, JoyeditError
from joyedit.job.spec import Batch
from joyedit.runtime.backend import Backend, BatchInput, OutOfMemory
from joyedit.runtime.limits import BatchLimits
from joyedit.runtime.reading import ReadyItem
from joyedit.runtime.records import Recorder
from joyedit.runtime.timing import DEVICE_STAGES, StageClock
from joyedit.runtime.writing import EditedItem


class Editor:
    """Owns the way of a batch from pictures to pictures. `on_step(done, total)` hears of each step.

    `stopped` is asked between the parts of a batch that was divided: what has not begun then has no
    record, and a later run takes it up.
    """

    def __init__(
        self,
        backend: Backend,
        recorder: Recorder,
        clock: StageClock,
        on_step: Callable[[int, int], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._backend = backend
        self._recorder = recorder
        self._clock = clock
        self._on_step = on_step
        self._stopped = stopped
        self._limits = BatchLimits()

    def edit(self, index: int, items: Sequence[ReadyItem]) -> Iterator[EditedItem]:
        """The finished pictures of one planned batch, in order; items that failed are recorded instead.

        Raises only what concerns the whole run: a `JoyeditError` that is no `ItemError`.
        """
        waiting = list(items)
        alone = False
        while waiting and not (self._stopped() and len(waiting) < len(items)):
            shape = (waiting[0].sized.target, waiting[0].sized.references)
            size = 1 if alone else self._limits.of(shape, len(waiting))
            part, fault = waiting[:size], None
            edited: list[EditedItem] = []
            try:
                edited = self._through_networks(index, part)
            except Exception as error:
                if isinstance(error, JoyeditError) and not isinstance(error, ItemError):
                    raise
                fault = error
            if fault is None:
                self._limits.fitted(shape, size)
                yield from edited
            elif isinstance(fault, OutOfMemory):
                fault = _told(fault)
                self._backend.free_memory()
                self._limits.failed(shape, size)
                if size > 1:
                    half = self._limits.of(shape, size)
                    self._recorder.log(f"batch {index}: out of memory with {size} items, on with {half}: {fault}")
                    continue
                self._recorder.failed(part[0].sized, fault, "out_of_memory", notes=part[0].notes)
            elif size == 1:
                self._recorder.failed(part[0].sized, fault, "edit_failed", notes=part[0].notes)
            else:
                self._recorder.log(f"batch {index} failed; its {size} items go through one by one", fault)
                fault = None  # its traceback holds the tensors of the failed pass
                alone = True
                continue
            del waiting[:size]

    def _through_networks(self, index: int, items: Sequence[ReadyItem]) -> list[EditedItem]:
        backend, clock = self._backend, self._clock
        batch = Batch(index=index, items=tuple(item.sized for item in items))
        with clock.stage("encode", backend.synchronize) as encode:
            encoded = backend.encode(BatchInput(batch=batch, pictures=tuple(item.pictures for item in items)))
        with clock.stage("denoise", backend.synchronize) as denoise:
            latents = backend.denoise(encoded, self._on_step)
        del encoded  # the decoder can use its memory
        broken = backend.not_finite(latents)
        with clock.stage("decode", backend.synchronize) as decode:
            pictures = backend.decode(latents)
        if len(pictures) != len(items):
            raise RuntimeError(f"{len(pictures)} pictures came out of a batch of {len(items)}")
        laps = (encode.seconds, denoise.seconds, decode.seconds)
        self._recorder.tally.batch(len(items), sum(laps), clock.now())
        share = {stage: seconds / len(items) for stage, seconds in zip(DEVICE_STAGES, laps, strict=True)}
        edited = []
        for place, (item, picture) in enumerate(zip(items, pictures, strict=True)):
            seconds = {"read": item.seconds, **share}
            if place in broken:
                fault = ItemError("not_finite", "the latents hold a NaN or an infinity, so there is no picture")
                self._recorder.failed(item.sized, fault, "not_finite", seconds=seconds, notes=item.notes)
            else:
                edited.append(EditedItem(ready=item, image=picture, seconds=seconds))
        return edited


def _told(fault: OutOfMemory) -> OutOfMemory:
    """The same fault without its traceback, which holds the tensors of the failed pass."""
    fault.__context__ = fault.__cause__ = None
    return fault.with_traceback(None)
