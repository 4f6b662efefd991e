"""Kept batches are the batches, and there are never more of them than may be."""

from __future__ import annotations

import pyarrow as pa

from timedb.storage.memory.cache import Cache, CachedFiles
from timedb.storage.read.batch_cache import BatchCache


def batches(*numbers: int) -> list[pa.RecordBatch]:
    """Batches that take 2300 bytes each, 800 of them values."""
    return [pa.record_batch({"n": pa.array([number] * 100, pa.int64())}) for number in numbers]


def cache_of(most: int) -> BatchCache:
    """A cache of its own."""
    return BatchCache(CachedFiles(Cache(most), "a tenant"))


def test_what_was_taken_to_the_end_is_kept() -> None:
    cache = cache_of(20_000)
    assert list(cache.keep("a", ["n"], batches(1, 2))) == batches(1, 2)
    assert cache.get("a", ["n"]) == batches(1, 2)
    half = cache.keep("b", ["n"], batches(3, 4))
    next(half)
    half.close()  # type: ignore[attr-defined]  # a generator, which the interface does not promise
    assert cache.get("b", ["n"]) is None


def test_what_was_asked_for_longest_ago_goes_first() -> None:
    cache = cache_of(9200)
    for name, number in (("a", 1), ("b", 2), ("c", 3), ("d", 4)):
        list(cache.keep(name, ["n"], batches(number)))
    assert cache.get("a", ["n"]) == batches(1)
    list(cache.keep("e", ["n"], batches(5)))
    assert {name: cache.get(name, ["n"]) is not None for name in "abcde"} == {
        "a": True,
        "b": False,
        "c": True,
        "d": True,
        "e": True,
    }


def test_what_is_too_large_passes_through_and_is_not_kept() -> None:
    for room in (0, 9000):
        cache = cache_of(room)
        assert list(cache.keep("a", ["n"], batches(1))) == batches(1)
        assert cache.get("a", ["n"]) is None


def test_the_same_key_twice_counts_once() -> None:
    cache = cache_of(9200)
    first, second = (cache.keep("a", ["n"], batches(1)) for _ in range(2))
    assert list(first) == list(second)
    for name in "bcd":
        list(cache.keep(name, ["n"], batches(2)))
    assert cache.get("a", ["n"]) == batches(1)


def test_what_is_gone_is_forgotten_and_does_not_come_back() -> None:
    space = Cache(9200)
    mine, other = CachedFiles(space, "one"), CachedFiles(space, "another")
    for files in (mine, other):
        list(BatchCache(files).keep("a", ["n"], batches(1)))
    began_before = BatchCache(mine).keep("b", ["n"], batches(2))
    mine.forget(["a", "b"])
    assert list(began_before) == batches(2)
    assert (BatchCache(mine).get("a", ["n"]), BatchCache(mine).get("b", ["n"])) == (None, None)
    assert BatchCache(other).get("a", ["n"]) == batches(1)
    assert (space.entries, space.held) == (1, 2300)
