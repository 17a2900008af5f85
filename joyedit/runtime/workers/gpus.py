"""`--gpus`: what was asked for, what is there, and the places of the workers that come of it. No torch here."""

from __future__ import annotations

import os
import re

from joyedit.errors import DeviceError, UsageError
from joyedit.printable import brief
from joyedit.runtime.doctor import nvidia
from joyedit.runtime.workers.one_question import ask_worker
from joyedit.runtime.workers.place import VISIBLE, Place

MOST = 256
"""More processes on one machine are a slip of the finger."""
_TRY = "--device cpu with --gpus 2 tries it on the CPU"


def places_of(text: str, device: str, *, is_fake: bool = False) -> tuple[Place, ...]:
    """The places of the workers; none where one process does it, as without `--gpus`.

    `text` is `all`, a number of GPUs, or their indices with commas; `device` is that of the run. Raises UsageError for
    another text, DeviceError where not so many GPUs are there.
    """
    wish = _read(text)
    if device == "mps":
        raise UsageError("--gpus is for CUDA: a Mac has one GPU (leave --gpus out with --device mps)")
    if device == "cpu" or is_fake:
        if not isinstance(wish, int):
            raise UsageError(f"--gpus {text}: on the CPU it takes a number of processes, such as --gpus 2")
        return _on_cpu(wish)
    if wish == 1:
        return ()
    visible = visible_gpus()
    if not visible:
        raise DeviceError(f"--gpus {text}: no GPU that CUDA can use is here (joyedit doctor says why; {_TRY})")
    most = wish if isinstance(wish, int) else len(visible)
    chosen = wish if isinstance(wish, list) else list(range(most))
    missing = [index for index in chosen if index >= len(visible)]
    if missing:
        here = "1 GPU is" if len(visible) == 1 else f"{len(visible)} GPUs are"
        what = f"there is no GPU {missing[0]}; " if isinstance(wish, list) else ""
        count = f" (indices count from 0 to {len(visible) - 1})" if what else ""
        raise DeviceError(f"--gpus {text}: {what}{here} here{count}; --gpus all takes what there is")
    if len(chosen) < 2:
        return ()
    threads = max(1, cores() // len(chosen))
    return tuple(
        Place(number=number, devices=(visible[index],), threads=threads) for number, index in enumerate(chosen)
    )


def _on_cpu(count: int) -> tuple[Place, ...]:
    threads = max(1, cores() // count)
    return tuple(Place(number=number, threads=threads) for number in range(count)) if count > 1 else ()


def _read(text: str) -> str | int | list[int]:
    """`all`, a number, or indices. Raises UsageError."""
    if text == "all":
        return text
    if re.fullmatch(r"[0-9]{1,9}", text):
        if not 1 <= int(text) <= MOST:
            raise UsageError(f"--gpus takes a number of GPUs from 1 to {MOST}, not {int(text)}")
        return int(text)
    if not re.fullmatch(r"[0-9]{1,4}( ?, ?[0-9]{1,4})+", text):
        raise UsageError(f"--gpus takes all, a number of GPUs, or indices such as 0,2, not {brief(text)!r}")
    indices = [int(part) for part in text.split(",")]
    twice = next((index for index in indices if indices.count(index) > 1), None)
    if twice is not None:
        raise UsageError(f"--gpus {text}: GPU {twice} is named twice")
    return indices


def visible_gpus() -> list[str]:
    """The GPUs that CUDA shows this process, each as CUDA_VISIBLE_DEVICES would name it: an index, or a UUID."""
    named = os.environ.get(VISIBLE)
    found = nvidia.names_by_smi()
    count = len(found) if found is not None else None
    if named is None:
        return [str(index) for index in range(ask_worker("count") if count is None else count)]
    visible: list[str] = []
    for part in (part.strip() for part in named.split(",")):
        # CUDA, too, ends the list at the first name that means nothing.
        if not part or part.startswith("-") or (part.isdigit() and count is not None and int(part) >= count):
            break
        visible.append(part)
    return visible


def cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on a Mac
        return os.cpu_count() or 1
