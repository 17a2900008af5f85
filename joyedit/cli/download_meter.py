"""How the download of a checkpoint shows itself: its size, its place, and how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from joyedit.cli import console
from joyedit.job.results.report import seconds_text
from joyedit.printable import printable
from joyedit.weights.hub import Download, size_text

if TYPE_CHECKING:
    from tqdm import tqdm

PLAIN_SECONDS = 10.0
"""Without a terminal, a line comes at most this often."""


class DownloadMeter:
    """A bar on a terminal, sparse lines elsewhere. Says first what is downloaded, and where it goes."""

    def __init__(self, download: Download, now: Callable[[], float] = time.monotonic) -> None:
        self._download = download
        self._now = now
        self._start = self._told = now()
        self._bar: tqdm[Any] | None = None
        files = "1 file" if download.files == 1 else f"{download.files} files"
        text = f"downloading {printable(download.repo)}: {size_text(download.bytes)} in {files}, to {download.folder}"
        if download.here:
            text += f" ({size_text(download.here)} of it are here already)"
        console.message(text, "download", bytes=download.here, total_bytes=download.bytes)
        console.message("a download that breaks off goes on with the files that are missing: give the same command")
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=download.bytes, initial=download.here, unit="B", unit_scale=True, file=sys.stderr, ncols=80
            )

    def at(self, here: int) -> None:
        """So many bytes are here now."""
        if self._bar is not None:
            self._bar.update(here - self._bar.n)
        elif self._now() - self._told >= PLAIN_SECONDS or here == self._download.bytes:
            self._told = self._now()
            console.message(self._line(here), "download", bytes=here, total_bytes=self._download.bytes)

    def close(self) -> None:
        """The last state stays on the screen."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, here: int) -> str:
        text = f"downloaded {size_text(here)} of {size_text(self._download.bytes)}"
        seconds, new = self._now() - self._start, here - self._download.here
        if seconds > 0 and new > 0:
            text += f", {size_text(round(new / seconds))} a second"
            left = self._download.bytes - here
            text += f", {seconds_text(left * seconds / new)} left" if left else ""
        return text
