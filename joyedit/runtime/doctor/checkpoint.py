"""The checkpoint of a run: what of it is here, what is missing, and whether its tensors are those of the networks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from joyedit.job.run_config import RunConfig
from joyedit.printable import gigabytes
from joyedit.runtime.doctor.findings import Examination
from joyedit.runtime.doctor.host import free_bytes
from joyedit.runtime.model import PUBLISHED, is_fake, no_model
from joyedit.weights.defaults import HUB_EDIT, HUB_SIZE, local_folder
from joyedit.weights.describe import Description, describe
from joyedit.weights.hub import cached_snapshot, hub_cache
from joyedit.weights.wanted import Wanted

if TYPE_CHECKING:
    from joyedit.weights.layouts import Checkpoint

PUBLISHED_BYTES = int(HUB_SIZE.split()[0]) * 10**9


def tell_checkpoint(report: Examination, config: RunConfig) -> Description | None:
    """What lies on the disk. None where no model is named, or a name leads nowhere."""
    wanted = Wanted.of(config)
    if is_fake(config.model):
        report.tell("model", "fake, without networks")
        return None
    if not wanted.is_enough:
        if wanted.parts:
            report.add("model", no_model(wanted), "", stops=True)
        else:
            report.tell("model", f"none is given; --model {HUB_EDIT} or a folder")
        return None
    with report.part("model"):
        found = describe(wanted)
        if found.problem is not None and _is_to_be_downloaded(wanted):
            _tell_download(report, wanted)
            return found
        parts = {
            part.network: {"kind": part.kind, "files": len(part.files), "bytes": part.bytes} for part in found.parts
        }
        if found.problem is not None:
            message, *rest = found.problem.splitlines()
            report.add("model", message, "\n".join(rest), stops=True)
        else:
            report.tell(
                "model", f"{found.label}: {found.summary}",
                label=found.label, layout=found.layout, bytes=found.bytes, parts=parts, absent=list(found.absent),
            )  # fmt: skip
        if found.absent:
            count = f"{len(found.absent)} missing: " + ", ".join(found.absent)
            report.add("model", count, "\n".join(found.remedy) or "name the files that hold it", stops=True)
        return found
    return None


def _is_to_be_downloaded(wanted: Wanted) -> bool:
    return wanted.model is not None and local_folder(wanted.model) is None and cached_snapshot(wanted.model) is None


def stands_for_published(wanted: Wanted) -> bool:
    """Whether the published model is what to speak of: nobody names a model, or it is still to be downloaded."""
    if not wanted.is_enough:
        return not wanted.parts
    return wanted.model in PUBLISHED and not wanted.parts and _is_to_be_downloaded(wanted)


def _tell_download(report: Examination, wanted: Wanted) -> None:
    """A hub id that is not here yet: what would keep a run from getting it. The network is not asked."""
    size = PUBLISHED_BYTES if wanted.model in PUBLISHED else None
    text = f"{wanted.label}: not downloaded yet; a run does that"
    report.tell("model", text + (f" ({gigabytes(size)})" if size else ""), label=wanted.label, downloaded=False)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        report.add("model", "HF_HUB_OFFLINE forbids the download", "unset it, or give a local folder", stops=True)
    free = free_bytes(hub_cache())
    if size is not None and free is not None and free < size:
        report.add(
            "model",
            f"the download takes about {gigabytes(size)}, and the disk of the hub cache has {gigabytes(free)} left",
            "make room, or set HF_HOME to a folder on another disk",
            stops=True,
        )


def open_networks(report: Examination, config: RunConfig) -> Checkpoint | None:
    """The networks of a complete checkpoint on the meta device, after all names and shapes were compared."""
    from joyedit.weights.find import find
    from joyedit.weights.layouts import open_checkpoint
    from joyedit.weights.load import check

    wanted = Wanted.of(config)
    folder = None if wanted.model is None else local_folder(wanted.model) or cached_snapshot(wanted.model)
    with report.part("tensors"):
        opened = open_checkpoint(find(wanted, folder), may_fetch=False)
        check(opened.components, opened.layout)
        count = sum(1 for part in opened.components for _ in part.module.parameters())
        report.tell("tensors", f"all {count} names and shapes are right; no values were read", count=count)
        return opened
    return None
