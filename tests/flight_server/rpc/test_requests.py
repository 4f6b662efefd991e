"""Malformed commands, tickets, criteria and bodies: one clear error each, of the right code, and nothing happens."""

from __future__ import annotations

import json
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import flight

from tests.flight_server.flights import INSIDE, act, fails, rows_of
from timedb.flight_server.rpc.actions import ACTIONS

ADDRESS = {"series_id": "x", "valid_time": "2025-01-01T00:00:00Z"}
Call = Callable[[flight.FlightClient, bytes], object]


def put(client: flight.FlightClient, command: bytes) -> None:
    """Upload three rows under a command."""
    rows = rows_of("requests")
    writer, _ = client.do_put(flight.FlightDescriptor.for_command(command), rows.schema)
    writer.write_table(rows)
    writer.done_writing()
    writer.close()


def get(client: flight.FlightClient, ticket: bytes) -> None:
    """Read a ticket to its end."""
    client.do_get(flight.Ticket(ticket)).read_all()


def info(client: flight.FlightClient, command: bytes) -> None:
    """Plan a command."""
    client.get_flight_info(flight.FlightDescriptor.for_command(command))


def criteria(client: flight.FlightClient, body: bytes) -> None:
    """List flights."""
    list(client.list_flights(body))


READS: dict[str, Call] = {"do_get": get, "get_flight_info": info}
COMMANDS: dict[str, Call] = {**READS, "do_put": put}


def calling(name: str) -> Call:
    """What calls an action."""

    def call(client: flight.FlightClient, body: bytes) -> None:
        act(client, name, body)

    return call


BODIES: dict[str, Call] = {"list_flights": criteria, **{name: calling(name) for name in ACTIONS}}


def schema_error(client: flight.FlightClient, command: bytes) -> str:
    """What ``get_schema`` says; it alone cannot keep class and body of an error."""
    with pytest.raises(pa.ArrowInvalid) as caught:
        client.get_schema(flight.FlightDescriptor.for_command(command))
    assert not [each for each in INSIDE if each in str(caught.value)]
    return str(caught.value)


@pytest.mark.parametrize("method", COMMANDS)
@pytest.mark.parametrize(
    ("command", "says"),
    [
        (b'{"op2": 1}', "op2"),
        (b'{"op": "nonsense"}', "op"),
        (b'{"op": null}', "op"),
        (b"{", "JSON"),
        (b'{"op": "read"} trailing', "JSON"),
        (b"{\xff\xfe}", "JSON"),
        (b"{" * 100_000, "JSON"),
        (b'{"op": "\\ud800"}', "JSON"),
        (json.dumps({"é" * 50_000: 1}).encode(), "é"),
    ],
)
def test_a_malformed_command(client: flight.FlightClient, method: str, command: bytes, says: str) -> None:
    with fails("invalid_request", says):
        COMMANDS[method](client, command)
    if method == "get_flight_info":
        assert schema_error(client, command).startswith("invalid_request: ")


@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"op": "upload"}, "op"),
        ({"view": "sideways"}, "view"),
        ({"limit": 0}, "limit"),
        ({"limit": "5"}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"limit": 10**30}, "limit"),
        ({"start_valid": "2025-01-01T00:00:00"}, "start_valid"),
        ({"start_valid": "yesterday"}, "start_valid"),
        ({"start_valid": "2025-01-01T00:00:00.0000001Z"}, "start_valid"),
        ({"start_valid": 1735689600}, "start_valid"),
        ({"start_valid": "2025-01-02T00:00:00Z", "end_valid": "2025-01-01T00:00:00Z"}, "end_valid"),
        ({"series_ids": "abc"}, "series_ids"),
        ({"columns": ["value", "nonsense"]}, "nonsense"),
        ({"columns": []}, "columns"),
        ({"relative": {}}, "time_zone"),
        ({"order_by": "value"}, "order_by"),
        ({"ordered": True, "limit": 5, "after": "nonsense"}, "after"),
        ({"table_version": 10**9}, "table_version"),
        ({"table_version": -1}, "table_version"),
    ],
)
def test_a_read_that_makes_no_sense(
    client: flight.FlightClient, method: str, fields: dict[str, object], says: str
) -> None:
    with fails("invalid_request", says):
        READS[method](client, json.dumps({"op": "read", **fields}).encode())


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "/etc/passwd", "\x00"])
@pytest.mark.parametrize("method", READS)
def test_a_time_zone_that_does_not_exist(client: flight.FlightClient, method: str, zone: str) -> None:
    with fails("invalid_request", "time_zone"):
        READS[method](client, json.dumps({"op": "read", "relative": {"time_zone": zone}}).encode())


