"""Addresses of object stores on the command line: where they are taken, and where they are refused with a remedy."""

from __future__ import annotations

import importlib.util
import json
import secrets
from pathlib import Path

import pytest
from cli_command import Command

from joyedit.job.results.objects.store import ObjectStore

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs joyedit[ray]")


@pytest.fixture(autouse=True)
def _manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOYEDIT_STATE", str(tmp_path / "state"))
    lines = [{"id": name, "instruction": f"Draw {name}."} for name in ("a", "b/c")]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def address(joyedit: Command, tmp_path: Path) -> str:
    """An output of two pictures on an object store, and the same one in the folder `out`."""
    ended = joyedit("run", "m.jsonl", "-m", "fake", "-o", "out", "-q", "--no-page", "--basesize", "256", "--steps", "1")
    assert ended.code == 0, ended.err
    address = f"memory://{secrets.token_hex(6)}/run"
    store = ObjectStore(address)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            store.upload(path.relative_to(tmp_path / "out").as_posix(), path)
    return address


def test_status_and_verify_read_an_address(joyedit: Command, address: str) -> None:
    there, here = joyedit("status", address), joyedit("status", "out")
    assert there == here
    assert there.code == 0
    there, here = joyedit("verify", address), joyedit("verify", "out")
    assert there == here
    assert there.out == "records 2, ok 2, failed 0, left 0, files 2, off 0\n"


def test_verify_reads_every_object(joyedit: Command, address: str) -> None:
    store = ObjectStore(address)
    data = store.read("a.png") or b""
    store.write("a.png", data[:-1] + b"x")
    store.remove("b/c.png")
    store.write("x/stray.png", b"theirs")
    ended = joyedit("verify", address)
    assert ended.code == 3
    told = ended.out.splitlines()
    assert [*sorted(told[:2]), *told[2:]] == [  # the records stand in the order in which the pictures were finished
        "missing_file: b/c: b/c.png: no such file",
        "wrong_content: a: a.png: the sha256 of the file differs from the recorded one",
        "stray_file: x/stray.png: no record names this file",
        "records 2, ok 2, failed 0, left 0, files 2, off 3",
    ]


def test_an_address_without_an_output(joyedit: Command) -> None:
    for command in ("status", "verify"):
        ended = joyedit(command, "memory://nothing/here")
        assert ended.code == 2
        assert ended.err == (
            "joyedit: error: memory://nothing/here: this is no output of joyedit (it has no results.jsonl)\n"
        )


@pytest.mark.parametrize("command", ["merge", "view", "export", "compare out"])
def test_what_reads_no_address(joyedit: Command, command: str) -> None:
    ended = joyedit(*command.split(), "s3://bucket/run")
    assert ended.code == 2
    assert f"s3://bucket/run: {command.split()[0]} takes a folder, and no address of an object store" in ended.err


def test_a_table_is_written_to_no_address(joyedit: Command, tmp_path: Path) -> None:
    ended = joyedit("export", "out", "-o", "s3://bucket/x.csv")
    assert ended.code == 2
    assert "s3://bucket/x.csv: export -o takes a file, and no address of an object store" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.jsonl"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("-o", "s3://bucket/run"), "-o s3://bucket/run: only --engine ray writes to an object store"),
        (("-o", "s3://bucket/run", "--shard", "1/2"), "-o s3://bucket/run: only --engine ray writes"),
        (("-o", "nosuch://bucket/run", "--engine", "ray"), "no package is known that reads and writes nosuch://"),
        (("-o", "memory://bucket/x.png", "--engine", "ray"), "one picture needs no cluster"),
        (("-o", "memory://", "--engine", "ray"), "names no place"),
        (("-o", "memory://b/run", "--engine", "ray", "--write", "webdataset"), "--write webdataset makes files in a"),
    ],
)
def test_a_run_that_is_refused(joyedit: Command, tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    ended = joyedit("run", "m.jsonl", "-m", "fake", *options)
    assert ended.code == 2
    assert told in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.jsonl"]


@needs_ray
def test_shards_are_refused_with_ray(joyedit: Command) -> None:
    ended = joyedit("run", "m.jsonl", "-m", "fake", "-o", "memory://b/run", "--engine", "ray", "--shard", "1/2")
    assert ended.code == 2
    assert "--shard divides a source over machines, and so does Ray" in ended.err


@needs_ray
def test_a_dry_run_reads_the_records_and_writes_nothing(joyedit: Command, address: str, tmp_path: Path) -> None:
    store = ObjectStore(address)
    before = store.sizes()
    run = ("run", "m.jsonl", "-m", "fake", "--basesize", "256", "--steps", "1", "--dry-run")
    there = joyedit(*run, "-o", address, "--engine", "ray")
    assert there.code == 0, there.err
    assert there.out == joyedit(*run, "-o", "out").out
    assert there.out.startswith("items 2, done 2, left 0,")
    assert store.sizes() == before
    assert not (tmp_path / "state").exists()


def test_a_file_address_is_a_folder(joyedit: Command, tmp_path: Path) -> None:
    run = ("run", "m.jsonl", "-m", "fake", "-q", "--no-page", "--basesize", "256", "--steps", "1")
    ended = joyedit(*run, "-o", f"file://{tmp_path}/shared")
    assert ended.code == 0, ended.err
    assert (tmp_path / "shared" / "b" / "c.png").is_file()
    assert joyedit("verify", f"file://{tmp_path}/shared").code == 0


def test_doctor_has_no_disk_to_look_at(joyedit: Command) -> None:
    ended = joyedit("doctor", "-o", "s3://bucket/run")
    assert ended.code == 2
    assert "s3://bucket/run: doctor -o takes a folder" in ended.err
