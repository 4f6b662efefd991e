"""``do_exchange``: point-in-time lookups, as plain ``pyarrow.flight`` sees them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.flights import (
    START,
    TIMESTAMP,
    Connect,
    Start,
    act,
    command,
    eventually,
    fails,
    hours,
    read,
    rows_of,
    send,
    series_named,
)
from timedb.contract.columns import LOOKED_UP
from timedb.contract.errors import NotFound
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.wire import LookupCommand
from timedb.storage import Lake

MORNING = datetime(2024, 12, 31, 6, tzinfo=UTC)


class Lookups:
    """An exchange: what is asked goes out, what comes back can be read."""

    def __init__(self, client: flight.FlightClient, schema: pa.Schema, **fields: Any) -> None:
        descriptor = flight.FlightDescriptor.for_command(command("lookup", fields))
        self.writer, self.reader = client.do_exchange(descriptor)
        self.writer.begin(schema)

    def ask(self, batch: pa.RecordBatch) -> pa.Table:
        """One batch's answer."""
        self.writer.write_batch(batch)
        return pa.Table.from_batches([self.reader.read_chunk().data])

    def close(self) -> None:
        """End it in order: the server has nothing more to say."""
        self.writer.done_writing()
        with pytest.raises(StopIteration):
            self.reader.read_chunk()
        self.writer.close()


def ask(client: flight.FlightClient, table: pa.Table, **fields: Any) -> pa.Table:
    """One batch's answer, all of it."""
    lookups = Lookups(client, table.schema, **fields)
    answer = lookups.ask(table.combine_chunks().to_batches()[0])
    lookups.close()
    answer.validate(full=True)
    return answer


def question(name: str, count: int = 3, **columns: Any) -> pa.Table:
    """The first hours of a series as known at any time; ``columns`` replace or add."""
    return pa.table({"series_key": pa.array([name] * count), "valid_time": hours(count), **columns})


def times(*offsets: int | None) -> pa.Array:
    """Instants so many hours after the morning."""
    return pa.array([None if each is None else MORNING + timedelta(hours=each) for each in offsets], TIMESTAMP)


@pytest.fixture
def revised(client: flight.FlightClient, name: str) -> str:
    """A series of three hours: 0, 1, 2 as known in the morning, 10, 11, 12 an hour later."""
    send(client, rows_of(name), rows=3, known_time=MORNING.isoformat())
    later = rows_of(name, value=pa.array([10.0, 11.0, 12.0]))
    send(client, later, rows=3, known_time=(MORNING + timedelta(hours=1)).isoformat())
    return name


def test_each_row_gets_what_was_known_by_its_own_cut_off(client: flight.FlightClient, revised: str) -> None:
    cut_offs = pa.array(
        [MORNING - timedelta(microseconds=1), MORNING, MORNING + timedelta(hours=1), None, MORNING], TIMESTAMP
    )
    valid = pa.array([START, START, START + timedelta(hours=1), START, START + timedelta(days=9)], TIMESTAMP)
    asked = question(revised, 5, valid_time=valid, known_by=cut_offs)
    answer = ask(client, asked)
    assert answer.select(asked.column_names).equals(asked.replace_schema_metadata(answer.schema.metadata))
    assert answer.schema.names == [*asked.column_names, *LOOKED_UP.names]
    assert answer.column("value").to_pylist() == [None, 0.0, 11.0, 10.0, None]
    assert answer.column("known_time").combine_chunks().equals(times(None, 0, 1, 1, None))
    assert answer.column("found").to_pylist() == [False, True, True, True, False]


def test_series_are_named_as_in_an_upload(client: flight.FlightClient, revised: str) -> None:
    labelled = rows_of(revised, labels=pa.array(['{"site": "b"}'] * 3), value=pa.array([5.0, 6.0, 7.0]))
    send(client, labelled, rows=3)
    by_label = {each["labels"].get("site"): each["series_id"] for each in series_named(client, revised)}
    asked = question(
        revised,
        series_key=pa.array([revised, revised, None]).dictionary_encode(),
        labels=pa.array([None, '{"site":"b"}', None]),
        series_id=pa.array([None, None, by_label["b"]]).dictionary_encode(),
    )
    answer = ask(client, asked)
    assert answer.column("value").to_pylist() == [10.0, 6.0, 7.0]
    assert answer.column("series_key").to_pylist() == [revised, revised, None]


def test_an_interval_is_another_point_than_its_start(client: flight.FlightClient, name: str) -> None:
    ends = pa.array([START + timedelta(hours=1 + index) for index in range(3)], TIMESTAMP)
    send(client, rows_of(name, valid_time_end=ends), rows=3)
    send(client, rows_of(name, 1, value=pa.array([70.0])), rows=1)
    assert ask(client, question(name)).column("value").to_pylist() == [70.0, None, None]
    assert ask(client, question(name, valid_time_end=ends)).column("value").to_pylist() == [0.0, 1.0, 2.0]


