"""LPIPS: how different two pictures look to a network (AlexNet). An extra, and weights that must be on this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from joyedit.errors import first_line
from joyedit.job.pictures.decode import Picture

_NEEDS = 'LPIPS is left out: it needs an extra (pip install "joyedit[lpips]")'
_WEIGHTS = "alexnet-owt-7be5be79.pth"


def lpips_distance() -> tuple[Callable[[Picture, Picture], float] | None, str]:
    """What measures the distance of two pictures of one size, or None and why not. Nothing is downloaded."""
    try:
        import lpips
        import numpy as np
        import torch
    except ImportError:
        return None, _NEEDS
    place = Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS
    if not place.is_file():
        return None, f"LPIPS is left out: AlexNet's weights are not here (put {_WEIGHTS} of torchvision at {place})"
    try:
        network = lpips.LPIPS(net="alex", verbose=False).eval()
    except Exception as error:  # a damaged file of weights
        return None, f"LPIPS is left out: {first_line(error)}"
    lock = threading.Lock()

    def distance(one: Picture, other: Picture) -> float:
        first, second = (
            torch.from_numpy(np.asarray(picture.image).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            for picture in (one, other)
        )
        with lock, torch.inference_mode():
            return float(network(first, second))

    return distance, ""
