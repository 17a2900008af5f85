"""Output files: inside the folder, whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from joyedit.errors import ItemError, OutputError, UsageError
from joyedit.job.own_files import TEMPORARY_SUFFIX
from joyedit.job.results.output_folder import OutputFolder


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    folder = OutputFolder(tmp_path / "out")
    folder.prepare()
    return folder


def files(path: Path) -> list[str]:
    return sorted(str(one.relative_to(path)) for one in path.rglob("*") if not one.is_dir())


def test_check_creates_nothing(tmp_path: Path) -> None:
    OutputFolder(tmp_path / "a" / "b").check()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    for path in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(UsageError, match="out is no folder"):
            OutputFolder(path).check()
    with pytest.raises(OutputError, match="cannot create the output folder"):
        OutputFolder(tmp_path / "out").prepare()


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match="cannot be a folder"):
        OutputFolder(tmp_path / "out").check()


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    with pytest.raises(OutputError, match="no permission"):
        OutputFolder(tmp_path / "out").check()


def test_a_disk_that_is_read_only_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs(tmp_path)
    read_only = os.statvfs_result([*found[:8], found.f_flag | os.ST_RDONLY, found.f_namemax])
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os, "statvfs", lambda path: read_only)
    with pytest.raises(OutputError, match=r"is on a file system that is read-only \(choose another --output\)$"):
        OutputFolder(tmp_path / "out").check()


def test_write_makes_parents_and_leaves_no_temporary(folder: OutputFolder) -> None:
    path = folder.write("a/b/c.png", lambda file: file.write(b"data") and None)
    assert path.read_bytes() == b"data"
    assert files(folder.path) == ["a/b/c.png"]


def test_the_file_is_whole_before_it_has_its_name(folder: OutputFolder) -> None:
    seen: list[list[str]] = []

    def fill(file: BinaryIO) -> None:
        file.write(b"half")
        file.flush()
        seen.append(files(folder.path))

    folder.write("x.png", fill)
    (during,) = seen
    assert len(during) == 1
    assert during[0].endswith(TEMPORARY_SUFFIX)


def test_the_order_is_flush_rename_flush_of_the_folder(folder: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        fsync(handle)

    def noted_replace(source: str, target: str, **folders: int) -> None:
        events.append("rename")
        replace(source, target, **folders)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    folder.write("x.png", lambda file: None)
    assert events == ["file", "rename", "folder"]


def test_a_fault_while_filling_leaves_the_earlier_file_and_nothing_else(folder: OutputFolder) -> None:
    folder.write_text("x.txt", "old")

    def fail(file: BinaryIO) -> None:
        file.write(b"new")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        folder.write("x.txt", fail)
    assert files(folder.path) == ["x.txt"]
    assert (folder.path / "x.txt").read_text() == "old"


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "", ".", "a\0b.png", ".."])
def test_names_that_lead_out_are_refused(folder: OutputFolder, name: str, tmp_path: Path) -> None:
    with pytest.raises(ItemError) as caught:
        folder.write_text(name, "x")
    assert caught.value.code == "output_outside"
    assert files(tmp_path) == []


def test_links_that_lead_out_are_refused(folder: OutputFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder.path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("link/x.png", "link/deep/x.png"):
        with pytest.raises(ItemError) as caught:
            folder.write_text(name, "x")
        assert caught.value.code == "output_outside"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_in_place_of_the_file_is_replaced_not_followed(folder: OutputFolder, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep")
    (folder.path / "x.txt").symlink_to(tmp_path / "precious.txt")
    folder.write_text("x.txt", "new")
    assert (tmp_path / "precious.txt").read_text() == "keep"
    assert not (folder.path / "x.txt").is_symlink()


def test_names_that_the_file_system_refuses_fail_alone(folder: OutputFolder) -> None:
    folder.write_text("taken", "x")
    (folder.path / "folder.png").mkdir()
    for name in ("n" * 300 + ".png", "taken/x.png", "folder.png"):
        with pytest.raises(ItemError) as caught:
            folder.write_text(name, "x")
        assert caught.value.code == "output_name"
    assert files(folder.path) == ["taken"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ])
def test_a_name_that_the_disk_does_not_take_is_told_with_a_remedy(
    folder: OutputFolder, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(source: str, target: str, **handles: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ItemError) as caught:
        folder.write_text("what?.png", "x")
    assert str(caught.value) == (
        f"cannot write 'what?.png': {os.strerror(number)} (the disk of the output folder does not take this name: "
        "rename the picture, or use another disk with -o)"
    )
    assert files(folder.path) == []


def test_a_name_as_long_as_the_file_system_allows_works(folder: OutputFolder) -> None:
    name = "n" * 251 + ".png"
    assert folder.write_text(name, "x").name == name


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_faults_of_the_disk_concern_the_whole_run(folder: OutputFolder, number: int) -> None:
    def fail(file: BinaryIO) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError, match=r"cannot write 'x\.png'"):
        folder.write("x.png", fail)
    assert files(folder.path) == []


def test_an_error_of_pillow_concerns_the_item(folder: OutputFolder) -> None:
    def fail(file: BinaryIO) -> None:
        raise OSError("encoder error -2 when writing image file")

    with pytest.raises(ItemError) as caught:
        folder.write("x.png", fail)
    assert caught.value.code == "write_failed"


def test_nothing_is_written_before_prepare(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        OutputFolder(tmp_path).write_text("x", "x")


def refuse_hard_links(monkeypatch: pytest.MonkeyPatch, number: int = errno.EPERM) -> None:
    def refuse(*names: str, **folders: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_file_that_is_there_stays_unless_it_may_be_replaced(
    folder: OutputFolder, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    if not hard_links:
        refuse_hard_links(monkeypatch)
    folder.write_bytes("new.txt", b"x", may_replace=lambda: False)
    folder.write_bytes("new.txt", b"x", may_replace=lambda: False)  # the same content is no other file
    with pytest.raises(ItemError) as caught:
        folder.write_bytes("new.txt", b"y", may_replace=lambda: False)
    assert caught.value.code == "output_taken"
    assert (folder.path / "new.txt").read_bytes() == b"x"
    folder.write_bytes("new.txt", b"y", may_replace=lambda: True)
    assert (folder.path / "new.txt").read_bytes() == b"y"
    (folder.path / "link.txt").symlink_to("new.txt")
    with pytest.raises(ItemError):
        folder.write_bytes("link.txt", b"y", may_replace=lambda: False)
    assert files(folder.path) == ["link.txt", "new.txt"]


def test_a_disk_that_fails_a_link_concerns_the_whole_run(folder: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_hard_links(monkeypatch, errno.EIO)
    with pytest.raises(OutputError, match="Input/output error"):
        folder.write_bytes("x.txt", b"x", may_replace=lambda: False)
    assert files(folder.path) == []


def test_a_picture_is_removed_only_if_it_is_the_recorded_one(folder: OutputFolder) -> None:
    digest = hashlib.sha256(b"data").hexdigest()
    for name in ("a.png", "deep/b.png"):
        folder.write_bytes(name, b"data")
    assert not folder.remove_picture("a.png", 5, digest)
    assert not folder.remove_picture("a.png", 4, "0" * 64)
    assert not folder.remove_picture("gone/c.png", 4, digest)
    assert not folder.remove_picture("../a.png", 4, digest)
    assert folder.remove_picture("a.png", 4, digest)
    assert folder.remove_picture("deep/b.png", 4, digest)
    folder.remove("gone.txt")
    assert files(folder.path) == []


@pytest.mark.parametrize("text", ["[]", "no", '{"id": "a"}', ""])
def test_reports_of_other_programs_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "failed.jsonl").write_text(text)
    with pytest.raises(UsageError, match="not from joyedit"):
        OutputFolder(tmp_path).check()
    (tmp_path / "results.jsonl").touch()
    OutputFolder(tmp_path).check()