@pytest.mark.parametrize("method", READS)
def test_a_read_of_what_is_not_there(client: flight.FlightClient, method: str) -> None:
    for fields in ({"series_ids": ["nonsense"]}, {"series_keys": ["nonsense"]}):
        with fails("not_found", "nonsense"):
            READS[method](client, json.dumps({"op": "read", **fields}).encode())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"op": "read"}, "op"),
        ({"rows": -1}, "rows"),
        ({"rows": "3"}, "rows"),
        ({"run_id": ""}, "run_id"),
        ({"run_id": "x" * 1000}, "run_id"),
        ({"run_id": "a\nb"}, "run_id"),
        ({"known_time": "2025-01-01T00:00"}, "known_time"),
        ({"run_params": [1]}, "run_params"),
        ({"run_start_time": "2025-01-02T00:00:00Z", "run_finish_time": "2025-01-01T00:00:00Z"}, "run_finish_time"),
        ({"series_ids": []}, "series_ids"),
    ],
)
def test_an_upload_command_that_makes_no_sense(
    client: flight.FlightClient, fields: dict[str, object], says: str
) -> None:
    with fails("invalid_request", says):
        put(client, json.dumps({"op": "upload", **fields}).encode())


@pytest.mark.parametrize("method", COMMANDS)
@pytest.mark.parametrize("command", [b"SELECT 1", b"[]", b"null", b"\xff\xfe", b"\x00", b"\x0a\x03abc"])
def test_what_is_neither_a_json_object_nor_flight_sql(client: flight.FlightClient, method: str, command: bytes) -> None:
    with fails("invalid_request", "Flight SQL"):
        COMMANDS[method](client, command)
    if method == "get_flight_info":
        assert schema_error(client, command).startswith("invalid_request: ")


@pytest.mark.parametrize("method", READS)
def test_an_empty_command_reads_nothing(client: flight.FlightClient, method: str) -> None:
    with fails("invalid_request", "empty"):
        READS[method](client, b"")


def test_a_path_is_no_command(client: flight.FlightClient) -> None:
    path = flight.FlightDescriptor.for_path("a", "b")
    with fails("invalid_request", "descriptor"):
        client.get_flight_info(path)
    with pytest.raises(pa.ArrowInvalid, match=r"^invalid_request: descriptor"):
        client.get_schema(path)
    rows = rows_of("requests")
    with fails("invalid_request", "descriptor"):
        writer, _ = client.do_put(path, rows.schema)
        writer.write_table(rows)
        writer.close()


@pytest.mark.parametrize("method", BODIES)
@pytest.mark.parametrize("body", [b"garbage", b"\xff\xfe", b"[]", b'"text"', b"null", b'{"nonsense": 1}', b"{", b"NaN"])
def test_a_malformed_body(client: flight.FlightClient, method: str, body: bytes) -> None:
    with fails("invalid_request"):
        BODIES[method](client, body)


@pytest.mark.parametrize(
    ("action", "body", "says"),
    [
        ("create_series", {}, "name"),
        ("create_series", {"name": ""}, "name"),
        ("create_series", {"name": 5}, "name"),
        ("create_series", {"name": "x" * 256}, "name"),
        ("create_series", {"name": "x", "labels": {"a": 1}}, "labels.a"),
        ("update_series", {"description": "x"}, "series_id"),
        ("update_values", {}, "updates"),
        ("update_values", {"updates": [{}]}, "series_id"),
        ("update_values", {"updates": [{"value_id": "nonsense", "value": 1}]}, "value_id"),
        ("update_values", {"updates": [{"series_id": "x", "valid_time": "x"}]}, "valid_time"),
        ("update_values", {"updates": [{**ADDRESS, "value": "1"}]}, "value"),
        ("update_values", {"updates": [{**ADDRESS, "tags": [1]}]}, "tags"),
        ("get_run", {}, "run_id"),
        ("list_runs", {"limit": 0}, "limit"),
        ("list_runs", {"start": "2025-01-02T00:00:00Z", "end": "2025-01-01T00:00:00Z"}, "end"),
        ("withdraw_run", {"reason": "x"}, "run_id"),
    ],
)
def test_a_body_that_makes_no_sense(
    client: flight.FlightClient, action: str, body: dict[str, object], says: str
) -> None:
    with fails("invalid_request", says):
        act(client, action, json.dumps(body).encode())


CODES = {"invalid_request", "unimplemented", "not_found"}


def code_of(call: Call, client: flight.FlightClient, data: bytes) -> str:
    """The code of the error, or ``ok``; fails if it is no error of ours."""
    try:
        call(client, data)
    except flight.FlightError as error:
        body = json.loads(error.extra_info)
        message = str(error)
    else:
        return "ok"
    assert message.startswith(f"{body['code']}: ")
    assert not [each for each in ("Traceback", ".py", "site-packages") if each in message]
    return str(body["code"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "view",
    "series_ids",
    "series_keys",
    "labels",
    "start_valid",
    "as_of",
    "relative",
    "columns",
    "limit",
    "after",
    "bucket",
]
READ_FIELDS = st.sampled_from(FIELDS)


@given(data=st.binary(min_size=1, max_size=200))
def test_any_bytes_get_a_code(client: flight.FlightClient, data: bytes) -> None:
    for call in (get, info, put, criteria, BODIES["create_series"]):
        assert code_of(call, client, data) in CODES | {"ok"}  # as b"{}" is


@given(fields=st.dictionaries(READ_FIELDS, JSON, min_size=1, max_size=3))
def test_any_json_in_a_ticket_gets_a_code_or_an_answer(client: flight.FlightClient, fields: dict[str, object]) -> None:
    data = json.dumps({"op": "read", **fields}).encode()
    assert code_of(info, client, data) in CODES | {"ok"}
    assert code_of(get, client, data) in CODES | {"ok"}
