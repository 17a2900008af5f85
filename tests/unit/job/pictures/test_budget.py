"""The shared budget of decoding: who is admitted when, what is given back, and what the machine has."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.pictures import budget as module
from joyedit.job.pictures import machine_memory
from joyedit.job.pictures.budget import DecodeBudget, NobodyWaits, PlainCaller, Reading
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.machine_memory import available_bytes, total_bytes
from joyedit.job.pictures.memory import Need

GB = 1 << 30


class Watched(PlainCaller):
    """A caller that tells when it begins to wait, and that can be stopped."""

    def __init__(self) -> None:
        self.waits = threading.Event()
        self.stopped = False
        self.held: list[Callable[[], None]] = []

    def check(self) -> None:
        if self.stopped:
            raise NobodyWaits

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self.waits.set()
        yield

    def when_given_up(self, give_back: Callable[[], None]) -> None:
        self.held.append(give_back)


class Asking(threading.Thread):
    """A thread that asks for `need` bytes; `give_back` is there when it was admitted."""

    def __init__(self, budget: DecodeBudget, need: int) -> None:
        super().__init__(daemon=True)
        self.caller = Watched()
        self.give_back: Callable[[], None] | None = None
        self.error: Exception | None = None
        self._budget, self._need = budget, need
        self.start()

    def run(self) -> None:
        try:
            self.give_back = self._budget.admit("p", self._need, self.caller)
        except Exception as error:
            self.error = error


def test_pictures_share_the_budget_and_give_it_back_once() -> None:
    budget = DecodeBudget(100)
    first, second = (budget.admit("p", 50, PlainCaller()) for _ in range(2))
    assert budget.used == 100
    third = Asking(budget, 50)
    assert third.caller.waits.wait(60)
    assert third.give_back is None
    first()
    first()
    third.join(60)
    assert third.give_back is not None
    assert budget.used == 100
    second()
    third.give_back()
    assert budget.used == 0


def test_a_large_picture_is_not_overtaken() -> None:
    budget = DecodeBudget(100)
    small = budget.admit("p", 10, PlainCaller())
    large = Asking(budget, 100)
    assert large.caller.waits.wait(60)
    late = Asking(budget, 10)  # there is room for it
    assert late.caller.waits.wait(60)
    assert late.give_back is None
    small()
    large.join(60)
    assert large.give_back is not None
    assert late.give_back is None
    large.give_back()
    late.join(60)
    assert late.give_back is not None


def test_what_is_larger_than_the_budget_is_decoded_alone() -> None:
    budget = DecodeBudget(GB, lambda: 8 * GB)
    small = budget.admit("p", 10, PlainCaller())
    huge = Asking(budget, 5 * GB)
    assert huge.caller.waits.wait(60)
    assert huge.give_back is None
    small()
    huge.join(60)
    assert huge.give_back is not None
    after = Asking(budget, 10)
    assert after.caller.waits.wait(60)
    assert after.give_back is None
    huge.give_back()
    after.join(60)
    assert after.give_back is not None


def test_what_the_machine_cannot_hold_fails_its_item_and_no_other() -> None:
    budget = DecodeBudget(GB, lambda: 2 * GB)
    with pytest.raises(ItemError) as caught:
        budget.admit("a.tif", 5 * GB, PlainCaller())
    assert caught.value.code == "picture_too_large"
    assert str(caught.value).startswith(
        "a.tif: decoding it takes 5,368,709,120 bytes of memory, and 2,147,483,648 are available (make it smaller, or"
    )
    assert budget.used == 0
    budget.admit("p", 10, PlainCaller())()


def test_the_machine_is_asked_again_when_the_others_are_done() -> None:
    left = [GB]
    budget = DecodeBudget(4 * GB, lambda: left[0])
    small = budget.admit("p", 10, PlainCaller())
    large = Asking(budget, 2 * GB)  # within the budget, but not within what is available now
    assert large.caller.waits.wait(60)
    assert large.give_back is None
    left[0] = 3 * GB
    small()
    large.join(60)
    assert large.give_back is not None


@pytest.mark.parametrize("unknown", [True, False])
def test_where_the_system_tells_nothing_pictures_are_still_decoded(unknown: bool) -> None:
    DecodeBudget(10, lambda: None if unknown else GB).admit("p", 50 << 20, PlainCaller())()


def test_waiting_ends_when_nobody_waits_for_the_picture() -> None:
    budget = DecodeBudget(100)
    held = budget.admit("p", 100, PlainCaller())
    asking, behind = Asking(budget, 100), Asking(budget, 100)
    assert asking.caller.waits.wait(60)
    asking.caller.stopped = True
    asking.join(60)
    assert isinstance(asking.error, NobodyWaits)
    held()
    behind.join(60)
    assert behind.give_back is not None


def test_what_a_picture_holds_is_given_back_when_it_is_given_up() -> None:
    budget, caller = DecodeBudget(GB), Watched()
    with Reading(budget, caller) as reading:
        reading.admit("p", Need(peak=60, rgb=20, size=(2, 2)))
        assert budget.used == 60
        caller.held[0]()
        assert budget.used == 0
    assert budget.used == 0


def test_a_reading_counts_what_fitting_takes() -> None:
    budget = DecodeBudget(GB)
    with Reading(budget, bucket=(1024, 1024)) as reading:
        reading.admit("p", Need(peak=1000, rgb=400, size=(10, 10)))
        assert 2 * 4 * 1024 * 1024 < budget.used < 4 * 4 * 1024 * 1024


def test_a_picture_asks_before_a_pixel_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (3000, 2000)).save(tmp_path / "p.png")
    read: list[str] = []
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", lambda self: read.append("pixels"))
    with (
        Reading(DecodeBudget(10, lambda: 1000)) as reading,
        pytest.raises(ItemError, match=r"takes 3\d,\d{3},\d{3} bytes of memory, and 1,000 are available") as caught,
    ):
        load_picture(tmp_path / "p.png", reading=reading)
    assert caught.value.code == "picture_too_large"
    assert read == []


def test_the_shared_budget_is_given_back_after_each_picture(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "p.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "p.png").read_bytes()[:50])
    load_picture(tmp_path / "p.png")
    with pytest.raises(ItemError):
        load_picture(tmp_path / "bad.png")
    assert module.shared_budget().used == 0
    assert module.shared_budget().total >= module.LEAST


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 900 kB\nMemAvailable:   500 kB\n"}
V2 = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "34 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n36 31 0:32 {} /cg/memory rw - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 500 * 1024),
        ({"proc/self/cgroup": "nonsense\n0::\n", "proc/self/mountinfo": "x\n\n - \n - cgroup2\n"}, 500 * 1024),
        (  # its own group has no limit, the one above has; file cache can be dropped
            {
                "proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": V2,
                "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/memory.current": "7\n",
                "sys/fs/cgroup/a/memory.max": "90000\n", "sys/fs/cgroup/a/memory.current": "50000\n",
                "sys/fs/cgroup/a/memory.stat": "anon 9\ninactive_file 1000\n",
            },
            41_000,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/a\n0::/\n", "proc/self/mountinfo": V2 + V1.format("/"),
                "cg/memory/a/memory.limit_in_bytes": "70000\n", "cg/memory/a/memory.usage_in_bytes": "60000\n",
                "cg/memory/memory.limit_in_bytes": "9223372036854771712\n", "cg/memory/memory.usage_in_bytes": "1\n",
            },
            10_000,
        ),
        (  # a container sees its own group as the top
            {
                "proc/self/cgroup": "4:memory:/docker/abc\n", "proc/self/mountinfo": V1.format("/docker/abc"),
                "cg/memory/memory.limit_in_bytes": "70000\n", "cg/memory/memory.usage_in_bytes": "80000\n",
            },
            0,
        ),
    ],
)  # fmt: skip
def test_what_is_available_is_the_least_of_all_limits(tmp_path: Path, files: dict[str, str], left: int) -> None:
    assert available_bytes(machine(tmp_path, MEMINFO | files)) == left


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_limits_of_the_process_count(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = resource.getpagesize()
    root = machine(tmp_path, MEMINFO | {"proc/self/statm": "10 5 3 1 0 8 0\n"})
    limits = {getattr(resource, name): (20 * page, resource.RLIM_INFINITY)}
    none = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(machine_memory.resource, "getrlimit", lambda limit: limits.get(limit, none))
    assert available_bytes(root) == {"RLIMIT_AS": 10, "RLIMIT_DATA": 12}[name] * page


def test_this_machine_tells_what_is_available() -> None:
    left = available_bytes()
    assert left is None or left > 0


def test_the_memory_of_the_machine(tmp_path: Path) -> None:
    assert total_bytes(machine(tmp_path, MEMINFO)) == 900 * 1024
    groups = {
        "proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": V2,
        "sys/fs/cgroup/a/memory.max": "90000\n", "sys/fs/cgroup/a/memory.current": "50000\n",
    }  # fmt: skip
    assert total_bytes(machine(tmp_path, groups)) == 90_000


def test_memory_that_the_system_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(machine_memory.os, "sysconf", unknown)
    assert total_bytes(tmp_path) is None
