"""What a writer may replace on an object store, and what a reader fetches from there."""

from __future__ import annotations

import secrets
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from joyedit.errors import ItemError
from joyedit.job.results.objects.pictures import ObjectPictures
from joyedit.job.results.objects.store import ObjectStore
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import Batch, EditItem, Origin, Sampling, SizedItem
from joyedit.runtime.ray_engine.delivery import ObjectDelivery
from joyedit.runtime.ray_engine.earlier_results import EarlierResults
from joyedit.runtime.ray_engine.leaving import open_output
from joyedit.runtime.ray_engine.look import look
from joyedit.runtime.ray_engine.rows import LeftFile

MADE = b"PNG software joyedit 1"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(output=tmp_path / "state", objects=f"memory://{secrets.token_hex(6)}/run")


@pytest.fixture
def store(config: RunConfig) -> ObjectStore:
    assert config.objects is not None
    return ObjectStore(config.objects, patience=0)


def put(config: RunConfig, data: bytes, *, may_replace: bool = False) -> str:
    with open_output(config, frozenset({"a.png"} if may_replace else ())) as leave:
        return leave("a.png", memoryview(data))


def test_a_picture_has_its_final_name_at_once(config: RunConfig, store: ObjectStore) -> None:
    assert put(config, MADE) == ""
    assert store.sizes() == {"a.png": len(MADE)}


def test_a_task_that_ran_twice_replaces_its_own_picture(config: RunConfig, store: ObjectStore) -> None:
    put(config, MADE)
    put(config, MADE)
    put(config, MADE + b" of another GPU")
    assert store.read("a.png") == MADE + b" of another GPU"


def test_a_file_of_somebody_else_stays_unless_the_driver_says_otherwise(config: RunConfig, store: ObjectStore) -> None:
    store.write("a.png", b"theirs")
    with pytest.raises(ItemError) as error:
        put(config, MADE)
    assert error.value.code == "output_taken"
    assert store.read("a.png") == b"theirs"
    put(config, MADE, may_replace=True)
    assert store.read("a.png") == MADE


def test_no_picture_leads_out(config: RunConfig, store: ObjectStore) -> None:
    with open_output(config, frozenset()) as leave, pytest.raises(ItemError) as error:
        leave("../a.png", memoryview(MADE))
    assert error.value.code == "output_outside"
    assert store.sizes() == {}


def test_a_folder_gets_a_temporary_name(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with open_output(RunConfig(output=tmp_path / "out"), frozenset()) as leave:
        temporary = leave("a.png", memoryview(MADE))
    assert [one.name for one in (tmp_path / "out").iterdir()] == [temporary]


def test_a_reader_fetches_earlier_results_and_removes_them(config: RunConfig, store: ObjectStore) -> None:
    store.write("a/b.png", MADE)
    seen: list[Path] = []

    def read(path: Any, *more: Any) -> bytes:
        seen.append(path)
        return Path(path).read_bytes()

    own = config.output.parent / "own.png"
    own.write_bytes(b"input")
    with EarlierResults(config) as results:
        assert results.reading(read)(config.output / "a/b.png", 1) == MADE
        assert results.reading(read)(config.output / "a/b.png", 1) == MADE
        assert results.reading(read)(own, 1) == b"input"
        with pytest.raises(FileNotFoundError):
            results.reading(read)(config.output / "gone.png")
    assert seen[0] == seen[1]
    assert seen[0].name == "b.png"
    assert seen[2] == own
    assert not seen[0].exists()
    assert not config.output.exists()


def test_the_driver_claims_a_batch_and_says_what_may_be_replaced(config: RunConfig, store: ObjectStore) -> None:
    claimed: dict[str, tuple[str, int]] = {}
    uploader: Any = SimpleNamespace(claim=claimed.update, check=lambda: None)
    admission: Any = SimpleNamespace(
        in_work=SimpleNamespace(before={"b": SimpleNamespace(deaths=1)}),
        own=SimpleNamespace(names=lambda item: item.id == "b"),
    )
    pictures = ObjectPictures(store, config.output)
    delivery = ObjectDelivery(pictures, uploader, admission)
    items = [
        EditItem(
            id=name,
            images=(),
            instruction="Make it blue.",
            sampling=Sampling(),
            basesize=256,
            size=None,
            output=f"{name}.png",
            origin=Origin(file="m.jsonl"),
        )
        for name in "ab"
    ]
    batch = Batch(index=0, items=tuple(SizedItem(item=one, target=(256, 256), references=()) for one in items))
    assert delivery.before(batch) == {"b.png"}
    assert claimed == {"a": ("a.png", 0), "b": ("b.png", 1)}
    file = LeftFile(output="a.png", temporary="", bytes=3, sha256="x", inputs=(), all_inputs=(), drift=None, mask=None)
    assert not pictures.has("a.png")
    delivery.place(file, lambda: False)
    assert pictures.has("a.png")


def test_a_machine_that_sees_another_store(config: RunConfig, store: ObjectStore) -> None:
    assert config.objects is not None
    other = look(config.objects, b"token", (), {}).faults
    assert other == (f"{config.objects} is another place there: it lacks the lock of this run",)
    store.write(".joyedit/lock.json", b'{"token": "token"}')
    assert look(config.objects, b"token", (), {}).faults == ()
