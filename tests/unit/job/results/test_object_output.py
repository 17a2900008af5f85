"""An output on an object store: its records come to a machine and go back, whoever died where."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image

from joyedit.errors import OutputError, UsageError
from joyedit.job.own_files import RESULTS, UNFINISHED
from joyedit.job.results.journal import Journal
from joyedit.job.results.objects import remote_lock, uploader
from joyedit.job.results.objects import store as store_module
from joyedit.job.results.objects.names import ABOUT, IN_WORK, LOCK_OBJECT, Mark, segment_name, state_folder
from joyedit.job.results.objects.open_output import ObjectOutput
from joyedit.job.results.objects.reading import output_to_read, was_used
from joyedit.job.results.objects.remote_lock import RemoteLock
from joyedit.job.results.objects.store import ObjectStore
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.own_pictures import OwnPictures
from joyedit.job.results.picture_place import objects_of, pictures_of
from joyedit.job.results.recorded_outputs import RecordedOutputs
from joyedit.job.results.unfinished import Unfinished

MADE = b"PNG software joyedit 1 "
"""What a picture of joyedit holds."""


@pytest.fixture
def address() -> str:
    return f"memory://{secrets.token_hex(6)}/run"


@pytest.fixture
def store(address: str) -> ObjectStore:
    return ObjectStore(address, patience=0)


class Machine:
    """A machine with a state folder of its own."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.store = store
        self.folder = folder / "run"
        self.told: list[str] = []

    def open(self) -> ObjectOutput:
        return ObjectOutput(self.store.address, self.told.append, store=self.store, folder=self.folder)

    def record(self, name: str, data: bytes | None = None, **more: Any) -> None:
        """As a run does it: the picture, then its record."""
        data = MADE + name.encode() if data is None else data
        self.store.write(f"{name}.png", data)
        journal = Journal(self.folder)
        journal.append_again(line(name, len(data)) | more)
        journal.close()

    def ids(self) -> list[str]:
        if not (self.folder / RESULTS).exists():
            return []
        return [json.loads(one)["id"] for one in (self.folder / RESULTS).read_text().splitlines()]


def line(name: str, size: int = 0) -> dict[str, Any]:
    return {"id": name, "status": "ok", "output": f"{name}.png", "output_bytes": size, "error": None}


def uploaded(output: ObjectOutput) -> None:
    """What the thread does when it is time."""
    output.uploader._upload(output.uploader._new_records())


def die(output: ObjectOutput, *, forget: bool = False) -> None:
    """The driver is gone: nothing is uploaded, and its lock stays. With `forget`, its machine is gone, too."""
    output.uploader._ended.set()
    output.uploader._thread.join()
    output.lock._held = False
    output._stack.close()  # the system gives the lock of a dead process back
    if forget:
        shutil.rmtree(output.folder.parent)


@pytest.fixture
def one(store: ObjectStore, tmp_path: Path) -> Machine:
    return Machine(store, tmp_path / "one")


@pytest.fixture
def two(store: ObjectStore, tmp_path: Path) -> Machine:
    return Machine(store, tmp_path / "two")


def test_a_run_leaves_whole_files_and_another_machine_has_them(store: ObjectStore, one: Machine, two: Machine) -> None:
    with one.open() as output:
        one.record("a")
        uploaded(output)
        one.record("b")
        assert set(store.sizes()) == {"a.png", "b.png", ABOUT, LOCK_OBJECT, segment_name(0)}
        (one.folder / "report.json").write_text('{"state": "complete"}')
    assert set(store.sizes()) == {"a.png", "b.png", ABOUT, RESULTS, "report.json"}
    assert store.read(RESULTS) == (one.folder / RESULTS).read_bytes()
    with two.open():
        assert two.ids() == ["a", "b"]
        assert json.loads((two.folder / "report.json").read_bytes()) == {"state": "complete"}
        two.record("c")
    with one.open():
        assert one.ids() == ["a", "b", "c"]
    assert one.told == two.told == []


def test_another_machine_reads_the_segments_of_a_dead_one(store: ObjectStore, one: Machine, two: Machine) -> None:
    output = one.open().__enter__()
    for name in "abc":
        one.record(name)
        uploaded(output)
    one.record("lost")  # with the machine
    die(output, forget=True)
    assert RESULTS not in store.sizes()
    lock = json.loads(store.read(LOCK_OBJECT) or b"")
    with pytest.raises(OutputError, match=r"another run writes to memory://.* its last sign of life is"):
        two.open().__enter__()
    store.write(LOCK_OBJECT, json.dumps(lock | {"renewed": lock["renewed"] - 200}).encode())
    with two.open():
        assert two.ids() == ["a", "b", "c"]
    assert len(two.told) == 1
    assert two.told[0].startswith("took over the lock of process ")
    assert segment_name(0) not in store.sizes()


