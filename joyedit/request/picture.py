"""`-o one.png`: the file that a run is to make, in place of an output folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from joyedit.errors import UsageError
from joyedit.job.source.names import EXTENSIONS, SAME
from joyedit.job.source.picture_folder import PICTURE_SUFFIXES
from joyedit.options import RunOptions
from joyedit.runtime.one_picture import OnePicture

if TYPE_CHECKING:
    pass


def one_picture(options: RunOptions) -> OnePicture | None:
    """The file that --output names; None if it names a folder. Raises UsageError for a file that cannot be."""
    ending = options.output.suffix.lower()
    if ending not in PICTURE_SUFFIXES or os.path.isdir(options.output):
        return None
    source = options.source[0] if len(options.source) == 1 else ""
    is_one_name = not (source.startswith("@") or set("*?[").intersection(source))
    if source not in ("", "-") and is_one_name and not os.path.exists(source):
        return None  # told with its reason when the source is opened
    if Path(source).suffix.lower() not in PICTURE_SUFFIXES or not os.path.isfile(source):
        raise UsageError(
            f"-o {options.output} names one picture, and SOURCE may be many (name a folder for the edited pictures)"
        )
    format = format_of(options.output)
    if format is None or options.format not in (None, format, SAME):
        if format is not None:
            raise UsageError(f"-o {options.output} does not fit --format {options.format}")
        raise UsageError(f"-o {options.output}: joyedit writes {', '.join(EXTENSIONS)}, and no {ending[1:]}")
    return OnePicture(path=options.output, may_replace=options.overwrite or options.update)


def format_of(path: Path) -> str | None:
    """The format that the ending of a picture's name stands for; None if joyedit does not write it."""
    return next((format for format, endings in EXTENSIONS.items() if path.suffix.lower() in endings), None)
