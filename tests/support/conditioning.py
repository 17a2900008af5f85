"""What batches are denoised from."""

from __future__ import annotations

from joyedit.runtime.joyimage.branches import Conditioning


def alone(given: Conditioning, item: int) -> Conditioning:
    """One item of a batch."""
    return Conditioning(
        noise=given.noise[item : item + 1],
        references=tuple(reference[item : item + 1] for reference in given.references),
        positive=(given.positive[item],),
        negative=(given.negative[item],),
        scales=(given.scales[item],),
    )
