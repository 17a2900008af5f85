"""Fixtures that several folders use. Heavy imports stay inside the fixtures."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from support.figures import FIGURES, SOAK

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton reads it when it is imported: kernels run on the CPU

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores: one thread each, in their children too
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

# Started in the background, a test run may have been told to ignore these, and so would the commands that
# the tests start and then interrupt.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The published configs, tensor names and tokenizer files, where whoever runs the tests has them."""
    folder = os.environ.get("JOYEDIT_TEST_DATA")
    if not folder:
        pytest.skip("JOYEDIT_TEST_DATA does not name the folder with the published files")
    return Path(folder)


@pytest.fixture(scope="session")
def diffusers_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint in the diffusers layout, written by diffusers itself."""
    from support.checkpoints import write_diffusers

    return write_diffusers(tmp_path_factory.mktemp("checkpoints") / "diffusers")


@pytest.fixture(scope="session")
def edit_plus_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the Edit-Plus classes."""
    from support.checkpoints import write_diffusers

    return write_diffusers(tmp_path_factory.mktemp("checkpoints") / "edit-plus", edit_plus=True)


@pytest.fixture(scope="session")
def original_checkpoint(tmp_path_factory: pytest.TempPathFactory, diffusers_checkpoint: Path) -> Path:
    """The weights of `diffusers_checkpoint` in the authors' layout."""
    from support.checkpoints import write_original

    return write_original(tmp_path_factory.mktemp("checkpoints") / "original", diffusers_checkpoint)


@pytest.fixture(scope="session")
def plain_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in the diffusers layout whose configurations can also be read off its shapes."""
    from support.single_files import write_plain

    return write_plain(tmp_path_factory.mktemp("checkpoints") / "plain")


@pytest.fixture(scope="session")
def comfy_checkpoint(tmp_path_factory: pytest.TempPathFactory, plain_checkpoint: Path) -> Path:
    """The weights of `plain_checkpoint` as ComfyUI's single files."""
    from support.single_files import write_comfy

    return write_comfy(tmp_path_factory.mktemp("checkpoints") / "comfy", plain_checkpoint)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the figures of a worker of pytest-xdist to those of this process."""
    FIGURES.update(getattr(node, "workeroutput", {}).get("figures", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the figures of this worker to the process that started it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = dict(FIGURES)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was tried and survived."""
    if FIGURES:
        message = ", ".join(f"{name} {count}" for name, count in sorted(FIGURES.items()))
        terminalreporter.write_line(f"durability (x{SOAK}): {message}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    """Skip what needs diffusers where it is not installed: it takes no Python 3.10, and no old dependencies."""
    yield from _without_diffusers()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """As above, for tests that import it themselves."""
    yield from _without_diffusers()


def _without_diffusers() -> Generator[None, None, None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "diffusers":
            raise
        pytest.skip("diffusers is not installed")
