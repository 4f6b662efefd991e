"""Point-in-time lookups over random histories, each answer compared with the oracle's flat view at that cut-off."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any, Literal
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tests.behaviour.doors import Door, StorageDoor, instant, iso
from tests.behaviour.histories import VALID_TIMES, Write, histories
from tests.behaviour.oracle import Row, float_bits
from tests.behaviour.playing import Played, play
from timedb.client import Client
from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import LookupCommand, parse_object
from timedb.storage import Tenant
from timedb.storage.read.lookup import Lookup
from timedb.storage.read.runs_seen import RunsSeen

TIME = pa.timestamp("us", "UTC")
SCHEMA = pa.schema([("series_id", pa.string()), ("valid_time", TIME), ("valid_time_end", TIME), ("known_by", TIME)])
Question = tuple[str, int, int | None, int | None]
Answer = tuple[bool, Any, int | None]


def questions(played: Played) -> list[Question]:
    """Every point of a history and points beside it, at each known_time, a microsecond off, never and without end."""
    rows = played.oracle.rows
    points = {row.key[:3] for row in rows} | {(played.series[0], VALID_TIMES[0], None)}
    points |= {(series, valid_time, None) for series, valid_time, _ in points}
    instants = {row.known_time for row in rows}
    written = sorted(played.ranks)[1::4]  # corrections of these change_times count by then, and not just before
    known = {each + shift for each in instants for shift in (-1, 0, 1)}
    cut_offs = [None, *sorted(known | {each + shift for each in written for shift in (-1, 0)})]
    found = [(*point, cut_off) for point in sorted(points, key=repr) for cut_off in cut_offs]
    return random.Random(len(found)).sample(found, len(found))


AGES = (None, 0, 90 * 60 * 1_000_000)
"""Microseconds that lookups let what they find be old."""
CORRECTIONS: tuple[Literal["by_cutoff", "all", "none"], ...] = ("by_cutoff", "all", "none")


def expected(
    played: Played, asked: list[Question], as_of: int | None, max_age: int | None = None, corrections: str = "all"
) -> list[Answer]:
    """What the oracle says: the flat view of what was known by then, end inclusive, and not too long before."""
    rank = None if as_of is None else played.ranks.get(as_of, 0)
    views: dict[int | None, dict[Any, Answer]] = {}
    times = played.ranks.items()
    for known_by in {question[3] for question in asked}:
        end = None if known_by is None else known_by + 1
        start = None if known_by is None or max_age is None else known_by - max_age
        bounds: dict[str, Any] = {"series": played.series, "start_known": start, "end_known": end, "as_of": rank}
        counted = "all" if known_by is None and corrections == "by_cutoff" else corrections
        rows = played.oracle.answer(corrections=counted, times={rank: time for time, rank in times}, **bounds)
        views[known_by] = {row.key[:3]: (True, float_bits(row.value), row.known_time) for row in rows}
    return [views[known_by].get((*point,), (False, None, None)) for *point, known_by in asked]


def answers(table: pa.Table) -> list[Answer]:
    """The answers of a lookup in the form of :func:`expected`."""
    known_times = table.column("known_time").cast(pa.int64()).to_pylist()
    values = [float_bits(value) for value in table.column("value").to_pylist()]
    return list(zip(table.column("found").to_pylist(), values, known_times, strict=True))


def as_table(asked: list[Question]) -> pa.Table:
    return pa.table([list(column) for column in zip(*asked, strict=True)], schema=SCHEMA)


def look_up(
    tenant: Tenant, table: pa.Table, as_of: int | None, stored_rows: int, max_age: int | None, corrections: str
) -> pa.Table:
    """A lookup of three batches, without a server."""
    fields = {
        "as_of": None if as_of is None else instant(as_of),
        "max_age": None if max_age is None else f"{max_age}us",
        "corrections": corrections,
    }
    command = parse_object(LookupCommand, {name: value for name, value in fields.items() if value is not None})
    lookup = Lookup(
        command,
        table.schema,
        table=tenant.values,
        catalog=tenant.catalog,
        bucket_digits=tenant.bucket_digits,
        runs=RunsSeen(tenant._all_runs),
        batch_rows=1000,
        stored_rows=stored_rows,
    )
    batches = table.to_batches(max_chunksize=table.num_rows // 3 + 1)
    found = pa.Table.from_batches([lookup.answer(batch) for batch in batches], schema=lookup.schema)
    assert found.select(SCHEMA.names).equals(table.replace_schema_metadata(found.schema.metadata))
    return found


def cut_offs(played: Played) -> list[int | None]:
    """No change_time, the one in the middle of a history, and one before it."""
    times = sorted(played.ranks)
    return [None, times[len(times) // 2], times[0] - 1]


def test_every_lookup_is_the_oracles(storage_door: StorageDoor) -> None:
    @settings(max_examples=3 if settings().derandomize else settings().max_examples)
    @given(histories())
    def holds(history: list[Write]) -> None:
        played = play(storage_door, history)
        asked = questions(played)
        for turn, as_of in enumerate(cut_offs(played)):
            # The fewest rows cut the work into the smallest pieces.
            for stored_rows, step in ((1_000_000, 0), (1, 1)):
                max_age, counted = AGES[(turn + step) % 3], CORRECTIONS[(turn - step) % 3]
                right = expected(played, asked, as_of, max_age, counted)
                found = look_up(storage_door.tenant, as_table(asked), as_of, stored_rows, max_age, counted)
                assert answers(found) == right, counted

    holds()


def test_every_lookup_over_flight_is_the_oracles(flight_door: Door, client: Client) -> None:
    @settings(max_examples=1 if settings().derandomize else settings().max_examples)
    @given(histories())
    def holds(history: list[Write]) -> None:
        played = play(flight_door, history)
        asked = questions(played)
        frame = pl.DataFrame(as_table(asked)).with_columns(mine=pl.int_range(pl.len()))
        for as_of, corrections in zip(cut_offs(played), CORRECTIONS, strict=True):
            age, moment = AGES[-1], None if as_of is None else instant(as_of)
            found = client.lookup(frame, as_of=moment, max_age=f"{age}us", corrections=corrections)
            assert found.select(frame.columns).equals(frame)
            assert answers(found.to_arrow()) == expected(played, asked, as_of, age, corrections)

    holds()


def test_each_row_of_a_backtest_sees_the_corrections_of_its_own_time(flight_door: Door, client: Client) -> None:
    """Feature stores that keep a correction's event time let training see what was written after it."""
    series = flight_door.create_series(f"backtest-{uuid4()}")
    run_id = f"{series}-run"
    rows = [
        Row(series, valid, None, 0, run_id, 0, value, None, None, retracted=False)
        for valid, value in ((5, 10.0), (6, 20.0))
    ]
    flight_door.upload(rows, run_id=run_id, known_time=0)
    flight_door.update_values([{"series_id": series, "valid_time": iso(5), "run_id": run_id, "value": 11.0}])
    flight_door.withdraw_run(run_id, "wrong weather")
    audit = flight_door.read("overlapping", all_versions=True, series_ids=[series])
    _, corrected, withdrawn = sorted(set(audit["change_time"].to_pylist()))
    before = corrected - timedelta(microseconds=1)
    asked = [(5, before), (5, corrected), (5, withdrawn), (6, before), (6, withdrawn), (5, None)]
    frame = pl.DataFrame(
        {"series_id": series, "valid_time": [instant(valid) for valid, _ in asked], "known_by": [by for _, by in asked]}
    )
    for _ in range(2):
        found = client.lookup(frame, corrections="by_cutoff")
        assert found["value"].to_list() == [10.0, 11.0, None, 20.0, None, None]
        assert found["found"].to_list() == [True, True, False, True, False, False]
        assert client.lookup(frame, corrections="none")["value"].to_list() == [10.0, 10.0, 10.0, 20.0, 20.0, 10.0]
        assert client.lookup(frame)["found"].any() is False
        flight_door.compact()
    with pytest.raises(InvalidRequest, match="corrections: 'some'"):
        client.lookup(frame, corrections="some")  # type: ignore[arg-type]