def test_null_nan_and_nothing_are_three_answers(client: flight.FlightClient, name: str) -> None:
    send(client, rows_of(name, 2, value=pa.array([None, float("nan")])), rows=2)
    answer = ask(client, question(name))
    assert [repr(value) for value in answer.column("value").to_pylist()] == ["None", "nan", "None"]
    assert answer.column("found").to_pylist() == [True, True, False]


def test_corrections_and_withdrawals_count_and_as_of_goes_back_before_them(
    client: flight.FlightClient, revised: str
) -> None:
    asked = question(revised, known_by=times(0, 0, 1))
    before = ask(client, asked)
    as_of = before.schema.metadata[b"as_of"].decode()
    (series,) = series_named(client, revised)
    fix = {"series_id": series["series_id"], "valid_time": START.isoformat(), "known_time": MORNING.isoformat()}
    act(client, "update_values", {"updates": [{**fix, "value": 0.5}]})
    runs = act(client, "list_runs", {"limit": 2})["runs"]
    newer = next(run for run in runs if run["known_time"] > MORNING.isoformat())
    act(client, "withdraw_run", {"run_id": newer["run_id"]})
    assert ask(client, asked).column("value").to_pylist() == [0.5, 1.0, 2.0]
    past = ask(client, asked, as_of=as_of)
    assert past.column("value").to_pylist() == before.column("value").to_pylist() == [0.0, 1.0, 12.0]
    assert past.schema.metadata[b"as_of"].decode() == as_of


def test_all_batches_see_the_state_in_which_the_lookup_began(client: flight.FlightClient, revised: str) -> None:
    (batch,) = question(revised).to_batches()
    lookups = Lookups(client, batch.schema)
    first = lookups.ask(batch)
    send(client, rows_of(revised, value=pa.array([20.0, 21.0, 22.0])), rows=3)
    assert lookups.ask(batch).equals(first)
    lookups.close()
    assert first.column("value").to_pylist() == [10.0, 11.0, 12.0]
    assert {b"table_version", b"as_of", b"token"} <= set(first.schema.metadata)
    token = first.schema.metadata[b"token"].decode()
    assert read(client, series_keys=[revised], token=token, ordered=True).column("value").to_pylist() == [10, 11, 12]
    assert ask(client, question(revised)).column("value").to_pylist() == [20.0, 21.0, 22.0]


def test_each_batch_is_answered_by_one_also_an_empty_one(client: flight.FlightClient, revised: str) -> None:
    (batch,) = question(revised).to_batches()
    lookups = Lookups(client, batch.schema)
    assert [lookups.ask(batch[:rows]).num_rows for rows in (1, 0, 3)] == [1, 0, 3]
    lookups.close()


def test_a_lookup_of_nothing_is_an_answer_of_nothing(client: flight.FlightClient) -> None:
    lookups = Lookups(client, question("x").schema)
    lookups.writer.done_writing()
    assert lookups.reader.schema.names == ["series_key", "valid_time", *LOOKED_UP.names]
    lookups.close()


BAD: dict[str, tuple[Callable[[pa.Table], pa.Table], str, str]] = {
    "no valid_time": (lambda table: table.drop(["valid_time"]), "invalid_request", "valid_time: the column is missing"),
    "no series": (lambda table: table.drop(["series_key"]), "invalid_request", "series_id: the column is missing"),
    "unknown column": (lambda table: table.append_column("value", pa.nulls(3)), "invalid_request", "value: unknown"),
    "naive times": (
        lambda table: table.set_column(1, "valid_time", table["valid_time"].cast(pa.timestamp("us"))),
        "invalid_request",
        "has no time zone",
    ),
    "null valid_time": (
        lambda table: table.set_column(1, "valid_time", pa.array([START, None, START], TIMESTAMP)),
        "invalid_request",
        "valid_time: row 1 is null",
    ),
    "no such name": (
        lambda table: table.set_column(0, "series_key", pa.array(["no such series"] * 3)),
        "not_found",
        "'no such series'",
    ),
    "no such id": (lambda table: table.rename_columns({"series_key": "series_id"}), "not_found", "series_id: there is"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_named(client: flight.FlightClient, revised: str, what: str) -> None:
    change, code, said = BAD[what]
    table = change(question(revised))
    with fails(code, said):
        ask(client, table)


def test_an_error_in_mid_stream_comes_after_the_answers_before_it(client: flight.FlightClient, revised: str) -> None:
    (batch,) = question(revised).to_batches()
    (bad,) = question("no such series").to_batches()
    lookups = Lookups(client, batch.schema)
    assert lookups.ask(batch).column("value").to_pylist() == [10.0, 11.0, 12.0]
    with fails("not_found", "no such series"):
        lookups.ask(bad)
    with suppress(flight.FlightError):
        lookups.writer.close()


def test_metadata_in_the_stream_is_refused(client: flight.FlightClient, revised: str) -> None:
    (batch,) = question(revised).to_batches()
    lookups = Lookups(client, batch.schema)
    lookups.writer.write_with_metadata(batch, b'{"commit": true, "rows": 3}')
    with fails("invalid_request", "metadata"):
        lookups.reader.read_chunk()
    with suppress(flight.FlightError):
        lookups.writer.close()


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b'{"op": "lookup", "known_by": "2025-01-01T00:00:00Z"}', "invalid_request", "known_by: unknown field"),
        (b'{"op": "read"}', "invalid_request", "op"),
        (b'{"op": "lookup", "as_of": "yesterday"}', "invalid_request", "as_of"),
        (b"", "invalid_request", "command: is empty"),
        (b"\x0a\x01x", "unimplemented", "Flight SQL"),
        (b'{"op": "lookup", "max_age": "-PT1H"}', "invalid_request", "max_age: -PT1H is negative"),
        (b'{"op": "lookup", "max_age": "P1M"}', "invalid_request", "max_age: P1M has months"),
        (b'{"op": "lookup", "max_age": "old"}', "invalid_request", "max_age: 'old' is not a duration"),
    ],
)
def test_a_command_that_is_no_lookup(client: flight.FlightClient, body: bytes, code: str, said: str) -> None:
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(body))
    with fails(code, said):
        reader.read_chunk()
    with suppress(flight.FlightError):
        writer.close()


