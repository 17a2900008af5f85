"""Which shard this process edits: what `--shard` says, or with `auto` what SLURM or torchrun says."""

from __future__ import annotations

from collections.abc import Mapping

from joyedit.errors import UsageError
from joyedit.job.shard import MOST_SHARDS, Shard
from joyedit.printable import brief

AUTO = "auto"
_ARRAY = "SLURM_ARRAY_TASK_ID"
_MIN, _MAX, _STEP, _COUNT = (f"SLURM_ARRAY_TASK_{part}" for part in ("MIN", "MAX", "STEP", "COUNT"))
_LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
_REMEDY = "give the shard itself, for example --shard 3/16"
_KNOWN = f"{_ARRAY}, RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS"


def chosen_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """The shard that the value of `--shard` stands for. Raises UsageError."""
    if text == AUTO:
        return _of_environment({key: value for key, value in environment.items() if value})
    shard = Shard.read(text)
    if shard is None:
        raise UsageError(
            f"--shard takes I/N, the shard I of N, from 1/N to N/N (N up to {MOST_SHARDS:,}), or auto; "
            f"not {brief(text)!r}"
        )
    return shard


def _of_environment(environment: Mapping[str, str]) -> Shard:
    """The shard of this task of an array or of this process of a launcher. One of one says nothing beside others.

    RANK comes before SLURM_PROCID: torchrun starts several processes inside one task of SLURM.
    """
    found: dict[str, Shard] = {}
    if _ARRAY in environment:
        found[_ARRAY] = _of_array(environment)
    half: list[str] = []
    for rank, size in _LAUNCHERS:
        if rank in environment and size in environment:
            found[rank] = _of_rank(environment, rank, size)
        elif rank in environment or size in environment:
            there, missing = (rank, size) if rank in environment else (size, rank)
            half.append(f"{there} is set, and {missing} is not")
    if not found:
        why = half[0] if half else f"none of these variables is set: {_KNOWN}"
        raise UsageError(f"--shard auto: {why} ({_REMEDY})")
    several = {name: shard for name, shard in found.items() if shard.of > 1} or found
    name, shard = next(iter(several.items()))
    for other, said in several.items():
        if said != shard and not (name == "RANK" and said.of <= shard.of):
            raise UsageError(
                f"--shard auto: {name} says shard {shard}, and {other} says shard {said} "
                f"(let one of them divide the work, or {_REMEDY})"
            )
    return shard


def _of_array(environment: Mapping[str, str]) -> Shard:
    """An array may begin at any number and have a step. One with gaps cannot be counted from here."""
    task, first, count = (_number(environment, name) for name in (_ARRAY, _MIN, _COUNT))
    step = _number(environment, _STEP) if _STEP in environment else 1
    last = _number(environment, _MAX) if _MAX in environment else first + step * (count - 1)
    is_even = step >= 1 and last == first + step * (count - 1)
    if not is_even or (task - first) % step or not first <= task <= last:
        told = f"{_ARRAY}={task}, {_MIN}={first}, {_MAX}={last}, {_STEP}={step}, {_COUNT}={count}"
        raise UsageError(f"--shard auto: this is no array of equal steps: {told} ({_REMEDY})")
    return _shard((task - first) // step + 1, count, f"{_ARRAY}={task} and {_COUNT}={count}")


def _of_rank(environment: Mapping[str, str], rank: str, size: str) -> Shard:
    number, of = _number(environment, rank), _number(environment, size)
    return _shard(number + 1, of, f"{rank}={number} and {size}={of}")


def _shard(number: int, of: int, told: str) -> Shard:
    try:
        return Shard(of, number)
    except ValueError:
        raise UsageError(f"--shard auto: {told} name no shard ({_REMEDY})") from None


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name)
    if text is None:
        raise UsageError(f"--shard auto: {name} is not set, although {_ARRAY} is ({_REMEDY})")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"--shard auto: {name} must be a whole number, not {brief(text)!r} ({_REMEDY})")
    return int(text)
