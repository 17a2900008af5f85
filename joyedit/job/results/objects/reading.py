"""What is below an address, for whoever looks and changes nothing: records and report in a folder that goes again."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from joyedit.errors import OutputError, UsageError
from joyedit.job.own_files import RESULTS
from joyedit.job.results.lock import holder
from joyedit.job.results.objects.address import address_of, folder_of
from joyedit.job.results.objects.names import ABOUT, Mark
from joyedit.job.results.objects.remote_lock import is_fresh, read_lock
from joyedit.job.results.objects.restore import life_of, restore_beside, restore_records
from joyedit.job.results.objects.store import ObjectStore


class OutputToRead(NamedTuple):
    """`folder` has the records; `holder` is who writes to the output now, as its lock says, or None."""

    folder: Path
    holder: dict[str, Any] | None


@contextmanager
def output_to_read(output: Path, *, may_be_new: bool = False) -> Iterator[OutputToRead]:
    """An output folder as it is, or the records of an address in a folder of their own.

    Raises UsageError for an address without an output of joyedit, unless it `may_be_new`, and OutputError where the
    store does not answer.
    """
    address = address_of(output)
    if address is None:
        folder = folder_of(output)
        yield OutputToRead(folder, holder(folder))
        return
    store = ObjectStore(address)
    with tempfile.TemporaryDirectory(prefix="joyedit-") as name:
        folder = Path(name)
        sizes = store.sizes()
        is_known = bool(life_of(store, sizes)) or RESULTS in sizes
        if not is_known and not may_be_new:
            raise UsageError(f"{store.shown}: this is no output of joyedit (it has no {RESULTS})")
        if is_known:
            restore_records(store, sizes, folder / RESULTS)
            (folder / RESULTS).touch()
            restore_beside(store, sizes, folder)
        Mark(address=address, token=secrets.token_hex(8)).write(folder)
        found = read_lock(store)
        try:
            yield OutputToRead(folder, found if found is not None and is_fresh(found) else None)
        except (UsageError, OutputError) as error:
            if type(error) not in (UsageError, OutputError) or name not in str(error):
                raise
            raise type(error)(str(error).replace(name, store.shown)) from error


def was_used(address: str) -> bool:
    """Whether a run wrote there before. Raises as `ObjectStore`."""
    store = ObjectStore(address)
    return bool(life_of(store, {ABOUT: 0}))
