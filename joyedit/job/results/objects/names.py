"""The objects that joyedit keeps beside the pictures of a prefix, and the state folder of the driver's machine.

results.jsonl report.json failed.jsonl joyedit.log    as in an output folder, whole at the end of a run
.joyedit/about.json                                   which life of the prefix this is
.joyedit/lock.json                                    who writes here now
.joyedit/unfinished.json                              the items that are on their way
.joyedit/journal/00000000000000000000.jsonl           records of a run that goes on, from this byte on
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

OWN_FOLDER = ".joyedit/"
ABOUT = ".joyedit/about.json"
LOCK_OBJECT = ".joyedit/lock.json"
IN_WORK = ".joyedit/unfinished.json"
_SEGMENT = re.compile(r"\.joyedit/journal/([0-9]{20})\.jsonl", re.ASCII)

MARK = ".joyedit.objects"
"""The file in a state folder that says where its pictures are."""
STATE_VARIABLE = "JOYEDIT_STATE"
_SHOWN = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """What the file says: the address, the life of the prefix, and the token of the last run from here."""

    address: str
    life: str = ""
    token: str = ""

    def write(self, folder: Path) -> None:
        """Write it whole. Raises OSError."""
        part = folder / f"{MARK}.new"
        part.write_text(json.dumps(asdict(self)))
        part.replace(folder / MARK)

    @classmethod
    def read(cls, folder: Path) -> Mark | None:
        """What a folder has; None if its pictures lie in it."""
        try:
            read = json.loads((folder / MARK).read_bytes())
            return cls(**{name: str(read[name]) for name in ("address", "life", "token")})
        except (OSError, ValueError, TypeError, KeyError):
            return None


def segment_name(begin: int) -> str:
    """The name of the segment whose records begin at this byte of results.jsonl."""
    return f".joyedit/journal/{begin:020}.jsonl"


def segment_begin(name: str) -> int | None:
    """The first byte of a segment; None for another object."""
    found = _SEGMENT.fullmatch(name)
    return None if found is None else int(found[1])


def state_folder(address: str) -> Path:
    """The folder of this machine that keeps the journal of a prefix while a run goes on. Raises RuntimeError where the
    user has no home.

    `JOYEDIT_STATE` names the folder of all of them; without that it is `joyedit` in the user's folder of states.
    """
    given = os.environ.get(STATE_VARIABLE)
    base = os.environ.get("XDG_STATE_HOME")
    if given:
        place = Path(given)
    else:
        place = (Path(base) if base and os.path.isabs(base) else Path.home() / ".local" / "state") / "joyedit"
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", address)[-_SHOWN:].strip("-.")
    digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Path(os.path.abspath(place)) / "objects" / f"{plain}-{digest}" / "run"
