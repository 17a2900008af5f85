"""What is wrong with the options that say what steps may leave out."""

from __future__ import annotations

from joyedit.errors import UsageError
from joyedit.job.speed.bundles import BUNDLES, speed_of
from joyedit.job.speed.options import OFF
from joyedit.options import RunOptions


def speed_faults(options: RunOptions) -> list[str]:
    """What is wrong with the flags of single parts. Of wrong types `faults_of` tells."""
    texts = (options.reuse, options.guidance_reuse, options.regions)
    if options.speed not in BUNDLES or not all(text is None or isinstance(text, str) for text in texts):
        return []
    faults = []
    for number in range(len(texts)):  # one by one, to tell of each
        reuse, guidance_reuse, regions = (text if place == number else None for place, text in enumerate(texts))
        try:
            speed_of("diffusers", reuse=reuse, guidance_reuse=guidance_reuse, regions=regions)
        except UsageError as error:
            faults.append(str(error))
    if options.reuse_order is not None and options.reuse == OFF:
        faults.append("--reuse-order says how steps are reused, and --reuse is off (leave one of them out)")
    elif options.reuse_order is not None and options.reuse is None and BUNDLES[options.speed] is None:
        faults.append("--reuse-order says how steps are reused, and none are (add --reuse auto, or --speed high)")
    return faults
