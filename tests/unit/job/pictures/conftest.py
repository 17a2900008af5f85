from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from joyedit.job.pictures.python_warnings import set_warning_hook


@pytest.fixture
def warnings_are_notes() -> Iterator[None]:
    """As the command has it."""
    with warnings.catch_warnings():
        set_warning_hook(True)
        yield
        set_warning_hook(False)
