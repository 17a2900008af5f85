"""From what a user named as the model to the parts of a checkpoint on this machine. No torch in here."""

from __future__ import annotations

from joyedit.weights.find import Found, find
from joyedit.weights.hub import OnDownload, resolve
from joyedit.weights.wanted import Wanted


def locate(wanted: Wanted, on_download: OnDownload | None = None) -> Found:
    """Find every part; a hub id is downloaded, without the weights of parts that are named by themselves.

    Raises UsageError for names that lead nowhere, CheckpointError for what `find` refuses.
    """
    folder = None
    if wanted.model is not None:
        folder = resolve(wanted.model, on_download, without=frozenset(wanted.parts))
    return find(wanted, folder)