def test_the_same_machine_goes_on_at_once_and_has_all_records(store: ObjectStore, one: Machine) -> None:
    output = one.open().__enter__()
    one.record("a")
    uploaded(output)
    one.record("b")
    die(output)
    with (one.folder / RESULTS).open("ab") as file:
        file.write(b'{"id": "torn')
    with one.open():
        assert one.ids() == ["a", "b"]
    assert one.told == []
    assert [json.loads(one)["id"] for one in (store.read(RESULTS) or b"").splitlines()] == ["a", "b"]


def test_where_another_machine_went_on_its_records_count(store: ObjectStore, one: Machine, two: Machine) -> None:
    output = one.open().__enter__()
    one.record("a")
    uploaded(output)
    one.record("b")
    die(output)
    store.remove(LOCK_OBJECT)
    with two.open():
        two.record("c")
    with one.open():
        assert one.ids() == ["a", "c"]
    assert one.told == [f"another machine went on below {store.address}: records that only this one has are dropped"]


def test_an_emptied_prefix_is_a_new_one(store: ObjectStore, one: Machine) -> None:
    with one.open():
        one.record("a")
    for name in store.sizes():
        store.remove(name)
    with one.open():
        assert one.ids() == []


def test_a_driver_that_died_while_it_removed_segments(store: ObjectStore, one: Machine, two: Machine) -> None:
    output = one.open().__enter__()
    for name in "abc":
        one.record(name)
        uploaded(output)
    store.write(RESULTS, (one.folder / RESULTS).read_bytes())
    store.remove(segment_name(0))
    die(output, forget=True)
    store.remove(LOCK_OBJECT)
    with two.open():
        assert two.ids() == ["a", "b", "c"]


def test_a_missing_segment_is_told(store: ObjectStore, one: Machine, two: Machine) -> None:
    output = one.open().__enter__()
    for name in "ab":
        one.record(name)
        uploaded(output)
    die(output, forget=True)
    store.remove(LOCK_OBJECT)
    store.remove(segment_name(0))
    with pytest.raises(OutputError, match="records are missing, from byte 0 to"):
        two.open().__enter__()
    assert LOCK_OBJECT not in store.sizes()


def test_a_second_driver_is_refused(store: ObjectStore, one: Machine, two: Machine) -> None:
    with one.open():
        for machine in (one, two):
            with pytest.raises(OutputError, match=f"another run writes to {store.address}: process"):
                machine.open().__enter__()
        one.record("a")
    with two.open():
        assert two.ids() == ["a"]


def test_a_driver_whose_lock_was_taken_stops(
    store: ObjectStore, one: Machine, two: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader, "_TICK", 0.01)
    monkeypatch.setattr(remote_lock, "RENEW_SECONDS", 0.0)
    output = one.open().__enter__()
    lock = json.loads(store.read(LOCK_OBJECT) or b"")
    one.record("a")
    store.write(LOCK_OBJECT, json.dumps(lock | {"token": "another"}).encode())
    end = time.monotonic() + 30
    while output.uploader._thread.is_alive():  # it sees that, and stops
        assert time.monotonic() < end
        time.sleep(0.01)
    told = r"the lock of this run was taken away, process .* has it now"
    with pytest.raises(OutputError, match=told):
        output.uploader.claim({})
    with pytest.raises(OutputError, match=told):
        output.__exit__(None, None, None)
    assert RESULTS not in store.sizes()
    assert json.loads(store.read(LOCK_OBJECT) or b"")["token"] == "another"


def test_the_thread_uploads_after_some_records(
    store: ObjectStore, one: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader, "_TICK", 0.01)
    monkeypatch.setattr(uploader, "SEGMENT_RECORDS", 2)
    monkeypatch.setattr(uploader, "SEGMENT_SECONDS", 1000.0)
    with one.open():
        one.record("a")
        time.sleep(0.2)
        assert segment_name(0) not in store.sizes()
        one.record("b")
        end = time.monotonic() + 30
        while segment_name(0) not in store.sizes():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert (store.read(segment_name(0)) or b"").count(b"\n") == 2


