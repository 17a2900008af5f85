"""The identity of a checkpoint's folder, whatever lies in the folder; it stays what it was for an ordinary one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from joyedit.errors import CheckpointError, JoyeditError, UsageError
from joyedit.job.run_config import RunConfig
from joyedit.runtime import model
from joyedit.runtime.model import describe_without_loading, folder_identity
from joyedit.weights import regular_files
from joyedit.weights.defaults import local_folder, nano_folder
from support.hostile import KINDS, linked_copy, put, put_kind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return linked_copy(nano_folder(), tmp_path / "checkpoint")


def test_links_to_files_do_not_change_the_identity(folder: Path) -> None:
    assert folder_identity(folder) == folder_identity(nano_folder())


def test_the_identity_is_that_of_earlier_releases(tmp_path: Path) -> None:
    """Or every picture of an earlier run would be edited again."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.json").write_text("{}")
    (tmp_path / "b-c").write_text("1")
    (tmp_path / ".hidden").write_text("2")
    wanted = hashlib.sha256()
    for name, text in (("b/x.json", "{}"), ("b-c", "1")):
        of_file = hashlib.sha256(f"{len(text)}\0{text}".encode()).hexdigest()
        wanted.update(f"{name}\0{of_file}\n".encode())
    assert folder_identity(tmp_path) == wanted.hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_has_no_part_in_the_identity(folder: Path, kind: str) -> None:
    before = folder_identity(folder)
    put_kind(folder / "extra", kind)
    assert folder_identity(folder) == before


def test_names_that_are_not_utf_8(folder: Path) -> None:
    before = folder_identity(folder)
    put(folder / os.fsdecode(b"\xff\xfe.json"), "{}")
    assert folder_identity(folder) != before
    put(folder / "line\nbreak\x1b[31m", "{}")
    assert len(folder_identity(folder)) == 64


def test_folders_that_link_to_each_other(folder: Path) -> None:
    before = folder_identity(folder)
    (folder / "transformer" / "loop").symlink_to(folder)
    (folder / "again").symlink_to(folder / "vae")
    (folder / "here").symlink_to(".")
    assert folder_identity(folder) == before


def test_what_lies_behind_a_linked_folder_counts(folder: Path, tmp_path: Path) -> None:
    (folder / "vae").rename(tmp_path / "elsewhere")
    (folder / "vae").symlink_to(tmp_path / "elsewhere")
    before = folder_identity(folder)
    assert before == folder_identity(nano_folder())
    put(tmp_path / "elsewhere" / "config.json", "{}")
    assert folder_identity(folder) != before


def test_more_files_than_a_checkpoint_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular_files, "MOST_FILES", 100)
    for number in range(60):
        put(folder / "vae" / f"{number}", "")
        put(folder / "transformer" / f"{number}", "")
    with pytest.raises(CheckpointError, match="holds more than 100 files; give the folder of the checkpoint alone"):
        folder_identity(folder)
    for number in range(60, 120):
        put(folder / "vae" / f"{number}", "")
    with pytest.raises(CheckpointError, match="vae: holds more than 100 files"):
        folder_identity(folder)


@pytest.mark.parametrize("call", ["open", "stat", "scandir"])
def test_what_the_system_does_not_give(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    real = getattr(os, call)

    def refuse(path: object, *rest: object, **options: object) -> object:
        if "vae" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **options)

    monkeypatch.setattr(regular_files.os, call, refuse)
    with pytest.raises(CheckpointError, match=r"vae.*: cannot be read \(Permission denied\)"):
        folder_identity(folder)


def test_a_file_that_becomes_a_pipe_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe takes the name between the look at it and the opening, which does not wait for a writer."""
    put(tmp_path / "config.json", "{}")
    real = regular_files.is_there

    def exchanged(path: Path) -> bool:
        found = real(path)
        put_kind(path, "pipe")
        return found

    monkeypatch.setattr(regular_files, "is_there", exchanged)
    with pytest.raises(CheckpointError, match=r"config\.json: is a pipe, not a regular file"):
        regular_files.read_object(tmp_path / "config.json")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["model_index.json", "scheduler/scheduler_config.json"])
def test_what_can_be_said_without_loading(folder: Path, name: str, kind: str) -> None:
    put_kind(folder / name, kind)
    with pytest.raises(CheckpointError, match=f"{name}: "):
        describe_without_loading(RunConfig(output=Path("out"), model=str(folder)))


def test_a_folder_that_is_described(folder: Path) -> None:
    config = RunConfig(output=Path("out"), model=str(folder))
    info = describe_without_loading(config)
    assert (info.layout, info.schedule, info.identity) == ("diffusers", "diffusers", folder_identity(nano_folder()))
    assert model.model_identity(info, config) == info.identity


@pytest.mark.parametrize(
    "name",
    ["a\0b", "x" * 5000, "/" + "x" * 300, "~nobody-of-this-name/x", "\x1b[31m", "a/b\x1b[31m/c", "\udcff", "/dev/null"],
)
def test_model_names_that_stand_for_nothing(name: str) -> None:
    with pytest.raises(JoyeditError) as caught:
        assert local_folder(name) is not None
    assert isinstance(caught.value, UsageError)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "folder"])
def test_a_model_that_is_no_folder(tmp_path: Path, kind: str) -> None:
    put_kind(tmp_path / "x", kind)
    with pytest.raises(UsageError, match="is no folder; give the checkpoint's folder"):
        local_folder(str(tmp_path / "x"))


@pytest.mark.parametrize("device", ["mps", "cpu"])
def test_operations_that_an_apple_gpu_lacks_run_on_the_cpu(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    model.let_missing_operations_run_on_the_cpu(device)
    assert os.environ.pop("PYTORCH_ENABLE_MPS_FALLBACK", None) == ("1" if device == "mps" else None)
