"""A picture moves from one output folder to another, also where there are no hard links, and no file goes lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import ItemError, OutputError
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.take_over import flush, place


@pytest.fixture(params=["links", "no links", "another disk"])
def folders(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[OutputFolder, OutputFolder]]:
    """The folder of a shard with a picture, and the output folder."""
    link = os.link

    def refused(source: Any, target: Any, **more: Any) -> None:
        is_other_disk = request.param == "another disk"
        if is_other_disk and more["src_dir_fd"] == more["dst_dir_fd"]:
            link(source, target, **more)
            return
        number = errno.EXDEV if is_other_disk else errno.EPERM
        raise OSError(number, os.strerror(number))

    if request.param != "links":
        monkeypatch.setattr(os, "link", refused)
    made = OutputFolder(tmp_path / "shard"), OutputFolder(tmp_path / "out")
    for one in made:
        one.prepare()
    (tmp_path / "shard" / "deep").mkdir()
    (tmp_path / "shard" / "deep" / "a.png").write_bytes(b"picture")
    yield made
    for one in made:
        one.close()


def never() -> bool:
    return False


def names(folder: OutputFolder) -> list[str]:
    return sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*"))


def test_a_picture_is_in_both_places_until_it_is_removed(folders: tuple[OutputFolder, OutputFolder]) -> None:
    shard, out = folders
    for _ in range(2):  # the second time as after a kill
        assert place(shard, out, "deep/a.png", never) == "placed"
        flush(out, "deep/a.png")
        assert names(out) == names(shard) == ["deep", "deep/a.png"]
        assert (out.path / "deep" / "a.png").read_bytes() == b"picture"
    shard.remove("deep/a.png")
    assert place(shard, out, "deep/a.png", never) == "gone"
    assert place(shard, out, "other/a.png", never) == "gone"
    assert names(out) == ["deep", "deep/a.png"]


def test_another_file_stays_unless_it_may_be_replaced(folders: tuple[OutputFolder, OutputFolder]) -> None:
    shard, out = folders
    (out.path / "deep").mkdir()
    target = out.path / "deep" / "a.png"
    for other in (b"another", b"pictura"):  # the second has as many bytes
        target.write_bytes(other)
        assert place(shard, out, "deep/a.png", never) == "taken"
        assert target.read_bytes() == other
    assert place(shard, out, "deep/a.png", lambda: True) == "placed"
    assert target.read_bytes() == b"picture"
    assert names(out) == ["deep", "deep/a.png"]


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_no_file(folders: tuple[OutputFolder, OutputFolder], kind: str) -> None:
    shard, out = folders
    (out.path / "deep").mkdir()
    target = out.path / "deep" / "a.png"
    if kind == "link":
        target.symlink_to(shard.path / "deep" / "a.png")
    else:
        target.mkdir()
    assert place(shard, out, "deep/a.png", never) == "taken"
    (shard.path / "deep" / "b.png").symlink_to("a.png")
    assert place(shard, out, "deep/b.png", never) == "gone"
    assert names(out) == ["deep", "deep/a.png"]


def test_names_that_lead_elsewhere(folders: tuple[OutputFolder, OutputFolder], tmp_path: Path) -> None:
    shard, out = folders
    (tmp_path / "elsewhere").mkdir()
    (out.path / "deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ItemError, match="by the link 'deep'"):
        place(shard, out, "deep/a.png", never)
    with pytest.raises(ItemError):
        place(shard, out, "../a.png", never)
    (out.path / "deep").unlink()
    (out.path / "deep").write_bytes(b"a file")
    with pytest.raises(ItemError, match="cannot write"):
        place(shard, out, "deep/a.png", never)
    with pytest.raises((ItemError, OutputError)):
        flush(out, "gone/a.png")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_full_disk(folders: tuple[OutputFolder, OutputFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    shard, out = folders

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OutputError, match="No space left"):
        place(shard, out, "deep/a.png", never)
    assert (shard.path / "deep" / "a.png").read_bytes() == b"picture"
    assert names(out) == ["deep"]
