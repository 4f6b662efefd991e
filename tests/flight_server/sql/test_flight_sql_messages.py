"""Flight SQL message by message, as plain ``pyarrow.flight`` sends them."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import flight

from tests.flight_server.flights import fails
from tests.flight_server.sql_client import descriptor, fetch, query
from timedb.contract.errors import InvalidRequest, TimeDBError
from timedb.flight_server.sql.catalog import catalog_table
from timedb.flight_server.sql.messages import (
    CATALOG_COMMANDS,
    ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult,
    CommandGetCatalogs,
    CommandGetCrossReference,
    CommandGetDbSchemas,
    CommandGetExportedKeys,
    CommandGetPrimaryKeys,
    CommandGetSqlInfo,
    CommandGetTables,
    CommandGetTableTypes,
    CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery,
    CommandStatementQuery,
    DoPutPreparedStatementResult,
    Envelope,
    TicketStatementQuery,
    pack,
    unpack,
)
from timedb.flight_server.sql.protobuf import Message
from timedb.flight_server.sql.tables import SCHEMAS

NAMES = ["flat", "overlapping", "runs", "series", "values"]
SQL_1 = b"\x0a\x43type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery\x12\x0a\x0a\x08SELECT 1"


def names(client: flight.FlightClient, command: Message, column: str = "table_name") -> list[Any]:
    """One column of a catalog's answer."""
    values: list[Any] = fetch(client, command).column(column).to_pylist()
    return values


# The wire format


def test_a_message_as_other_libraries_write_it() -> None:
    assert unpack(SQL_1, what="x") == CommandStatementQuery("SELECT 1")
    assert pack(CommandStatementQuery("SELECT 1")) == SQL_1


@pytest.mark.parametrize(
    ("body", "info"),
    [
        (b"\x08\x03\x08\xac\x02", (3, 300)),
        (b"\x0a\x03\x03\xac\x02", (3, 300)),  # packed, as proto3 has it
        (b"\x08\x03\x12\x02hi\x1d\x00\x00\x00\x00\x21\x00\x00\x00\x00\x00\x00\x00\x00\x0a\x01\x04", (3, 4)),
        (b"", ()),
    ],
)
def test_numbers_may_be_packed_and_unknown_fields_are_skipped(body: bytes, info: tuple[int, ...]) -> None:
    assert CommandGetSqlInfo.from_bytes(body, what="x").info == info


texts = st.text(max_size=20)
messages = st.one_of(
    st.builds(CommandGetSqlInfo, st.lists(st.integers(0, 2**32 - 1)).map(tuple)),
    st.builds(CommandGetXdbcTypeInfo, st.none() | st.integers(-(2**31), 2**31 - 1)),
    st.builds(CommandGetTables, *[st.none() | texts] * 3, st.lists(texts).map(tuple), st.booleans()),
    st.builds(CommandStatementQuery, texts, st.none() | st.binary()),
    st.builds(TicketStatementQuery, st.binary()),
    st.builds(CommandGetCatalogs),
)


@given(messages)
def test_a_message_survives_the_wire(message: Message) -> None:
    assert unpack(pack(message), what="x") == message


@given(st.binary(max_size=60), st.sampled_from([Envelope, CommandGetTables, CommandGetSqlInfo, CommandStatementQuery]))
def test_any_bytes_are_a_message_or_an_error_of_ours(data: bytes, kind: type[Message]) -> None:
    with suppress(InvalidRequest):
        kind.from_bytes(data, what="x")
    with suppress(TimeDBError):
        unpack(SQL_1[: len(data) % len(SQL_1)] + data, what="x")


# The catalog


def test_what_there_is(client: flight.FlightClient) -> None:
    assert fetch(client, CommandGetCatalogs()).to_pylist() == [{"catalog_name": "timedb"}]
    assert fetch(client, CommandGetDbSchemas()).to_pylist() == [{"catalog_name": "timedb", "db_schema_name": "main"}]
    assert names(client, CommandGetTableTypes(), "table_type") == ["TABLE", "VIEW"]
    kinds = names(client, CommandGetTables(), "table_type")
    assert dict(zip(names(client, CommandGetTables()), kinds, strict=True)) == {
        "flat": "VIEW",
        "overlapping": "VIEW",
        "runs": "TABLE",
        "series": "TABLE",
        "values": "TABLE",
    }


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (CommandGetTables(catalog="timedb", db_schema_filter_pattern="main"), NAMES),
        (CommandGetTables(catalog=""), []),
        (CommandGetTables(catalog="other"), []),
        (CommandGetTables(db_schema_filter_pattern="m_in"), NAMES),
        (CommandGetTables(db_schema_filter_pattern="x%"), []),
        (CommandGetTables(table_name_filter_pattern="%s"), ["runs", "series", "values"]),
        (CommandGetTables(table_name_filter_pattern="f_at"), ["flat"]),
        (CommandGetTables(table_name_filter_pattern="%" * 60 + "x"), []),
        (CommandGetTables(table_name_filter_pattern="%" * 60 + "L%_T"), ["flat"]),
        (CommandGetTables(table_name_filter_pattern="fl\\_t"), []),
        (CommandGetTables(table_name_filter_pattern="\\f\\lat"), ["flat"]),
        (CommandGetTables(table_name_filter_pattern="f\\_at"), []),
        (CommandGetTables(table_name_filter_pattern="f.at"), []),
        (CommandGetTables(table_types=("VIEW",)), ["flat", "overlapping"]),
        (CommandGetTables(table_types=("SYSTEM TABLE",)), []),
    ],
)
def test_tables_by_pattern(client: flight.FlightClient, command: CommandGetTables, found: list[str]) -> None:
    assert names(client, command) == found


