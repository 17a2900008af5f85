"""Whoever has much of a picture cropped is told so before it is edited, once a run, and counted at its end."""

from __future__ import annotations

from collections.abc import Callable

from joyedit.job.fit import LARGE_LOSS
from joyedit.job.spec import Batch
from joyedit.printable import brief


class LossCheck:
    """Looks at planned batches; `note` tells of the first picture that loses much. One thread calls `look`."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._count = 0

    def look(self, batch: Batch) -> None:
        """The next batch, before one of its pictures is read."""
        for sized in batch.items:
            lost = max((fit.lost for fit in sized.fits), default=0.0)
            if lost <= LARGE_LOSS:
                continue
            self._count += 1
            if self._count == 1:
                self._note(
                    f"{brief(sized.item.id)} loses {lost:.0%} of its picture, which is cropped"
                    f" to {sized.target[1]} x {sized.target[0]} (--fit pad keeps all of it)"
                )

    def before(self, then: Callable[[Batch], None]) -> Callable[[Batch], None]:
        """`then` for each batch, after a look at it."""

        def both(batch: Batch) -> None:
            self.look(batch)
            then(batch)

        return both

    def tell(self) -> None:
        """At the end of the run: how many there were."""
        if self._count > 1:
            self._note(f"{self._count} pictures lost more than {LARGE_LOSS:.0%}, because they were cropped")
