"""Which backend serves a model name, what can be said of a model without loading it, and its identity.

The identity is one hash that says which checkpoint a picture was made with, without reading 50 GB.

Small files (configs, tokenizer, index) count whole. Of a large one count its size and 256 samples of 4 KiB
spread over it, which no retraining leaves as they were. Times and the folder's place do not count, so a
checkpoint that was copied or moved is the same one. In the cache of the Hugging Face hub, a file's name is
its hash already.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from joyedit.errors import UsageError
from joyedit.job.spec import RunConfig, Settings
from joyedit.runtime.protocol import Backend, BackendInfo
from joyedit.weights.defaults import HUB_EDIT, HUB_SIZE, NANO
from joyedit.weights.hub import OnDownload
from joyedit.weights.regular_files import files_below, open_regular, unreadable

FAKE_MODEL = "fake"
FAKE_SWITCH = "JOYEDIT_FAKE"
"""Set to 1, the model name `fake` stands for a backend without networks, for tests."""


NO_MODEL = (
    f"no model is given: add --model {NANO} (comes with joyedit, knows only drawn scenes), "
    f"--model {HUB_EDIT} (the full model, a download of {HUB_SIZE}), or --model with a folder; "
    "JOYEDIT_MODEL stands in for the flag"
)

_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl")
"""One of these is there where a CUDA driver is: on Linux, in WSL, and on a board with its own GPU. torch would take
seconds to tell."""

SMALL = 1 << 20
SAMPLES = 256
SAMPLE = 4096


LoadBackend = Callable[[RunConfig], Backend]
"""Loads the model of a run: one of the backends."""
DescribeModel = Callable[[RunConfig], BackendInfo]
"""Says what loading would say, without loading."""
FetchModel = Callable[[str | None, OnDownload], None]
"""Downloads the checkpoint of a model name that is not here, and tells how far it is."""


def backend_loader(model: str | None) -> LoadBackend:
    """The function that loads `model`. Nothing heavy is imported before that function is called."""
    if is_fake(model):
        from joyedit.runtime.fake import load_backend as load_fake

        return load_fake
    if model is None:
        raise UsageError(NO_MODEL)

    def load(config: RunConfig) -> Backend:
        from joyedit.runtime.joyimage.loading import load_backend

        return load_backend(config)

    return load


def fetch(model: str | None, on_download: OnDownload) -> None:
    """See to it that the checkpoint is here. Raises CheckpointError and UsageError, as `resolve` does."""
    if model is not None and not is_fake(model):
        from joyedit.weights.hub import resolve

        resolve(model, on_download)


def model_settings(model: str | None) -> Settings:
    """The default settings that a checkpoint itself brings; none without a model."""
    if model is None or is_fake(model):
        return Settings()
    from joyedit.weights.defaults import checkpoint_defaults

    return checkpoint_defaults(model)


def is_fake(model: str | None) -> bool:
    """Whether the name stands for the backend without networks."""
    return model == FAKE_MODEL and os.environ.get(FAKE_SWITCH) == "1"


def model_identity(info: BackendInfo, model: str | None) -> str:
    """The identity of the loaded model: its backend's word, or the hash of its checkpoint's files."""
    if info.identity or model is None:
        return info.identity or info.model
    from joyedit.weights.hub import resolve

    return folder_identity(resolve(model))


def describe_without_loading(config: RunConfig) -> BackendInfo:
    """What loading the model will tell of it, without loading it: all that is in a fingerprint.

    `attention` stays as it was asked for. Raises CheckpointError for no checkpoint, DeviceError for a device that
    is not there.
    """
    if config.model is None or is_fake(config.model):
        return backend_loader(config.model)(config).info
    from joyedit.runtime.tuning.device import choose_device, choose_dtype
    from joyedit.weights.hub import resolve
    from joyedit.weights.layouts import detect, schedule_of

    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    folder = resolve(config.model)
    layout = detect(folder)
    return BackendInfo(
        model=config.model,
        layout=layout,
        device=str(device),
        dtype=dtype,
        attention=config.attention,  # which kernel that is, a measurement on the device would tell
        schedule=schedule_of(folder, layout) if config.schedule == "auto" else config.schedule,
        identity=folder_identity(folder),
    )


def placement_without_loading(config: RunConfig) -> str | None:
    """Where a run would have the weights: for a dry run. None without a model, and for one that is not here.

    On a machine without a GPU all weights are in memory, and nothing is said unless the run asks for a placement.
    Raises CheckpointError and DeviceError as loading does.
    """
    asked = config.memory is not None or config.offload != "auto" or config.device == "cuda"
    if config.model is None or is_fake(config.model) or (config.device == "cpu" and not asked):
        return None
    if not asked and not any(os.path.exists(device) for device in _GPU_FILES):
        return None
    from joyedit.weights.hub import local_checkpoint

    folder = local_checkpoint(config.model)
    if folder is None:
        return None
    from joyedit.runtime.joyimage.placing import describe_placement
    from joyedit.weights.layouts import open_checkpoint

    return describe_placement(config, open_checkpoint(folder))


def folder_identity(folder: Path) -> str:
    """One hash over the files below `folder`, hidden ones left out. Links are followed.

    Raises CheckpointError for a file that cannot be read, and for more files than a checkpoint has.
    """
    digest = hashlib.sha256()
    for path in sorted(files_below(folder)):
        digest.update(os.fsencode(path.relative_to(folder).as_posix()))
        digest.update(f"\0{_file_identity(path)}\n".encode())
    return digest.hexdigest()


def _file_identity(path: Path) -> str:
    target = Path(os.path.realpath(path))
    if target.parent.name == "blobs" and len(target.name) == 64:  # the hub's cache
        return target.name
    digest = hashlib.sha256()
    try:
        with open_regular(target) as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{size}\0".encode())
            if size <= SMALL:
                digest.update(file.read(SMALL + 1))
            else:
                for number in range(SAMPLES):
                    file.seek((size - SAMPLE) * number // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE))
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()
