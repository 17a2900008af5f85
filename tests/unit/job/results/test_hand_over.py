"""A picture that one process leaves, and another one gives its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from joyedit.errors import ItemError, OutputError
from joyedit.job.results.hand_over import leave, take
from joyedit.job.results.output_folder import OutputFolder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[OutputFolder]:
    folder = OutputFolder(tmp_path / "out")
    folder.prepare()
    yield folder
    folder.close()


def names(folder: OutputFolder) -> list[str]:
    return sorted(str(one.relative_to(folder.path)) for one in folder.path.rglob("*") if one.is_file())


def test_a_left_file_gets_its_name(folder: OutputFolder) -> None:
    temporary = leave(folder, "a/b.png", b"picture")
    assert names(folder) == [f"a/{temporary}"]
    take(folder, temporary, "a/b.png", lambda: False)
    assert names(folder) == ["a/b.png"]
    assert (folder.path / "a/b.png").read_bytes() == b"picture"


def test_what_nobody_takes_goes_with_the_rest_of_a_killed_run(folder: OutputFolder) -> None:
    leave(folder, "a/b.png", b"picture")
    assert folder.clean() == 1
    assert names(folder) == []


def test_a_file_of_somebody_else_stays(folder: OutputFolder) -> None:
    (folder.path / "b.png").write_bytes(b"theirs")
    temporary = leave(folder, "b.png", b"ours")
    with pytest.raises(ItemError, match="is there already") as caught:
        take(folder, temporary, "b.png", lambda: False)
    assert caught.value.code == "output_taken"
    assert (folder.path / "b.png").read_bytes() == b"theirs"
    assert names(folder) == ["b.png"]


def test_a_picture_of_our_own_is_replaced(folder: OutputFolder) -> None:
    (folder.path / "b.png").write_bytes(b"old")
    take(folder, leave(folder, "b.png", b"new"), "b.png", lambda: True)
    assert (folder.path / "b.png").read_bytes() == b"new"


def test_a_folder_that_is_not_shared_is_told(folder: OutputFolder) -> None:
    leave(folder, "b.png", b"picture")
    with pytest.raises(OutputError, match="all machines must see one output folder"):
        take(folder, ".0123456789abcdef.joyedit-tmp", "b.png", lambda: False)


def test_no_name_leads_out(folder: OutputFolder) -> None:
    with pytest.raises(ItemError) as caught:
        leave(folder, "../b.png", b"picture")
    assert caught.value.code == "output_outside"
