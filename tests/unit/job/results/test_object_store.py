"""One place on an object store: objects are whole or not there, and errors are plain."""

from __future__ import annotations

import errno
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import infer_storage_options

from joyedit.errors import ItemError, OutputError
from joyedit.job.results.objects import store as store_module
from joyedit.job.results.objects.store import PATIENCE_VARIABLE, ObjectStore


class Folder:
    """A place without a PUT: the folder of a test as fsspec's local files."""

    @staticmethod
    def open(folder: Path) -> ObjectStore:
        files = fsspec.filesystem("file")
        return ObjectStore(f"file://{folder}/objects", patience=0, files=files)


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "file":
        return Folder.open(tmp_path)
    return ObjectStore(f"memory://{secrets.token_hex(4)}/run", patience=0)


def test_objects_come_and_go(store: ObjectStore, tmp_path: Path) -> None:
    assert store.sizes() == {}
    assert store.read("a/b.png") is None
    store.write("a/b.png", b"picture")
    store.write("c.png", memoryview(b"other"))
    assert store.sizes() == {"a/b.png": 7, "c.png": 5}
    assert store.read("a/b.png") == b"picture"
    assert store.download("a/b.png", tmp_path / "x" / "y.png")
    assert (tmp_path / "x" / "y.png").read_bytes() == b"picture"
    assert not store.download("gone.png", tmp_path / "gone.png")
    assert sorted(one.name for one in tmp_path.rglob("*.png")) == sorted(
        ["y.png", *(["b.png", "c.png"] if store.address.startswith("file") else [])]
    )
    store.remove("a/b.png")
    store.remove("a/b.png")
    assert list(store.sizes()) == ["c.png"]


def test_a_new_object_replaces_nothing(store: ObjectStore) -> None:
    store.write("a.png", b"first", is_new=True)
    with pytest.raises(FileExistsError):
        store.write("a.png", b"second", is_new=True)
    assert store.read("a.png") == b"first"
    store.write("a.png", b"third")
    assert store.read("a.png") == b"third"
    assert list(store.sizes()) == ["a.png"]


def test_a_file_is_uploaded(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b"{}\n")
    store.upload("results.jsonl", tmp_path / "results.jsonl")
    assert store.read("results.jsonl") == b"{}\n"