def test_items_on_their_way_are_known_as_own_and_are_no_suspects(
    store: ObjectStore, one: Machine, two: Machine
) -> None:
    output = one.open().__enter__()
    one.record("old")
    uploaded(output)
    output.uploader.claim({"a": ("a.png", 0), "b": ("b.png", 0), "c": ("c.png", 1)})
    store.write("a.png", MADE)
    store.write("c.png", b"of somebody else")
    one.record("b")
    uploaded(output)  # b is no claim any more
    assert [item[0] for item in json.loads(store.read(IN_WORK) or b"")["items"]] == ["a", "b", "c"]
    output.uploader.claim({})
    assert [item[0] for item in json.loads(store.read(IN_WORK) or b"")["items"]] == ["a", "c"]
    die(output, forget=True)
    store.remove(LOCK_OBJECT)
    with two.open():
        journal, folder = Journal(two.folder), OutputFolder(two.folder)
        folder.prepare()
        before = Unfinished(folder, journal).before
        assert {name: (found.output, found.deaths) for name, found in before.items()} == {
            "a": ("a.png", 0),
            "c": ("c.png", 1),
        }
        own = OwnPictures(journal, RecordedOutputs(journal), two.folder, [one.output for one in before.values()])
        assert own.is_unfinished("a.png")
        assert not own.is_unfinished("c.png")
        journal.close()
        folder.close()
        two.record("c")
    assert [item[0] for item in json.loads(store.read(IN_WORK) or b"")["items"]] == ["a"]  # it has no record yet
    with one.open():
        one.record("a")
    assert IN_WORK not in store.sizes()


def test_claims_are_added_to_what_this_machine_knows(store: ObjectStore, one: Machine) -> None:
    output = one.open().__enter__()
    output.uploader.claim({"a": ("a.png", 0)})
    (one.folder / UNFINISHED).write_text('["start",0]\n["take",[["b","b.png",0]]]\n["look",1,["c"')
    die(output)
    with one.open():
        journal, folder = Journal(one.folder), OutputFolder(one.folder)
        folder.prepare()
        before = Unfinished(folder, journal).before
        assert {name: found.deaths for name, found in before.items()} == {"a": 0, "b": 1}
        journal.close()
        folder.close()


def test_the_states_of_pictures(store: ObjectStore, one: Machine, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "whole.png")
    store.write("whole.png", (tmp_path / "whole.png").read_bytes())
    store.write("torn.png", (tmp_path / "whole.png").read_bytes()[:40])
    store.write("a/b.png", MADE)
    with one.open():
        pictures = pictures_of(one.folder)
        assert pictures is objects_of(one.folder)
        assert pictures.address == store.address
        states = [
            pictures.state(name, {"output_bytes": size, "output_sha256": "x"}, trust=False)
            for name, size in (("a/b.png", len(MADE)), ("whole.png", 1), ("torn.png", 1), ("gone.png", 1))
        ]
        assert states == ["recorded", "changed", "lost", "lost"]
        assert pictures.has("a/b.png")
        assert pictures.is_taken("a/b.png")
        assert pictures.is_made_by_joyedit("a/b.png")
        assert not pictures.is_made_by_joyedit("whole.png")
        assert not pictures.is_made_by_joyedit("gone.png")
        assert sorted(path.name for path in one.folder.rglob("*.png")) == []  # nothing of them stays here
        assert pictures.file("a/b.png").read_bytes() == MADE
        doubted = {"output_bytes": len(MADE), "output_sha256": "of another content"}
        assert pictures.state("a/b.png", doubted, trust=False) == "lost"  # somebody asked whether it is joyedit's
        assert pictures.file("a/b.png").read_bytes() == MADE
        found = objects_of(one.folder)
        assert found is not None
        found.forget()
        assert not (one.folder / "a").exists()
        folder = OutputFolder(one.folder)
        pictures.remove_earlier(folder, {}, ("a/b.png", len(MADE), "another"))
        assert pictures.has("a/b.png")  # somebody changed it
        pictures.remove_earlier(folder, {}, ("a/b.png", len(MADE), hashlib.sha256(MADE).hexdigest()))
        assert not pictures.has("a/b.png")
        assert "a/b.png" not in store.sizes()


def test_a_folder_has_its_own_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(MADE)
    pictures = pictures_of(tmp_path)
    assert objects_of(tmp_path) is None
    assert pictures.has("a.png")
    assert not pictures.is_taken("b.png")
    assert pictures.file("a.png") == tmp_path / "a.png"
    assert pictures.free_name() == f"{tmp_path}-2"


