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
from functools import partial
from pathlib import Path

from joyedit.errors import CheckpointError, JoyeditError, UsageError
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import Settings
from joyedit.runtime.protocol import Backend, BackendInfo, LoadedModel
from joyedit.weights.defaults import HUB_EDIT, HUB_EDIT_PLUS, HUB_ORIGINAL, HUB_SIZE, NANO, local_folder
from joyedit.weights.find import Found
from joyedit.weights.hub import OnDownload, cached_snapshot
from joyedit.weights.regular_files import files_below, open_regular, unreadable
from joyedit.weights.wanted import ROLES, Wanted

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

_FP32_OF_STORED = 16
"""A number in fp32 takes at most so many times the bytes of a stored one, which has two bits or more."""
SMALL = 1 << 20
SAMPLES = 256
SAMPLE = 4096


PUBLISHED = (HUB_EDIT, HUB_EDIT_PLUS, HUB_ORIGINAL)
"""The hub ids whose shapes are known before anything of them is here."""

LoadBackend = Callable[[RunConfig], Backend]
"""Loads the model of a run: one of the backends."""
LoadModel = Callable[[RunConfig], LoadedModel]
"""Loads the model of a run: such a backend, or several in processes of their own."""
DescribeModel = Callable[[RunConfig], BackendInfo]
"""Says what loading would say, without loading."""
FetchModel = Callable[[RunConfig, OnDownload], None]
"""Downloads the checkpoint of a model name that is not here, and tells how far it is."""


def let_missing_operations_run_on_the_cpu(device: str) -> None:
    """What torch lacks for Apple GPUs runs on the CPU. It reads this when it is imported, so call it before."""
    if device == "mps":
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def no_model(wanted: Wanted) -> str:
    """What is missing to have a model."""
    if not wanted.parts:
        return NO_MODEL
    lacking = " and ".join(f"--{role}" for role in ROLES if role not in wanted.parts)
    return f"{lacking} must be given too, or --model for the other parts"


def backend_loader(wanted: Wanted) -> LoadBackend:
    """The function that loads a model. Nothing heavy is imported before that function is called."""
    if is_fake(wanted.model):
        from joyedit.runtime.fake import load_backend as load_fake

        return load_fake
    if not wanted.is_enough:
        raise UsageError(no_model(wanted))
    return _load


def loader_of(config: RunConfig) -> LoadBackend:
    """As `backend_loader`, of the model of this configuration, or of random weights where it asks for them."""
    return _load if config.random is not None else backend_loader(Wanted.of(config))


def _load(config: RunConfig) -> Backend:
    let_missing_operations_run_on_the_cpu(config.device)
    _refuse_unfit(config)
    from joyedit.runtime.joyimage.loading import load_backend

    return load_backend(config)


def fetch(config: RunConfig, on_download: OnDownload) -> None:
    """See to it that the checkpoint is here. Raises CheckpointError and UsageError, as `resolve` does."""
    if config.model is not None and not is_fake(config.model):
        from joyedit.weights.hub import resolve

        resolve(config.model, on_download, without=frozenset(Wanted.of(config).parts))


def fetch_what_fits(config: RunConfig, on_download: OnDownload) -> None:
    """The same where this process is the one that loads it. Raises DeviceError too, before a download."""
    _refuse_unfit(config)
    fetch(config, on_download)


def _refuse_unfit(config: RunConfig) -> None:
    """Raises DeviceError where the published model is still to be downloaded, and could not be loaded here."""
    model, wanted = config.model, Wanted.of(config)
    if model not in PUBLISHED or wanted.parts or config.random is not None:
        return
    if local_folder(model) is None and cached_snapshot(model) is None:
        from joyedit.runtime.joyimage.before_download import refuse_unfit

        refuse_unfit(config)


def model_settings(wanted: Wanted) -> Settings:
    """The default settings that a checkpoint itself brings; none without a model."""
    if is_fake(wanted.model):
        return Settings()
    from joyedit.weights.defaults import EDIT_PLUS, checkpoint_defaults, local_folder
    from joyedit.weights.find import find

    own = Settings() if wanted.model is None else checkpoint_defaults(wanted.model)
    folder = None if wanted.model is None else local_folder(wanted.model)
    if wanted.is_enough and (wanted.model is None or folder is not None):
        try:
            return own.over(EDIT_PLUS) if find(wanted, folder).edit_plus else own
        except JoyeditError:  # told with its reason when the checkpoint is opened
            pass
    return own


def most_references(wanted: Wanted) -> int | None:
    """The most pictures that an item may have with this checkpoint: 1 with Edit, 5 with Edit-Plus and where nothing
    tells which of the two it is. None without a checkpoint that is here. Loads no weights.
    """
    from joyedit.weights.defaults import MOST_REFERENCES, local_folder
    from joyedit.weights.find import find

    if is_fake(wanted.model) or not wanted.is_enough:
        return None
    folder = None if wanted.model is None else local_folder(wanted.model) or cached_snapshot(wanted.model)
    if wanted.model is not None and folder is None:
        return 1 if wanted.model in (HUB_EDIT, HUB_ORIGINAL) else None
    try:
        return 1 if find(wanted, folder).is_edit else MOST_REFERENCES
    except JoyeditError:  # told with its reason when the checkpoint is opened
        return None


