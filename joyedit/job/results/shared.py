"""What all items of a run have in common: flags, recipe, checkpoint, model, and the source.

It stands in each record of a finished picture. If it is that of the present run and the fingerprint is another one,
then the item's own line or picture changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from joyedit.job.results.fingerprint import OUTPUT_VERSION, Fingerprinter
from joyedit.job.results.shard_folders import whole_of
from joyedit.job.results.verify import asked_of
from joyedit.job.source.source import Source

_DIGITS = 32
_PATH_DIGITS = 16


class Shared(NamedTuple):
    """Three hashes: of everything but the source, of the source's real path, of its path from the output folder.

    The source is the same one if either of its paths is: a project may move as a whole, and a folder of pictures may
    get another name. A link that leads elsewhere since is another source.
    """

    settings: str
    path: str
    from_output: str

    @classmethod
    def of(cls, fingerprints: Fingerprinter, given: Mapping[str, Any], *, source: str, output: Path) -> Shared:
        """`given` is what `Source.shared` gives, `source` the path of the source."""
        # Without what is off and came later: an earlier run with the same settings has the same hash.
        later = {
            "parts": fingerprints.parts,
            "precision": fingerprints.precision != "exact",
            "speed": not fingerprints.speed.is_exact,
        }
        run = {name: value for name, value in asdict(fingerprints).items() if later.get(name, True)}
        message = {"run": run, "source": given, "version": OUTPUT_VERSION}
        path = os.path.realpath(source)
        from_output = os.path.relpath(path, os.path.realpath(output))
        settings = json.dumps(message, sort_keys=True)
        return cls(_hash(settings, _DIGITS), _hash(path, _PATH_DIGITS), _hash(from_output, _PATH_DIGITS))

    @classmethod
    def read(cls, text: object) -> Shared | None:
        """What a record holds; None if it holds none."""
        parts = text.split("-") if isinstance(text, str) else []
        return cls(*parts) if len(parts) == 3 else None

    def __str__(self) -> str:
        return "-".join(self)

    def is_in(self, record_shared: object) -> bool:
        """Whether a record of this text is of a run with the same settings and the same source."""
        other = Shared.read(record_shared)
        if other is None or other.settings != self.settings:
            return False
        return other.path == self.path or other.from_output == self.from_output

    def has_other_settings(self, record_shared: object) -> bool:
        """Whether a record of this text is of a run with other flags, another recipe or another model."""
        other = Shared.read(record_shared)
        return other is not None and other.settings != self.settings


def shared_by_all(source: Source, output: Path, fingerprints: Fingerprinter) -> Shared:
    """What all items of a run share. A retry has that of the run whose failed items it edits.

    All shards of a source share one thing, which holds where they are merged too. The path of standard input is in the
    current folder, to which its own paths are relative.
    """
    before = Shared.read(asked_of(source, output).get("shared"))
    return before or Shared.of(fingerprints, source.shared(), source=source.name, output=whole_of(output))


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
