"""The feed of planned batches: in order, bounded, the same when it is read again. Without Ray."""

from __future__ import annotations

import asyncio

from joyedit.runtime.ray_engine.feed import MOST_BEGUN, Feed


def test_batches_come_in_order_and_again() -> None:
    async def all_of_it() -> None:
        feed = Feed(9)
        assert [await feed.put(b"%d" % number) for number in range(3)] == [True] * 3
        await feed.end()
        assert [await feed.get(number) for number in range(4)] == [b"0", b"1", b"2", None]
        await feed.over(1)
        assert [await feed.get(number) for number in range(4)] == [b"0", b"", b"2", None]

    asyncio.run(all_of_it())


def test_the_planner_waits_for_outcomes() -> None:
    async def all_of_it() -> None:
        feed = Feed(2)
        for number in range(2):
            await feed.put(b"%d" % number)
        waiting = asyncio.ensure_future(feed.put(b"more"))
        await asyncio.sleep(0)
        assert await feed.get(0) == b"0"  # that makes no room: it may be asked for again
        assert not waiting.done()
        await feed.over(1)
        assert await waiting
        waiting = asyncio.ensure_future(feed.put(b"still more"))
        await asyncio.sleep(0)
        assert not waiting.done()
        await feed.stop()
        assert not await waiting

    asyncio.run(all_of_it())


def test_a_reader_waits_for_the_planner_and_hears_of_the_end() -> None:
    async def all_of_it() -> None:
        feed = Feed(9)
        waiting = asyncio.ensure_future(feed.get(0))
        await asyncio.sleep(0)
        assert not waiting.done()
        await feed.put(b"0")
        assert await waiting == b"0"
        waiting = asyncio.ensure_future(feed.get(1))
        await asyncio.sleep(0)
        await feed.stop()
        assert await waiting is None
        assert await feed.is_stopped()

    asyncio.run(all_of_it())


def test_a_batch_with_which_an_actor_died_is_not_begun_again() -> None:
    async def all_of_it() -> None:
        feed = Feed(9)
        assert await feed.begin("edit", 0) == "begin"
        assert await feed.begin("edit", 1) == "begin"
        await feed.ended("edit", 1)
        assert await feed.begin("edit", 0) == "died"
        assert await feed.begin("edit", 1) == "begin"  # it was done, and what came of it got lost
        assert [await feed.begin("read", 0) for _ in range(MOST_BEGUN["read"] + 1)] == ["begin"] * 2 + ["died"]
        await feed.stop()
        assert await feed.begin("edit", 2) == "stopped"

    asyncio.run(all_of_it())
