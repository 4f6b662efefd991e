"""Kept batches are the batches, and there are never more of them than may be."""

from __future__ import annotations

import pyarrow as pa

from timedb.storage.read.batch_cache import BatchCache


def batches(*numbers: int) -> list[pa.RecordBatch]:
    """Batches that take 2300 bytes each, 800 of them values."""
    return [pa.record_batch({"n": pa.array([number] * 100, pa.int64())}) for number in numbers]


def test_what_was_taken_to_the_end_is_kept() -> None:
    cache = BatchCache(20_000)
    assert list(cache.keep(("a",), batches(1, 2))) == batches(1, 2)
    assert cache.get(("a",)) == batches(1, 2)
    half = cache.keep(("b",), batches(3, 4))
    next(half)
    half.close()  # type: ignore[attr-defined]  # a generator, which the interface does not promise
    assert cache.get(("b",)) is None


def test_what_was_asked_for_longest_ago_goes_first() -> None:
    cache = BatchCache(9200)
    for name, number in (("a", 1), ("b", 2), ("c", 3), ("d", 4)):
        list(cache.keep((name,), batches(number)))
    assert cache.get(("a",)) == batches(1)
    list(cache.keep(("e",), batches(5)))
    assert {name: cache.get((name,)) is not None for name in "abcde"} == {
        "a": True,
        "b": False,
        "c": True,
        "d": True,
        "e": True,
    }


def test_what_is_too_large_passes_through_and_is_not_kept() -> None:
    for room in (0, 9000):
        cache = BatchCache(room)
        assert list(cache.keep(("a",), batches(1))) == batches(1)
        assert cache.get(("a",)) is None


def test_the_same_key_twice_counts_once() -> None:
    cache = BatchCache(9200)
    first, second = (cache.keep(("a",), batches(1)) for _ in range(2))
    assert list(first) == list(second)
    for name in "bcd":
        list(cache.keep((name,), batches(2)))
    assert cache.get(("a",)) == batches(1)