def test_tables_come_with_the_columns_that_queries_return(client: flight.FlightClient) -> None:
    for row in fetch(client, CommandGetTables(include_schema=True)).to_pylist():
        schema = pa.ipc.read_schema(pa.py_buffer(row["table_schema"]))
        asked = client.get_schema(query(f'SELECT * FROM "{row["table_name"]}"')).schema
        assert schema.names == SCHEMAS[row["table_name"]].names
        assert schema.types == asked.types
        assert {column.metadata[b"ARROW:FLIGHT:SQL:TABLE_NAME"].decode() for column in schema} == {row["table_name"]}


def test_keys(client: flight.FlightClient) -> None:
    assert names(client, CommandGetPrimaryKeys(table="series"), "column_name") == ["series_id"]
    assert names(client, CommandGetPrimaryKeys(table="flat"), "column_name") == []
    assert names(client, CommandGetPrimaryKeys(catalog="other", table="series"), "column_name") == []
    for command in (CommandGetExportedKeys(table="series"), CommandGetCrossReference(pk_table="series", fk_table="x")):
        assert fetch(client, command).num_rows == 0


def test_the_service_says_what_it_can(client: flight.FlightClient) -> None:
    info = fetch(client, CommandGetSqlInfo((0, 3, 8, 504, 99_999)))
    assert info.to_pydict() == {"info_name": [0, 3, 8, 504], "value": ["TimeDB", True, 0, '"']}
    assert fetch(client, CommandGetSqlInfo()).num_rows > 30


def test_types(client: flight.FlightClient) -> None:
    types = fetch(client, CommandGetXdbcTypeInfo())
    assert types.column("data_type").to_pylist() == sorted(types.column("data_type").to_pylist())
    assert names(client, CommandGetXdbcTypeInfo(12), "type_name") == ["VARCHAR"]
    assert names(client, CommandGetXdbcTypeInfo(4711), "type_name") == []


@pytest.mark.parametrize("command", CATALOG_COMMANDS)
def test_get_schema_says_the_same_columns(client: flight.FlightClient, command: type[Message]) -> None:
    assert client.get_schema(descriptor(command())).schema.equals(catalog_table(command()).schema)


# Statements


def create(client: flight.FlightClient, sql: str) -> ActionCreatePreparedStatementResult:
    """Prepare a statement."""
    body = pack(ActionCreatePreparedStatementRequest(sql))
    (result,) = client.do_action(flight.Action("CreatePreparedStatement", body))
    envelope = Envelope.from_bytes(result.body.to_pybytes(), what="result")
    assert envelope.type_url.endswith(".ActionCreatePreparedStatementResult")
    return ActionCreatePreparedStatementResult.from_bytes(envelope.value, what="result")


def bind(client: flight.FlightClient, handle: bytes, values: pa.Table) -> bytes:
    """Bind values to a statement; the handle that stands for both."""
    writer, reader = client.do_put(descriptor(CommandPreparedStatementQuery(handle)), values.schema)
    with suppress(flight.FlightError):
        writer.write_table(values)
        writer.done_writing()
    answer = reader.read()
    writer.close()
    bound = DoPutPreparedStatementResult.from_bytes(answer.to_pybytes(), what="result").prepared_statement_handle
    assert bound is not None
    return bound


