"""One batch through the networks; where a batch fails, its items go through one by one.

So an item that breaks the networks takes none of its mates with it. Runs on the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from joyedit.errors import ItemError, JoyeditError
from joyedit.job.spec import Batch
from joyedit.runtime.backend import Backend, BatchInput
from joyedit.runtime.reading import ReadyItem
from joyedit.runtime.records import Recorder
from joyedit.runtime.timing import DEVICE_STAGES, StageClock
from joyedit.runtime.writing import EditedItem


class Editor:
    """Owns the way of a batch from pictures to pictures. `on_step(done, total)` hears of each step."""

    def __init__(
        self, backend: Backend, recorder: Recorder, clock: StageClock, on_step: Callable[[int, int], None]
    ) -> None:
        self._backend = backend
        self._recorder = recorder
        self._clock = clock
        self._on_step = on_step

    def edit(self, index: int, items: Sequence[ReadyItem]) -> Iterator[EditedItem]:
        """The finished pictures of one planned batch, in order; items that failed are recorded instead.

        Raises only what concerns the whole run: a `JoyeditError` that is no `ItemError`.
        """
        if not items:
            return
        fault: Exception | None = None
        edited: list[EditedItem] = []
        try:
            edited = self._through_networks(index, items)
        except Exception as error:
            if isinstance(error, JoyeditError) and not isinstance(error, ItemError):
                raise
            fault = error
        if fault is None:
            yield from edited
        elif len(items) == 1:
            self._recorder.failed(items[0].sized, fault, "edit_failed", notes=items[0].notes)
        else:
            self._recorder.log(f"batch {index} failed; its {len(items)} items go through one by one", fault)
            fault = None  # its traceback holds the tensors of the failed pass
            for item in items:
                yield from self.edit(index, [item])

    def _through_networks(self, index: int, items: Sequence[ReadyItem]) -> list[EditedItem]:
        backend, clock = self._backend, self._clock
        batch = Batch(index=index, items=tuple(item.sized for item in items))
        with clock.stage("encode", backend.synchronize) as encode:
            encoded = backend.encode(BatchInput(batch=batch, pictures=tuple(item.pictures for item in items)))
        with clock.stage("denoise", backend.synchronize) as denoise:
            latents = backend.denoise(encoded, self._on_step)
        del encoded  # the decoder can use its memory
        with clock.stage("decode", backend.synchronize) as decode:
            pictures = backend.decode(latents)
        if len(pictures) != len(items):
            raise RuntimeError(f"{len(pictures)} pictures came out of a batch of {len(items)}")
        laps = (encode.seconds, denoise.seconds, decode.seconds)
        self._recorder.tally.batch(len(items), sum(laps), clock.now())
        share = {stage: seconds / len(items) for stage, seconds in zip(DEVICE_STAGES, laps, strict=True)}
        return [
            EditedItem(ready=item, image=picture, seconds={"read": item.seconds, **share})
            for item, picture in zip(items, pictures, strict=True)
        ]
