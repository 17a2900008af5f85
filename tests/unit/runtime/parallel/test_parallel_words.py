"""What ranks tell each other: outcomes, the links, and what rank 0 hears while it is busy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from joyedit.errors import CheckpointError, ItemError, UsageError
from joyedit.runtime.parallel import links as links_module
from joyedit.runtime.parallel.layout import Layout
from joyedit.runtime.parallel.links import Links, link_to_first
from joyedit.runtime.parallel.outcome import OK, Outcome
from joyedit.runtime.parallel.place import Place
from joyedit.runtime.parallel.watch import Watch
from joyedit.runtime.protocol import GroupLost, OutOfMemory


def place(folder: Path, rank: int, world: int = 3, timeout: float = 60.0) -> Place:
    return Place(rank=rank, layout=Layout(sequence=world), folder=folder, timeout=timeout)


@contextmanager
def linked(folder: Path, world: int = 3, timeout: float = 60.0) -> Iterator[tuple[Links, list[Connection]]]:
    """Rank 0's links, and the other sides of them, which come in the wrong order."""
    found: dict[int, Connection] = {}
    others = [
        threading.Thread(target=lambda r=rank: found.update({r: link_to_first(place(folder, r, world))}))  # type: ignore[misc]
        for rank in reversed(range(1, world))
    ]
    for other in others:
        other.start()
    links = Links.to_all(place(folder, 0, world, timeout))
    for other in others:
        other.join()
    try:
        yield links, [found[rank] for rank in sorted(found)]
    finally:
        links.close()
        for connection in found.values():
            connection.close()


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (OutOfMemory("no room"), OutOfMemory, "rank 2: no room"),
        (CheckpointError("a hole"), CheckpointError, "rank 2: a hole"),
        (UsageError("not so"), UsageError, "rank 2: not so"),
        (ItemError("instruction_too_long", "too long"), ItemError, "too long"),
        (GroupLost("gone"), Exception, "rank 2: gone"),
        (ValueError("a bug\nin two lines"), RuntimeError, r"rank 2: a bug \(ValueError\)"),
    ],
)
def test_an_error_as_another_rank_raises_it(error: Exception, expected: type[Exception], words: str) -> None:
    outcome = Outcome.of(error)
    assert outcome != OK
    assert outcome.is_out_of_memory == isinstance(error, OutOfMemory)
    made = outcome.error(2)
    with pytest.raises(expected, match=f"^{words}$"):
        raise made if made is not None else AssertionError
    assert getattr(made, "code", "") == getattr(error, "code", "")


def test_no_error() -> None:
    assert OK.error(1) is None


def test_words_come_by_rank(tmp_path: Path) -> None:
    with linked(tmp_path) as (links, others):
        links.tell("to all")
        assert [other.recv() for other in others] == ["to all"] * 2
        others[1].send("two")
        others[0].send("one")
        assert links.hear() == ["one", "two"]
        links.close()
        for other in others:
            with pytest.raises(EOFError):
                other.recv()


def test_a_rank_that_is_gone(tmp_path: Path) -> None:
    with linked(tmp_path) as (links, others):
        others[0].send("one")
        others[1].close()
        with pytest.raises(GroupLost, match="the process of rank 2 of the group is gone"):
            links.hear()
        with pytest.raises(GroupLost, match="rank 2"):
            links.tell("more")


def test_a_rank_that_says_nothing(tmp_path: Path) -> None:
    with linked(tmp_path, timeout=0.1) as (links, others):
        others[0].send("one")
        with pytest.raises(GroupLost, match="rank 2 of the group does not answer"):
            links.hear()


def test_ranks_that_do_not_come(tmp_path: Path) -> None:
    with pytest.raises(GroupLost, match="rank 1, 2 of the group did not come"):
        Links.to_all(place(tmp_path, 0, timeout=0.05))
    (tmp_path / links_module.ADDRESS).unlink()
    with pytest.raises(GroupLost, match="rank 0 of the group did not come"):
        link_to_first(place(tmp_path, 1, timeout=0.05))


def test_a_rank_that_ends_before_it_says_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def come_and_go() -> None:
        connection = links_module.Client((tmp_path / links_module.ADDRESS).read_text(encoding="utf-8"), "AF_UNIX")
        connection.close()

    listening = links_module._accepted
    monkeypatch.setattr(links_module, "_accepted", lambda *given: come_and_go() or listening(*given))
    with pytest.raises(GroupLost, match="ended before all were there"):
        Links.to_all(place(tmp_path, 0))


def test_a_long_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path has to be short."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(links_module.tempfile, "tempdir", str(long))
    with linked(tmp_path, world=2) as (links, others):
        links.tell(1)
        assert others[0].recv() == 1
    assert list(long.iterdir()) == []


def test_a_watch_over_ranks_that_do_well(tmp_path: Path) -> None:
    broken: list[int] = []
    with linked(tmp_path) as (links, others):
        watch = Watch(links, 2, lambda: broken.append(1))
        for other in others:
            other.send(OK)
        assert watch.failed() is None
        assert watch.why() is None
    assert broken == []


@pytest.mark.parametrize("how", ["fails", "goes"])
def test_a_watch_does_not_wait_for_the_others(how: str, tmp_path: Path) -> None:
    broken: list[int] = []
    with linked(tmp_path) as (links, others):
        watch = Watch(links, 2, lambda: broken.append(1))
        if how == "fails":
            others[1].send(Outcome.of(OutOfMemory("no room")))
        else:
            others[1].close()
        error = watch.failed()
        assert isinstance(error, OutOfMemory if how == "fails" else GroupLost)
        assert "rank 2" in str(error)
        assert str(watch.why()) == str(error)
    assert broken == [1]


def test_a_watch_that_is_stopped(tmp_path: Path) -> None:
    with linked(tmp_path) as (links, others):
        watch = Watch(links, 2, lambda: None)
        others[0].send(OK)
        assert watch.why() is None