def test_an_object_of_another_program_is_not_replaced(store: ObjectStore, one: Machine) -> None:
    store.write("report.json", b'{"mine": 1}')
    with pytest.raises(UsageError, match=f"{store.address}/report.json: this file is not from joyedit"):
        one.open().__enter__()
    assert set(store.sizes()) == {"report.json"}


def test_a_run_that_is_refused_leaves_nothing(store: ObjectStore, one: Machine) -> None:
    with pytest.raises(UsageError), one.open():
        raise UsageError("no")
    assert store.sizes() == {}


def test_a_journal_of_another_program_is_told_by_its_address(store: ObjectStore, one: Machine) -> None:
    store.write(RESULTS, b"not a record\n")
    with pytest.raises(UsageError, match=f"{store.address}/results.jsonl:1: this line is not a record"):
        one.open().__enter__()
    assert store.read(RESULTS) == b"not a record\n"


def test_an_output_that_is_only_read(store: ObjectStore, one: Machine, two: Machine) -> None:
    place = Path(store.address)
    with pytest.raises(UsageError, match=f"{store.address}: this is no output of joyedit"), output_to_read(place):
        pass
    with output_to_read(place, may_be_new=True) as (folder, holder):
        assert not (folder / RESULTS).exists()
        assert holder is None
    assert not was_used(store.address)
    with one.open() as output:
        one.record("a")
        uploaded(output)
        before = store.sizes()
        with output_to_read(place) as (folder, holder):
            assert holder is not None
            assert json.loads((folder / RESULTS).read_text())["id"] == "a"
            assert objects_of(folder) is not None
        assert not folder.exists()
        assert store.sizes() == before
    assert was_used(store.address)


