"""Where a model name leads, and the download of a checkpoint from the Hugging Face hub. No torch here.

huggingface_hub keeps what it has downloaded. A download that broke off goes on with the files that are missing.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyedit.errors import CheckpointError, first_line
from joyedit.printable import brief
from joyedit.weights.defaults import local_folder

HUB_PATTERNS = ["*.json", "*.safetensors", "*.pth", "*.txt", "*.jinja"]
WEIGHTS_OF = {
    "dit": ("transformer/*.safetensors", "transformer/*.pth"),
    "encoder": ("text_encoder/*.safetensors", "JoyAI-Image-Und/*.safetensors"),
    "vae": ("vae/*.safetensors", "vae/*.pth"),
}
"""The files that are not downloaded where a part is named by itself."""
POLL = 0.5
"""Seconds between two looks at the progress of a download."""

_found: dict[tuple[str, str, frozenset[str]], Path] = {}
"""What this process has resolved, by model, cache and parts that are left out: the hub is asked once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A checkpoint that is not here yet, or not all of it: how many files and bytes it has, and how many are `here`.

    `folder` is the cache of huggingface_hub.
    """

    repo: str
    folder: Path
    files: int
    bytes: int
    here: int


OnDownload = Callable[[Download, int], None]
"""Called at the start of a download, about each half second, and at its end, with the bytes that are here by then."""


def resolve(model: str, on_download: OnDownload | None = None, *, without: frozenset[str] = frozenset()) -> Path:
    """The local folder of `model`: a path, `nano`, or a hub id, which huggingface_hub downloads.

    `without`: parts whose weights are not needed. Without `on_download`, huggingface_hub shows the progress itself.
    Raises UsageError for a name that is neither, and CheckpointError for one that the hub does not give.
    """
    folder = local_folder(model)
    if folder is not None:
        return folder
    from huggingface_hub import constants

    key = (model, str(constants.HF_HUB_CACHE), without)
    if key not in _found:
        _found[key] = _from_hub(model, Path(constants.HF_HUB_CACHE), on_download, _patterns(without))
    return _found[key]


def hub_cache() -> Path:
    """The folder in which huggingface_hub keeps what it has downloaded."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).absolute()


def cached_snapshot(model: str) -> Path | None:
    """The folder of a hub id in the cache, as far as it is there; None if it is not. The network is not asked."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except Exception:  # the libraries below the hub's have errors of many kinds
        return None


def _patterns(without: Collection[str]) -> dict[str, Any]:
    """Which files of a repository are wanted, as huggingface_hub takes it."""
    left_out = [pattern for role in sorted(without) for pattern in WEIGHTS_OF[role]]
    return {"allow_patterns": HUB_PATTERNS} | ({"ignore_patterns": left_out} if left_out else {})


def _from_hub(model: str, cache: Path, on_download: OnDownload | None, patterns: dict[str, Any]) -> Path:
    from huggingface_hub import constants, snapshot_download

    download = _look(model, cache, patterns)
    missing = 0 if download is None else download.bytes - download.here
    if missing:
        _refuse_small_disk(model, cache, missing)
    try:
        if download is not None and on_download is not None and missing:
            return _fetch(download, on_download, patterns)
        with quiet_hub() if download is not None and not missing else nullcontext():
            return Path(snapshot_download(model, **patterns))
    except Exception as error:  # the libraries below the hub's have errors of many kinds
        reason = first_line(error)
        if missing:
            raise CheckpointError(
                f"--model {brief(model)}: the download broke off ({reason});"
                " the same command goes on with the files that are missing"
            ) from error
        if constants.HF_HUB_OFFLINE:
            raise CheckpointError(
                f"--model {brief(model)}: no such folder here, it is not in {cache}, and HF_HUB_OFFLINE forbids the"
                " download; unset it, or give a local folder"
            ) from error
        raise CheckpointError(
            f"--model {brief(model)}: no such folder here, and the hub did not give it ({reason});"
            " check the name and the network, or give a local folder"
        ) from error


def _look(model: str, cache: Path, patterns: dict[str, Any]) -> Download | None:
    """What the hub has of a checkpoint, and what of it is here; None if the hub does not say."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.utils._paths import filter_repo_objects

    try:
        info = HfApi().model_info(model, files_metadata=True)
    except Exception:  # snapshot_download finds the files here, or says what is wrong
        return None
    files = list(filter_repo_objects(info.siblings or [], **patterns, key=lambda one: one.rfilename))
    here = [one for one in files if isinstance(try_to_load_from_cache(model, one.rfilename, revision=info.sha), str)]
    return Download(
        repo=model,
        folder=cache,
        files=len(files),
        bytes=sum(one.size or 0 for one in files),
        here=sum(one.size or 0 for one in here),
    )


def _refuse_small_disk(model: str, cache: Path, missing: int) -> None:
    place = cache
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < missing:
        raise CheckpointError(
            f"--model {brief(model)}: {size_text(missing)} are to be downloaded, and the disk of {cache} has"
            f" {size_text(free)} left; make room, or set HF_HOME to a folder on another disk"
        )


def _fetch(download: Download, on_download: OnDownload, patterns: dict[str, Any]) -> Path:
    """Download in a thread, and tell meanwhile how far it is. Raises what the download raises."""
    from huggingface_hub import snapshot_download

    blobs = download.folder / f"models--{download.repo.replace('/', '--')}" / "blobs"
    before = _bytes_in(blobs)
    found: list[Path] = []
    errors: list[BaseException] = []
    stopped = threading.Event()

    def work() -> None:
        try:
            bar = _stoppable_bar(stopped)
            path = snapshot_download(download.repo, **patterns, tqdm_class=bar)
            found.append(Path(path))
        except BaseException as error:
            errors.append(error)

    with quiet_hub():
        thread = threading.Thread(target=work, name="joyedit-download", daemon=True)
        on_download(download, download.here)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(POLL)
                here = download.here + _bytes_in(blobs) - before
                on_download(download, max(download.here, min(download.bytes, here)))
        finally:
            stopped.set()
    if errors:
        raise errors[0]
    on_download(download, download.bytes)
    return found[0]


def _bytes_in(folder: Path) -> int:
    """The size of all files in a folder, of unfinished ones too."""
    total = 0
    for path in folder.glob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # renamed or removed in between
            continue
    return total


def _stoppable_bar(stopped: threading.Event) -> type[Any]:
    """A bar that shows nothing, and ends the threads of the download once it is to stop: Ctrl-C would wait for them."""
    from tqdm.auto import tqdm

    class StoppableBar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **{**more, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if stopped.is_set():
                raise InterruptedError("stopped")
            return super().update(n)

    return StoppableBar


@contextmanager
def quiet_hub() -> Iterator[None]:
    """huggingface_hub's own bars do not show."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def size_text(count: int) -> str:
    """Bytes in words, as the hub counts them: `50.3 GB`, `812 MB`, `4 kB`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}" if unit == 1e9 else f"{count / unit:.0f} {name}"
    return f"{count} bytes"