def is_fake(model: str | None) -> bool:
    """Whether the name stands for the backend without networks."""
    return model == FAKE_MODEL and os.environ.get(FAKE_SWITCH) == "1"


def model_identity(info: BackendInfo, config: RunConfig) -> str:
    """The identity of the loaded model: its backend's word, or the hash of its checkpoint's files."""
    wanted = Wanted.of(config)
    if info.identity or not wanted.is_enough:
        return info.identity or info.model
    from joyedit.weights.locate import locate

    return checkpoint_identity(locate(wanted))


def describe_without_loading(config: RunConfig, *, may_fetch: bool = True) -> BackendInfo:
    """What loading the model will tell of it, without loading it: all that is in a fingerprint.

    `attention` stays as it was asked for. `may_fetch`: whether a tokenizer may be downloaded. Raises CheckpointError
    for no checkpoint, DeviceError for a device that is not there.
    """
    wanted = Wanted.of(config)
    if is_fake(config.model) or not wanted.is_enough:
        return backend_loader(wanted)(config).info
    let_missing_operations_run_on_the_cpu(config.device)
    from joyedit.runtime.tuning.device import choose_device, choose_dtype
    from joyedit.weights.locate import locate

    device = choose_device(config.device)
    found = locate(wanted)
    dtype = choose_dtype(config.dtype, device, partial(_fp32_bytes, found, may_fetch))
    return BackendInfo(
        model=wanted.label,
        layout=found.layout,
        device=str(device),
        dtype=dtype,
        precision=config.precision,
        attention=config.attention,  # which kernel that is, a measurement on the device would tell
        schedule=found.schedule if config.schedule == "auto" else config.schedule,
        identity=checkpoint_identity(found, may_fetch=may_fetch),
    )


def placement_without_loading(config: RunConfig) -> str | None:
    """Where a run would have the weights: for a dry run. None without a model, and for one that is not here.

    On a machine without a GPU all weights are in memory, and nothing is said unless the run asks for a placement.
    None, too, for a checkpoint that is not complete. Raises DeviceError as loading does. Nothing is fetched.
    """
    asked = config.memory is not None or config.offload != "auto" or config.device in ("cuda", "mps")
    wanted = Wanted.of(config)
    if not wanted.is_enough or is_fake(config.model) or (config.device == "cpu" and not asked):
        return None
    if not asked and not any(os.path.exists(device) for device in _GPU_FILES):
        return None
    let_missing_operations_run_on_the_cpu(config.device)
    from joyedit.runtime.joyimage.placing import describe_placement
    from joyedit.weights.find import find
    from joyedit.weights.layouts import open_checkpoint

    folder = None if wanted.model is None else local_folder(wanted.model) or cached_snapshot(wanted.model)
    if wanted.model is not None and folder is None:
        return None
    try:
        checkpoint = open_checkpoint(find(wanted, folder), may_fetch=False)
    except CheckpointError:  # the dry run says of what the checkpoint lacks
        return None
    return describe_placement(config, checkpoint)


def _fp32_bytes(found: Found, may_fetch: bool) -> int:
    """What the weights take in fp32; no less than that where it does not matter, as the files are so small."""
    from joyedit.runtime.tuning.device import fits_machine
    from joyedit.weights.layouts import open_checkpoint

    files = [path for part in found.parts.values() for path in (*part.files, *part.vision)]
    most = sum(os.stat(path).st_size for path in files if path.exists()) * _FP32_OF_STORED
    return most if fits_machine(most) else open_checkpoint(found, may_fetch=may_fetch).fp32_bytes


def checkpoint_identity(found: Found, *, may_fetch: bool = True) -> str:
    """One hash over what makes the pictures. Of a whole folder of a published layout all files count, elsewhere those
    that are used, by what they are and not by their names.

    Raises CheckpointError for a file that cannot be read, or that is missing.
    """
    wanted = found.wanted
    is_whole = found.layout in ("diffusers", "original") and not wanted.parts and wanted.tokenizer is None
    if found.folder is not None and is_whole:
        whole, said = folder_identity(found.folder), found.said()
        return hashlib.sha256(f"{whole} {said}".encode()).hexdigest() if said else whole
    from joyedit.weights.find import refuse_absent
    from joyedit.weights.prompt_sources import prompt_folders

    prompts = prompt_folders(found, may_fetch=may_fetch)
    refuse_absent(found, prompts.absent)
    digest = hashlib.sha256()
    for what, path in (*found.used(), *prompts.used()):
        digest.update(f"{what}\0{_file_identity(path)}\n".encode())
    return digest.hexdigest()


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
