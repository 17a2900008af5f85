"""The tiny checkpoints through joyedit's loader and through diffusers, both fp32 on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from joyedit.runtime.joyimage.backend import JoyImageBackend
from support import editing, reference


@pytest.fixture(scope="session")
def ours(diffusers_checkpoint: Path) -> JoyImageBackend:
    return loaded(diffusers_checkpoint)


@pytest.fixture(scope="session")
def theirs(diffusers_checkpoint: Path) -> Any:
    return reference.pipeline(diffusers_checkpoint)


@pytest.fixture(scope="session")
def ours_plus(edit_plus_checkpoint: Path) -> JoyImageBackend:
    return loaded(edit_plus_checkpoint)


@pytest.fixture(scope="session")
def theirs_plus(edit_plus_checkpoint: Path) -> Any:
    return reference.pipeline(edit_plus_checkpoint, edit_plus=True)


def loaded(folder: Path) -> JoyImageBackend:
    """With its DiT, which loads on in a thread."""
    found = editing.backend(folder)
    found.ready()
    return found
