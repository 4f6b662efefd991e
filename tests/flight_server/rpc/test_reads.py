"""``do_get``, ``get_flight_info``, ``get_schema`` and ``list_flights``."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.flights import (
    TIMESTAMP,
    act,
    many_rows,
    read,
    read_command,
    read_ticket,
    rows_of,
    send,
    series_named,
)
from timedb.contract.columns import COLUMN_TYPES, result_schema
from timedb.contract.errors import TooLarge
from timedb.contract.wire import ReadTicket, parse
from timedb.flight_server.rpc.reads import flights_of_series
from timedb.storage import Memory

SELECTIONS: list[dict[str, Any]] = [
    {},
    {"view": "overlapping"},
    {"all_versions": True},
    {"view": "overlapping", "all_versions": True},
    {"columns": ["value", "series_key", "valid_time", "tags", "value_id"]},
    {"ordered": True},
    {"ordered": True, "order_by": "valid_time"},
    {"ordered": True, "limit": 500},
    {"start_valid": "1970-01-02T00:00:00Z", "end_valid": "1970-01-03T00:00:00Z"},
    {"start_valid": "2100-01-01T00:00:00Z"},
]


@pytest.fixture(scope="module")
def keys(client: flight.FlightClient) -> list[str]:
    """Forty series in many buckets, of 2,000 rows, some of them corrected."""
    receipt = send(client, many_rows("reads", 2_000, series=40), rows=2_000, known_time="2025-01-01T00:00:00Z")[-1]
    send(client, many_rows("reads", 400, series=40), rows=400, known_time="2025-01-02T00:00:00Z")
    names, ids = list(receipt["series_ids"]), receipt["series_ids"]
    fix = {"valid_time": "1970-01-01T00:00:00Z", "value": 7.5, "tags": ["Fixed"]}
    fixes = [{"series_id": ids[name], **fix} for name in names[:5]]
    assert len(act(client, "update_values", {"updates": fixes})["updated"]) == 5
    return names


def plain(table: pa.Table) -> pa.Table:
    """The same rows without dictionaries, in one order that does not depend on how they came."""
    types = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in table.schema.types]
    table = table.cast(pa.schema(list(zip(table.column_names, types, strict=True))))
    keys = [name for name in table.column_names if name != "tags"]
    return table.sort_by([(name, "ascending") for name in keys])


@pytest.mark.parametrize("selection", SELECTIONS, ids=json.dumps)
def test_the_endpoints_together_are_the_whole_read(
    client: flight.FlightClient, keys: list[str], selection: dict[str, Any]
) -> None:
    fields = {"series_keys": keys, **selection}
    whole = read(client, **fields)
    info = client.get_flight_info(read_command(**fields))
    pieces = [client.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints]
    joined = pa.concat_tables(pieces) if pieces else info.schema.empty_table()
    joined.validate(full=True)
    assert plain(joined).equals(plain(whole))
    if info.ordered:
        assert joined.cast(plain_schema(joined)).equals(whole.cast(plain_schema(whole)))
    assert info.schema.equals(whole.schema)
    for piece in pieces:
        assert piece.schema.metadata[b"as_of"] == info.schema.metadata[b"as_of"]
        # As of the same moment; files may have been gathered since.
        assert int(piece.schema.metadata[b"table_version"]) >= int(info.schema.metadata[b"table_version"])
    assert [endpoint.locations for endpoint in info.endpoints] == [[]] * len(info.endpoints)
    assert info.total_records in (-1, whole.num_rows) or info.total_records >= whole.num_rows
    assert info.total_bytes >= -1
    assert info.descriptor == read_command(**fields)


def plain_schema(table: pa.Table) -> pa.Schema:
    """The schema without dictionaries."""
    return pa.schema(
        [
            (field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
            for field in table.schema
        ]
    )


def test_a_read_of_many_series_has_many_endpoints_and_one_of_a_limit_has_one(
    client: flight.FlightClient, keys: list[str]
) -> None:
    assert len(client.get_flight_info(read_command(series_keys=keys)).endpoints) > 4
    assert len(client.get_flight_info(read_command(series_keys=keys, ordered=True, limit=10)).endpoints) == 1


def test_tickets_of_a_plan_do_not_see_later_uploads(client: flight.FlightClient, name: str) -> None:
    send(client, rows_of(name), rows=3, known_time="2025-01-01T00:00:00Z")
    info = client.get_flight_info(read_command(series_keys=[name]))
    send(client, rows_of(name, value=[7.0, 8.0, 9.0]), rows=3, known_time="2025-01-02T00:00:00Z")
    (endpoint,) = info.endpoints
    assert sorted(client.do_get(endpoint.ticket).read_all().column("value").to_pylist()) == [0.0, 1.0, 2.0]
    assert sorted(read(client, series_keys=[name]).column("value").to_pylist()) == [7.0, 8.0, 9.0]
    ticket = parse(ReadTicket, endpoint.ticket.ticket, what="ticket", max_bytes=10_000)
    assert str(ticket.table_version).encode() == info.schema.metadata[b"table_version"]
    assert ticket.as_of is not None


@pytest.mark.parametrize("selection", [*SELECTIONS, {"columns": list(COLUMN_TYPES)}], ids=json.dumps)
def test_all_three_say_the_same_schema(client: flight.FlightClient, keys: list[str], selection: dict[str, Any]) -> None:
    fields = {"series_keys": keys, **selection}
    expected = result_schema(ReadTicket.model_validate(fields | {"op": "read"}, strict=False))
    for schema in (
        client.get_schema(read_command(**fields)).schema,
        client.get_flight_info(read_command(**fields)).schema,
        client.do_get(read_ticket(**fields)).schema,
    ):
        assert schema.equals(expected)
        assert {b"table_version", b"as_of"} <= set(schema.metadata)


def test_an_answer_without_rows_has_its_columns(client: flight.FlightClient, keys: list[str]) -> None:
    table = read(client, series_keys=keys, start_valid="2100-01-01T00:00:00Z")
    assert table.num_rows == 0
    assert table.schema.equals(result_schema(ReadTicket()))


def test_limit_and_cursor_page_through_everything(client: flight.FlightClient, keys: list[str]) -> None:
    whole = read(client, series_keys=keys, ordered=True)
    pages, after = [], None
    while True:
        page = read(client, series_keys=keys, ordered=True, limit=777, **({} if after is None else {"after": after}))
        pages.append(page)
        if b"cursor" not in page.schema.metadata:
            break
        after = page.schema.metadata[b"cursor"].decode()
    joined = pa.concat_tables([page.replace_schema_metadata(None) for page in pages])
    assert [page.num_rows for page in pages] == [777, 777, 446]
    assert joined.cast(plain_schema(joined)).equals(whole.cast(plain_schema(whole)))


def test_every_value_comes_back_as_it_went(client: flight.FlightClient, name: str) -> None:
    inf = float("inf")
    rows = rows_of(
        name,
        5,
        value=pa.array([None, float("nan"), inf, -inf, -0.0]),
        annotation=["plain", "ärger ☃ \U0001f600", None, "  ", "x" * 10_000],
        tags=pa.array([["B", "a", "a "], [], None, ["ü"], [f"t{number}" for number in range(50)]]),
    )
    send(client, rows, rows=5)
    got = read(
        client, series_keys=[name], ordered=True, columns=["valid_time", "value", "annotation", "tags"]
    ).to_pydict()
    assert [repr(value) for value in got["value"]] == ["None", "nan", "inf", "-inf", "-0.0"]
    assert got["annotation"] == ["plain", "ärger ☃ \U0001f600", None, None, "x" * 10_000]
    assert got["tags"] == [["a", "b"], None, None, ["ü"], sorted(f"t{number}" for number in range(50))]
    assert got["valid_time"] == rows.column("valid_time").to_pylist()


def test_list_flights_names_every_series_and_how_to_read_it(client: flight.FlightClient, name: str) -> None:
    names = [f"{name}-{letter}" for letter in "abc"]
    for each in names:
        send(client, rows_of(each), rows=3)
    listed = {info.descriptor.command: info for info in client.list_flights()}
    for each in names:
        (series,) = series_named(client, each)
        command = json.dumps({"series_ids": [series["series_id"]], "op": "read"}, separators=(",", ":")).encode()
        info = listed[command]
        (endpoint,) = info.endpoints
        assert client.do_get(endpoint.ticket).read_all().num_rows == 3
        assert client.get_flight_info(info.descriptor).schema.equals(info.schema)
        assert (info.total_records, info.total_bytes) == (-1, -1)
    (only,) = client.list_flights(json.dumps({"name": names[0]}).encode())
    assert only.schema.field("valid_time").type == TIMESTAMP
    assert list(client.list_flights(b'{"name": "no such series anywhere"}')) == []


def test_a_list_of_flights_has_room_or_is_refused() -> None:
    memory = Memory(1 << 20, 0.0, measure=lambda: 0)
    listed = flights_of_series({"series": [{"series_id": "x"}] * 600}, memory)
    next(listed)
    assert memory.taken > 600 * 1024, "pyarrow holds all of them before it sends one"
    assert len(list(listed)) == 599
    assert memory.taken == 0
    with pytest.raises(TooLarge, match=r"limit: the call takes about .* ask for less"):
        next(flights_of_series({"series": [{"series_id": "x"}] * 1_000}, memory))