def test_a_batch_over_the_limit_is_too_large(start: Start, connect: Connect, lake: Lake, revised: str) -> None:
    tenant = lake.tenant(OPEN_TENANT_ID)
    few = tenant.settings.model_copy(update={"max_lookup_batch_rows": 2})
    service = start()
    whole, tenant.settings = tenant.settings, few
    try:
        with fails("too_large", "3 rows are over the limit of 2"):
            ask(connect(service), question(revised))
    finally:
        tenant.settings = whole


def test_lookups_take_the_slots_of_reads_and_give_them_back(start: Start, connect: Connect, revised: str) -> None:
    client = connect(start(max_concurrent_reads=1))
    (batch,) = question(revised).to_batches()
    lookups = Lookups(client, batch.schema)
    lookups.ask(batch)
    with fails("busy", "1 reads"):
        read(client, series_keys=[revised])
    with fails("busy", "1 reads"):
        ask(client, question(revised))
    lookups.close()
    eventually(lambda: _answers(client, revised))
    gone = Lookups(client, batch.schema)
    gone.ask(batch)
    gone.reader.cancel()
    eventually(lambda: _answers(client, revised))


def test_a_lookup_over_its_time_fails(start: Start, connect: Connect, revised: str) -> None:
    client = connect(start(max_call_seconds=0.2))
    (batch,) = question(revised).to_batches()
    lookups = Lookups(client, batch.schema)
    with fails("timeout", "0.2 seconds"):
        while True:
            lookups.ask(batch)
    with suppress(flight.FlightError):
        lookups.writer.close()


def test_a_client_that_reads_late_gets_every_answer(client: flight.FlightClient, revised: str) -> None:
    (batch,) = question(revised, 20_000, valid_time=hours(20_000)).to_batches()
    lookups = Lookups(client, batch.schema)

    def write() -> None:
        for _ in range(30):
            lookups.writer.write_batch(batch)
        lookups.writer.done_writing()

    writing = threading.Thread(target=write)
    writing.start()
    rows = sum(chunk.data.num_rows for chunk in _chunks(lookups.reader))
    writing.join()
    lookups.writer.close()
    assert rows == 600_000


def test_a_limited_key_looks_up_only_what_it_sees(client: flight.FlightClient, lake: Lake, name: str) -> None:
    send(client, rows_of(name, labels=pa.array(['{"site": "a"}'] * 3)), rows=3)
    (series,) = series_named(client, name)
    (batch,) = (
        question(name, series_key=pa.array([series["series_id"]] * 3))
        .rename_columns({"series_key": "series_id"})
        .to_batches()
    )
    tenant = lake.tenant(OPEN_TENANT_ID)
    for site, seen in (("a", True), ("b", False)):
        lookup = tenant.limited_to({"site": site}, "ann@example.com").begin_lookup(LookupCommand(), batch.schema)
        if seen:
            assert lookup.answer(batch).column("value").to_pylist() == [0.0, 1.0, 2.0]
        else:
            with pytest.raises(NotFound):
                lookup.answer(batch)


def _answers(client: flight.FlightClient, name: str) -> bool:
    try:
        return bool(ask(client, question(name)).num_rows == 3)
    except flight.FlightUnavailableError:
        return False


def _chunks(reader: flight.MetadataRecordBatchReader) -> Iterator[flight.FlightStreamChunk]:
    with suppress(StopIteration):
        while True:
            yield reader.read_chunk()
