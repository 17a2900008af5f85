"""Which checkpoint a picture was made with, as one hash, without reading 50 GB.

Small files (configs, tokenizer, index) count whole. Of a large one count its size and 256 samples of 4 KiB
spread over it, which no retraining leaves as they were. Times and the folder's place do not count, so a
checkpoint that was copied or moved is the same one. In the cache of the Hugging Face hub, a file's name is
its hash already.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from joyedit.job.spec import RunConfig
from joyedit.runtime.protocol import BackendInfo, backend_loader, is_fake

SMALL = 1 << 20
SAMPLES = 256
SAMPLE = 4096


def model_identity(info: BackendInfo, model: str | None) -> str:
    """The identity of the loaded model: its backend's word, or the hash of its checkpoint's files."""
    if info.identity or model is None:
        return info.identity or info.model
    from joyedit.weights.layouts import resolve

    return folder_identity(resolve(model))


def foresee(config: RunConfig) -> BackendInfo:
    """What loading the model will tell of it, without loading it: all that is in a fingerprint.

    `attention` stays as it was asked for. Raises CheckpointError for no checkpoint, DeviceError for a device that
    is not there.
    """
    if config.model is None or is_fake(config.model):
        return backend_loader(config.model)(config).info
    from joyedit.runtime.tuning.device import choose_device, choose_dtype
    from joyedit.weights.layouts import detect, resolve, schedule_of

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


def folder_identity(folder: Path) -> str:
    """One hash over the files below `folder`, hidden ones left out."""
    digest = hashlib.sha256()
    paths = [path for path in folder.rglob("*") if not any(part.startswith(".") for part in _below(path, folder))]
    for path in sorted(paths):
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()}\0{_file_identity(path)}\n".encode())
    return digest.hexdigest()


def _below(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts


def _file_identity(path: Path) -> str:
    target = path.resolve()
    if target.parent.name == "blobs" and len(target.name) == 64:  # the hub's cache
        return target.name
    digest = hashlib.sha256()
    with open(target, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(f"{size}\0".encode())
        if size <= SMALL:
            digest.update(file.read())
        else:
            for number in range(SAMPLES):
                file.seek((size - SAMPLE) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()
