"""Copies of the tiny checkpoints that a test may damage, and the one way in which that may end."""

from __future__ import annotations

from pathlib import Path

import pytest

from joyedit.errors import CheckpointError
from joyedit.job.run_config import RunConfig
from joyedit.runtime.joyimage.loading import load_backend
from support.hostile import Refused, linked_copy


@pytest.fixture
def diffusers(tmp_path: Path, diffusers_checkpoint: Path) -> Path:
    return linked_copy(diffusers_checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def original(tmp_path: Path, original_checkpoint: Path) -> Path:
    return linked_copy(original_checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def refused() -> Refused:
    """The message of the one error that loading a checkpoint ends with, its folder written as CKPT."""

    def message(folder: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            load_backend(RunConfig(output=Path("unused"), model=str(folder)))
        text = str(caught.value)
        assert caught.value.exit_code == 2
        assert len(text) < 3000
        assert all(one.isprintable() or one == "\n" for one in text)
        return text.replace(str(folder), "CKPT")

    return message