def test_a_statement_is_prepared_bound_run_and_closed(client: flight.FlightClient) -> None:
    prepared = create(client, "SELECT $1 + 1 AS a, $2 AS b FROM flat WHERE valid_time > $3 LIMIT 1")
    parameters = pa.ipc.read_schema(pa.py_buffer(prepared.parameter_schema))
    assert parameters.types == [pa.string(), pa.string(), pa.timestamp("us", "UTC")]
    assert pa.ipc.read_schema(pa.py_buffer(prepared.dataset_schema)).names == ["a", "b"]
    handle = create(client, "SELECT $1 + 1 AS a, $2 AS b").prepared_statement_handle
    for number in (1, 2):
        bound = bind(client, handle, pa.table({"x": [number], "y": ["text"]}))
        assert fetch(client, CommandPreparedStatementQuery(bound)).to_pylist() == [{"a": number + 1, "b": "text"}]
    close = pack(ActionClosePreparedStatementRequest(handle))
    assert list(client.do_action(flight.Action("ClosePreparedStatement", close))) == []


def test_a_statement_without_parameters_needs_none(client: flight.FlightClient) -> None:
    handle = create(client, "SELECT 1 AS a").prepared_statement_handle
    assert fetch(client, CommandPreparedStatementQuery(handle)).to_pylist() == [{"a": 1}]
    assert bind(client, handle, pa.table({})) == handle


BAD_VALUES = {
    "no row": (pa.table({"x": pa.array([], pa.int64())}), "invalid_request", "no row"),
    "two rows": (pa.table({"x": [1, 2]}), "unimplemented", "several rows"),
    "too fine": (pa.table({"x": pa.array([1], pa.timestamp("ns", "UTC"))}), "invalid_request", "microsecond"),
    "too large": (pa.table({"x": ["x" * (20 << 20)]}), "too_large", "parameters"),
}


@pytest.mark.parametrize("what", BAD_VALUES)
def test_values_that_cannot_be_bound(client: flight.FlightClient, what: str) -> None:
    values, code, said = BAD_VALUES[what]
    with fails(code, said):
        bind(client, create(client, "SELECT $1").prepared_statement_handle, values)


def _envelope(name: str) -> bytes:
    return Envelope(f"type.googleapis.com/{name}", b"").to_bytes()


HANDLES = {
    "empty": b"",
    "garbage": b"\xff\xfe",
    "no object": b"[]",
    "unknown field": b'{"sql": "SELECT 1", "x": 1}',
    "no base64": b'{"sql": "SELECT 1", "parameters": "*"}',
    "no Arrow": json.dumps({"sql": "SELECT 1", "parameters": base64.b64encode(b"x" * 99).decode()}).encode(),
}


@pytest.mark.parametrize("what", HANDLES)
def test_a_handle_that_is_none(client: flight.FlightClient, what: str) -> None:
    with fails("invalid_request"):
        client.do_get(flight.Ticket(pack(TicketStatementQuery(HANDLES[what])))).read_all()
    with fails("invalid_request"):
        client.get_flight_info(descriptor(CommandPreparedStatementQuery(HANDLES[what])))


def test_what_is_not_offered_says_so(client: flight.FlightClient) -> None:
    package = "arrow.flight.protocol.sql."
    for name in ("CommandStatementUpdate", "CommandStatementSubstraitPlan", "CommandOfTheFuture"):
        with fails("unimplemented", name):
            client.get_flight_info(flight.FlightDescriptor.for_command(_envelope(package + name)))
        with fails("unimplemented", name):
            client.do_get(flight.Ticket(_envelope(package + name))).read_all()
    with fails("unimplemented", "transaction"):
        client.get_flight_info(descriptor(CommandStatementQuery("SELECT 1", b"t")))
    for action in (
        "BeginTransaction",
        "EndSavepoint",
        "CreatePreparedSubstraitPlan",
    ):
        with fails("unimplemented", action):
            list(client.do_action(flight.Action(action, b"anything")))
    with fails("unimplemented", "only an ingestion"):
        writer, _ = client.do_put(descriptor(CommandStatementQuery("SELECT 1")), pa.schema([]))
        writer.close()


def test_a_message_in_the_wrong_place(client: flight.FlightClient) -> None:
    with fails("invalid_request", "Flight SQL"):
        client.get_flight_info(flight.FlightDescriptor.for_command(_envelope("google.protobuf.Duration")))
    with fails("invalid_request", "does not belong here"):
        client.do_get(flight.Ticket(pack(ActionClosePreparedStatementRequest(b"x")))).read_all()
    with fails("invalid_request", "another message"):
        list(client.do_action(flight.Action("CreatePreparedStatement", pack(CommandGetCatalogs()))))
    with fails("invalid_request", "Flight SQL"):
        list(client.do_action(flight.Action("ClosePreparedStatement", b"\xff")))


def test_get_schema_of_a_query(client: flight.FlightClient) -> None:
    schema = client.get_schema(query('SELECT 1 AS a, 2 AS a, \'x\' AS "odd ""name"')).schema
    assert schema.names == ["a", "a", 'odd "name']
    with pytest.raises(pa.ArrowInvalid, match=r"^invalid_request: query: syntax error"):
        client.get_schema(query("SELEC 1"))
