"""Which items were in work when a process died, as the next run reads it."""

from __future__ import annotations

import os
from pathlib import Path

from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.unfinished import Unfinished
from joyedit.job.spec import EditItem, Origin, Sampling


def item(name: str) -> EditItem:
    return EditItem(
        id=name,
        images=(),
        instruction="Make it blue.",
        sampling=Sampling(),
        basesize=256,
        size=None,
        output=f"{name}.png",
        origin=Origin(file="m.jsonl"),
    )


def deaths_after_a_kill(folder: Path, *, goes_elsewhere: bool) -> dict[str, int]:
    """A process looks at two items, passes the second one on if that is said, and is gone without a word."""
    files = OutputFolder(folder)
    files.prepare()
    journal = Journal(folder)
    unfinished = Unfinished(files, journal)
    for name in "ab":
        unfinished.look(item(name))
    if goes_elsewhere:
        unfinished.pass_on([item("b"), item("c")])
    os.close(unfinished._handle)
    found = Unfinished(files, journal).before
    journal.close()
    files.close()
    return {name: one.deaths for name, one in found.items()}


def test_an_item_that_another_process_works_on_is_no_suspect(tmp_path: Path) -> None:
    assert deaths_after_a_kill(tmp_path / "here", goes_elsewhere=False) == {"b": 1}
    assert deaths_after_a_kill(tmp_path / "elsewhere", goes_elsewhere=True) == {}
