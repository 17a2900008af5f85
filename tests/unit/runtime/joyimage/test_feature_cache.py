"""The content cache: what it keeps, what it drops, and that it never keeps too much."""

from __future__ import annotations

import torch

from joyedit.runtime.joyimage.feature_cache import ContentCache


def block(megabytes: int) -> torch.Tensor:
    return torch.zeros(megabytes * 2**20, dtype=torch.uint8)


def test_an_entry_is_made_once() -> None:
    cache = ContentCache(10 * 2**20)
    first = cache.get("a", lambda: block(1))
    assert cache.get("a", lambda: block(1)) is first
    assert (cache.hits, cache.misses) == (1, 1)


def test_the_entry_used_longest_ago_goes_first() -> None:
    cache = ContentCache(3 * 2**20)
    for key in "abc":
        cache.get(key, lambda: block(1))
    cache.get("a", lambda: block(1))
    cache.get("d", lambda: block(1))
    assert cache.nbytes == 3 * 2**20
    made: list[str] = []
    for key in "acd":
        cache.get(key, lambda key=key: made.append(key) or block(1))  # type: ignore[misc, func-returns-value]
    assert made == []
    cache.get("b", lambda: made.append("b") or block(1))  # type: ignore[func-returns-value]
    assert made == ["b"]


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache = ContentCache(2 * 2**20)
    cache.get("small", lambda: block(1))
    cache.get("large", lambda: block(3))
    assert len(cache) == 1
    assert cache.nbytes == 2**20
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)
