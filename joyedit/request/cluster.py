"""`--engine ray`: whether a run over a Ray cluster can be what was asked for."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

from joyedit.errors import UsageError
from joyedit.options import RunOptions

if TYPE_CHECKING:
    from joyedit.runtime.ray_engine.engine import RayEngine

_INSTALL = 'pip install "joyedit[ray]"'


def ray_engine(options: RunOptions, *, makes_file: bool) -> RayEngine | None:
    """The cluster of a run, to which nobody has connected yet; None for one of this machine. Raises UsageError.

    `makes_file`: whether --output names one picture.
    """
    if options.engine != "ray":
        return None
    faults = []
    if makes_file:
        faults.append(f"-o {options.output}: one picture needs no cluster (leave --engine out, or name a folder)")
    if "-" in options.source:
        faults.append("standard input is of this machine: write the lines to a file, and name that as SOURCE")
    if options.shard is not None:
        faults.append("--shard divides a source over machines, and so does Ray (leave one of them out)")
    if options.parallel in ("guidance", "sequence"):
        faults.append(f"--parallel {options.parallel}: each GPU of the cluster makes its own pictures (leave it out)")
    if options.device == "mps":
        faults.append("--device mps: actors compute on CUDA, or with --device cpu on CPUs")
    if os.environ.get("RAY_ADDRESS", "").startswith("ray://"):
        faults.append("RAY_ADDRESS is one of Ray Client: run joyedit on a machine of the cluster, without ray://")
    if importlib.util.find_spec("ray") is None:
        faults.append(f"Ray is not installed: {_INSTALL}")
    elif importlib.util.find_spec("pyarrow") is None:
        faults.append(f"Ray Data needs pyarrow: {_INSTALL}")
    if faults:
        raise UsageError("\n".join(f"--engine ray: {fault}" for fault in faults))
    from joyedit.runtime.ray_engine.engine import RayEngine

    return RayEngine(options.gpus)
