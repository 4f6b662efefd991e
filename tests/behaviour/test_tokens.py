"""Tokens: the same answer again whatever came after it, and what came after it, once."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.behaviour.doors import Door, RestDoor
from tests.behaviour.histories import Read, Write, histories, reads
from tests.behaviour.playing import Played, play
from timedb.contract.columns import META_AS_OF, META_TOKEN

EXAMPLES = max(3, settings().max_examples // 5)


def token_of(answer: pa.Table) -> str:
    """The token in an answer's metadata."""
    metadata: dict[bytes, bytes] = answer.schema.metadata
    return metadata[META_TOKEN].decode()


def rows_of(answer: pa.Table) -> list[str]:
    """The rows, comparable (NaN is not equal to itself), in no particular order."""
    return sorted(repr(row) for row in answer.to_pylist())


def read(played: Played, what: Read, **fields: Any) -> pa.Table:
    """One drawn read through the door of a history, with these fields."""
    return played.door.read(what.view, all_versions=what.all_versions, **fields)


def test_a_token_reads_the_same_again_after_whatever_follows(door: Door) -> None:
    no_skips = not isinstance(door, RestDoor)

    @settings(max_examples=EXAMPLES)
    @given(histories(skips=no_skips), histories(skips=no_skips), st.lists(reads(), min_size=3, max_size=5))
    def holds(before: list[Write], after: list[Write], asked: list[Read]) -> None:
        played = play(door, before)
        fields = [played.fields(what) for what in asked]
        first = [
            door.read(what.view, all_versions=what.all_versions, **each)
            for what, each in zip(asked, fields, strict=True)
        ]
        for write in after:
            played.write(write)
        for what, each, answer in zip(asked, fields, first, strict=True):
            again = read(played, what, **each, token=token_of(answer))
            assert rows_of(again) == rows_of(answer)
            assert token_of(again) == token_of(answer)

    holds()


def test_a_chain_of_tokens_brings_every_version_once(door: Door) -> None:
    @settings(max_examples=EXAMPLES)
    @given(histories(skips=not isinstance(door, RestDoor)))
    def holds(history: list[Write]) -> None:
        played = Played(door)
        brought: list[str] = []
        since: dict[str, Any] = {}
        for write in history:
            played.write(write)
            answer = door.read("changes", series_ids=played.series, **since)
            brought += rows_of(answer)
            since = {"since": token_of(answer)}
        assert rows_of(door.read("changes", series_ids=played.series, **since)) == []
        assert sorted(brought) == rows_of(door.read("changes", series_ids=played.series))
        assert len(brought) == len(set(brought)) == len(played.oracle.rows)

    holds()


def test_pages_of_changes_are_cut_from_one_state(storage_door: Door) -> None:
    @settings(max_examples=EXAMPLES)
    @given(histories(), histories(), st.integers(1, 5))
    def holds(before: list[Write], after: list[Write], limit: int) -> None:
        played = play(storage_door, before)
        what = Read("changes", False, (None, None), (None, None), None, None, None, list(range(len(played.series))))
        fields = {"series_ids": played.series, "ordered": True, "order_by": "change_time"}
        whole = read(played, what, **fields)
        page = read(played, what, **fields, limit=limit)
        for write in after:
            played.write(write)
        pages = [page]
        while cursor := (pages[-1].schema.metadata or {}).get(b"cursor"):
            pages.append(read(played, what, **fields, limit=limit, after=cursor.decode()))
        assert [repr(row) for each in pages for row in each.to_pylist()] == [repr(row) for row in whole.to_pylist()]
        assert {(each.schema.metadata or {})[META_AS_OF] for each in pages} == {whole.schema.metadata[META_AS_OF]}

    holds()