def test_many_objects_at_once(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, whichever answer comes first. A long run leaves thousands of segments."""
    names = [f"journal/{number:03}" for number in range(150)]
    for name in names[::2]:
        store.write(name, name.encode())
    together, read = threading.Barrier(4), store.read

    def waiting(name: str) -> bytes | None:
        if name in names[:4]:  # nobody comes through before four are there
            together.wait(30)
        return read(name)

    monkeypatch.setattr(store, "read", waiting)
    expected = [None if number % 2 else name.encode() for number, name in enumerate(names)]
    assert list(store.read_each(names)) == expected
    told: list[int] = []
    store.remove_each(names, lambda: told.append(len(store.sizes())))
    assert store.sizes() == {}
    assert len(told) == len(names)


def test_an_error_of_one_of_many_is_told(store: ObjectStore) -> None:
    store.write("a", b"1")
    with pytest.raises(ItemError):
        list(store.read_each(["a", "../b", "c"]))


@pytest.mark.parametrize("name", ["*.png", "a[b].png", "what?.png", "a b#c.png", "ä/日本.png"])
def test_names_are_taken_as_they_are(store: ObjectStore, name: str) -> None:
    store.write("other.png", b"other")
    store.write(name, b"picture", is_new=True)
    assert store.read(name) == b"picture"
    store.remove(name)
    assert list(store.sizes()) == ["other.png"]


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../../b.png", ""])
def test_no_name_leads_out(store: ObjectStore, name: str) -> None:
    for do in (lambda: store.write(name, b"x"), lambda: store.read(name), lambda: store.remove(name)):
        with pytest.raises(ItemError) as error:
            do()
        assert error.value.code == "output_outside"


class NoCredentialsError(Exception):
    """As botocore has it."""


def failing(error: Exception, times: int = 10**6) -> tuple[Any, list[int]]:
    """Files of memory, whose writes and reads fail so often."""
    files = fsspec.filesystem("memory", skip_instance_cache=True, token=secrets.token_hex(4))
    count = [0]

    def wrapped(do: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            count[0] += 1
            if count[0] <= times:
                raise error
            return do(*args, **named)

        return call

    files.pipe_file = wrapped(files.pipe_file)
    return files, count


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError("Access Denied"), "credentials must allow"),
        (NoCredentialsError("Unable to locate credentials"), "there are no credentials"),
        (FileNotFoundError("The specified bucket does not exist"), "make the bucket first"),
        (OSError(errno.ENOSPC, "No space left on device"), "make room"),
        (OSError("QuotaExceeded: the quota of this bucket is used up"), "make room"),
        (ValueError("strange"), "cannot write 'a.png': strange"),
    ],
)
def test_what_waiting_does_not_mend_is_told_at_once(error: Exception, told: str) -> None:
    files, count = failing(error)
    with pytest.raises(OutputError) as found:
        ObjectStore("memory://x/y", patience=1000, files=files).write("a.png", b"1")
    assert told in str(found.value)
    assert str(found.value).startswith("memory://x/y: ")
    assert count == [1]


def test_a_network_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(store_module.time, "sleep", waited.append)
    files, count = failing(ConnectionError("away"), times=4)
    place = f"memory://{secrets.token_hex(4)}/y"
    store = ObjectStore(place, patience=1000, files=files)
    store.write("a.png", b"1")
    assert count == [5]
    assert waited == [0.5, 1.0, 2.0, 4.0]
    assert store.read("a.png") == b"1"


def test_a_network_that_stays_away_is_told_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "0.1")
    files, _ = failing(ConnectionError("away"))
    with pytest.raises(OutputError, match=r"cannot write 'a.png': away \(tried for 0.1 s; when the store answers"):
        ObjectStore("memory://x/y", files=files).write("a.png", b"1")


def test_an_answer_that_was_lost_is_no_other_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module.time, "sleep", lambda seconds: None)
    files = fsspec.filesystem("memory", skip_instance_cache=True, token=secrets.token_hex(4))
    write, tries = files.pipe_file, []

    def put(path: str, data: bytes, mode: str = "overwrite") -> None:
        tries.append(mode)
        write(path, data, mode=mode)
        if len(tries) == 1:
            raise ConnectionError("the answer did not come")

    files.pipe_file = put
    store = ObjectStore(f"memory://{secrets.token_hex(4)}/y", patience=1000, files=files)
    store.write("a.png", b"1", is_new=True)
    assert tries == ["create", "create"]


def test_a_name_that_the_store_does_not_take_concerns_one_item(store: ObjectStore) -> None:
    def refuse(*args: Any, **named: Any) -> None:
        raise OSError(errno.ENAMETOOLONG, "Your key is too long")

    store._files  # noqa: B018 - connects
    store._given = type("Refusing", (), {"__getattr__": lambda self, name: refuse, "_strip_protocol": str})()
    with pytest.raises(ItemError, match=r"cannot read 'a.png': the store takes no name of this length") as caught:
        store.read("a.png")
    assert caught.value.code == "output_name"


def test_a_name_with_a_version_would_be_another_object() -> None:
    store = ObjectStore("s3://bucket/run", patience=0, files=fsspec.filesystem("memory"))
    with pytest.raises(ItemError, match=r"cannot have 'a.jpg\?versionId=1.png'") as caught:
        store.write("a.jpg?versionId=1.png", b"x")
    assert caught.value.code == "output_name"


class OnServer(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store whose address names its server. It takes no options but those of the connection, as sftp does."""

    protocol = "onserver"

    def __init__(self, host: str, username: str) -> None:
        super().__init__()
        self.who = (host, username)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return infer_storage_options(path)["path"]

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        found = infer_storage_options(path)
        return {name: found[name] for name in ("host", "username")}


def test_an_address_with_a_server(tmp_path: Path) -> None:
    fsspec.register_implementation("onserver", OnServer, clobber=True)
    store = ObjectStore(f"onserver://me@machine{tmp_path}/run", patience=0)
    store.write("a/b.png", b"picture")
    assert store.sizes() == {"a/b.png": 7}
    assert store.read("a/b.png") == (tmp_path / "run/a/b.png").read_bytes() == b"picture"
    assert store._files.who == ("machine", "me")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: store._files).result() is not store._files  # a connection is for one thread