def test_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JOYEDIT_STATE", str(tmp_path))
    found = state_folder("s3://bucket/a/b")
    assert found.is_relative_to(tmp_path / "objects")
    assert found.parent.name.startswith("s3-bucket-a-b-")
    assert found != state_folder("s3://bucket/a-b")
    monkeypatch.delenv("JOYEDIT_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_folder("s3://bucket/a").is_relative_to(tmp_path / "xdg" / "joyedit" / "objects")


def test_a_damaged_mark_is_none(tmp_path: Path) -> None:
    assert Mark.read(tmp_path) is None
    (tmp_path / ".joyedit.objects").write_text("[1]")
    assert Mark.read(tmp_path) is None


@pytest.mark.parametrize(
    "name", ["../out.png", "a/../../out.png", "results.jsonl", ".joyedit/lock.json", "/out.png", ""]
)
def test_a_record_of_somebody_else_leads_nowhere(store: ObjectStore, one: Machine, name: str) -> None:
    """The journal may have been written by anybody: nothing is fetched to, or removed from, another place."""
    with one.open():
        one.record("a")
        before = sorted(one.folder.parent.parent.rglob("*"))
        pictures = pictures_of(one.folder)
        files = fsspec.filesystem("memory")
        files.pipe_file(f"{store.address.removeprefix('memory:/')}/../out.png", MADE)
        assert pictures.state(name, {"output_bytes": len(MADE)}, trust=True) == "lost"
        assert not pictures.has(name)
        assert not pictures.file(name).exists()
        assert not pictures.is_made_by_joyedit(name)
        pictures.remove_earlier(OutputFolder(one.folder), {}, (name, len(MADE), hashlib.sha256(MADE).hexdigest()))
        assert sorted(one.folder.parent.parent.rglob("*")) == before
        assert one.ids() == ["a"]
    assert RESULTS in store.sizes()


def test_a_driver_that_died_with_nothing_but_the_lock(store: ObjectStore, one: Machine) -> None:
    output = one.open()
    output._take_locks()
    output.lock._held = False
    output._stack.close()
    assert LOCK_OBJECT in store.sizes()
    with one.open():
        one.record("a")
    assert one.told == []


def test_an_item_whose_record_came_after_its_claim_is_claimed_no_more(
    store: ObjectStore, one: Machine, two: Machine
) -> None:
    output = one.open().__enter__()
    output.uploader.claim({"a": ("a.png", 0), "b": ("b.png", 0)})
    one.record("a")
    uploaded(output)
    die(output, forget=True)
    store.remove(LOCK_OBJECT)
    with two.open():
        two.record("b")
    assert IN_WORK not in store.sizes()


def test_an_earlier_record_that_comes_late_ends_no_claim(store: ObjectStore, one: Machine, two: Machine) -> None:
    """The last records of a driver that died come to the store with the next run, which edits one of them again."""
    output = one.open().__enter__()
    one.record("a", status="failed", output=None, error={"code": "edit_failed", "message": ""})
    die(output)
    output = one.open().__enter__()
    output.uploader.claim({"a": ("a.png", 0)})
    uploaded(output)
    store.write("a.png", MADE)
    output.uploader.claim({})
    die(output, forget=True)
    store.remove(LOCK_OBJECT)
    with two.open():
        journal, folder = Journal(two.folder), OutputFolder(two.folder)
        folder.prepare()
        assert list(Unfinished(folder, journal).before) == ["a"]
        journal.close()
        folder.close()


def test_claims_hold_where_the_last_records_are_gone(store: ObjectStore, one: Machine, two: Machine) -> None:
    output = one.open().__enter__()
    one.record("old")
    die(output)
    output = one.open().__enter__()
    output.uploader.claim({"a": ("a.png", 0)})
    die(output, forget=True)  # with the record of `old`, which did not come to the store
    store.remove(LOCK_OBJECT)
    output = two.open().__enter__()
    two.record("a")
    uploaded(output)
    die(output, forget=True)
    store.remove(LOCK_OBJECT)
    with two.open():
        journal, folder = Journal(two.folder), OutputFolder(two.folder)
        folder.prepare()
        assert not Unfinished(folder, journal).before
        journal.close()
        folder.close()


def test_a_state_folder_without_locks_says_nothing_about_the_last_driver(
    store: ObjectStore, one: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several machines may share it, and the driver of one of them may be alive."""

    def none(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", none)
    with one.open(), pytest.raises(OutputError, match="another run writes to"):
        one.open().__enter__()


def test_many_segments_are_read_in_order(store: ObjectStore, one: Machine, two: Machine) -> None:
    output = one.open().__enter__()
    for number in range(12):
        one.record(f"{number}")
        uploaded(output)
    die(output, forget=True)
    store.remove(LOCK_OBJECT)
    with two.open():
        assert two.ids() == [f"{number}" for number in range(12)]


def test_of_two_drivers_that_take_over_one_goes_on(
    store: ObjectStore, one: Machine, two: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(one.open().__enter__(), forget=True)
    stale = json.loads(store.read(LOCK_OBJECT) or b"") | {"renewed": 0.0}
    store.write(LOCK_OBJECT, json.dumps(stale).encode())
    late = RemoteLock(store)

    def meanwhile(seconds: float) -> None:
        assert seconds == remote_lock.SETTLE_SECONDS
        late._write(is_new=False)  # it saw the stale lock in the same moment

    monkeypatch.setattr(remote_lock.time, "sleep", meanwhile)
    with pytest.raises(OutputError, match="the lock of this run was taken away"):
        two.open().__enter__()
    late.check()


def test_a_driver_that_loses_its_lock_at_the_end_changes_nothing_more(
    store: ObjectStore, one: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = one.open().__enter__()
    for name in "abc":
        one.record(name)
        uploaded(output)
    output.uploader.claim({"d": ("d.png", 0)})
    before = store.read(IN_WORK)
    monkeypatch.setattr(remote_lock, "RENEW_SECONDS", 0.0)
    monkeypatch.setattr(store_module, "_AT_ONCE", 1)
    remove = store.remove

    def remove_slowly(name: str) -> None:
        remove(name)
        lock = json.loads(store.read(LOCK_OBJECT) or b"")
        store.write(LOCK_OBJECT, json.dumps(lock | {"token": "another"}).encode())
        store.write(IN_WORK, b"of another driver")

    monkeypatch.setattr(store, "remove", remove_slowly)
    with pytest.raises(OutputError, match="the lock of this run was taken away"):
        output.__exit__(None, None, None)
    assert before is not None
    assert store.read(IN_WORK) == b"of another driver"
    assert sum(name.startswith(".joyedit/journal/") for name in store.sizes()) == 2


def test_local_copies_of_a_driver_that_died_go(store: ObjectStore, one: Machine) -> None:
    output = one.open().__enter__()
    for name in ("a", "deep/b"):
        one.record(name)
        assert pictures_of(one.folder).file(f"{name}.png").read_bytes() == MADE + name.encode()
    die(output)
    store.remove("a.png")
    with one.open():
        assert list(one.folder.rglob("*.png")) == []
        assert not pictures_of(one.folder).file("a.png").exists()
        assert one.ids() == ["a", "deep/b"]
