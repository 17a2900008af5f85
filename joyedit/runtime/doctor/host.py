"""The machine around the device: processor, memory and disks. No torch in here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from joyedit.job.pictures import machine_memory
from joyedit.job.results.output_folder import OutputFolder
from joyedit.printable import gigabytes, printable
from joyedit.runtime.doctor.findings import Examination
from joyedit.runtime.tuning.measurements import cache_folder, cache_note
from joyedit.runtime.tuning.processor import bf16_units, processor_name
from joyedit.weights.hub import hub_cache

LITTLE = 1_000_000_000
"""Bytes of a disk below which an output folder gets advice: some hundred pictures of 1024 pixels."""


def tell_host(report: Examination) -> None:
    """Processor and memory."""
    with report.part("processor", stops=False):
        units = bf16_units()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        bf16 = f"has units for bf16 ({units})" if units else "has no units for bf16: --dtype bf16 works, and is slow"
        name = processor_name() or "unknown processor"
        report.tell("processor", f"{name}, {cores} cores, {bf16}", name=name, cores=cores, bf16_units=units or None)
    with report.part("memory", stops=False):
        free, total = machine_memory.available_bytes(), machine_memory.total_bytes()
        text = "unknown" if free is None else gigabytes(free)
        whole = "" if total is None else f" of {gigabytes(total)}"
        report.tell("memory", f"{text} available{whole}", available=free, total=total)


def tell_disks(report: Examination, output: Path) -> None:
    """The disks of the output folder, of joyedit's cache and of the hub's. Nothing is written."""
    with report.part("output folder"):
        free = _tell_disk(report, "output folder", output)
        OutputFolder(output).check()
        if free is not None and free < LITTLE:
            remedy = "make room, or name a folder on another disk with --output"
            report.add("output folder", f"its disk has {gigabytes(free)} left", remedy, stops=False)
    with report.part("cache folder", stops=False):
        _tell_disk(report, "cache folder", cache_folder())
        if cache_note():
            report.add("cache folder", cache_note(), "", stops=False)
    with report.part("hub cache", stops=False):
        _tell_disk(report, "hub cache", hub_cache())


def _tell_disk(report: Examination, label: str, folder: Path) -> int | None:
    """A row; gives the free bytes, None where the system does not say."""
    where = folder.absolute()
    free = free_bytes(where)
    text = "size of its disk unknown" if free is None else f"{gigabytes(free)} free"
    report.tell(label, f"{printable(str(where))}, {text}", path=str(where), free=free)
    return free


def free_bytes(folder: Path) -> int | None:
    """Free bytes of the disk that a folder is on, or would be."""
    for place in (folder, *folder.parents):
        if os.path.isdir(place):
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return None
    return None
