"""SQL as the tests send it: through the ADBC driver, or as bare messages of Flight SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.flights import INSIDE
from timedb.flight_server.sql.messages import CommandStatementQuery, pack
from timedb.flight_server.sql.protobuf import Message

KEY_OPTION = "adbc.flight.sql.rpc.call_header.x-api-key"


@contextmanager
def connected(url: str, key: str | None = None) -> Iterator[adbc.Connection]:
    """A connection of the driver, which sends a key with every call."""
    options = {} if key is None else {KEY_OPTION: key}
    with adbc.connect(url, db_kwargs=options, autocommit=True) as connection:
        yield connection


def ask(connection: adbc.Connection, sql: str, parameters: Sequence[Any] | None = None) -> pa.Table:
    """The answer of a query."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        table: pa.Table = cursor.fetch_arrow_table()
    table.validate(full=True)
    return table


def column(connection: adbc.Connection, sql: str, parameters: Sequence[Any] | None = None) -> list[Any]:
    """The only column of an answer."""
    (found,) = ask(connection, sql, parameters).columns
    values: list[Any] = found.to_pylist()
    return values


@contextmanager
def refused(code: str, *parts: str) -> Iterator[None]:
    """The driver must fail with this code, say ``parts``, and show nothing of the inside."""
    with pytest.raises(adbc_driver_manager.Error) as caught:
        yield
    text = str(caught.value)
    assert f"{code}: " in text, text
    assert not [part for part in parts if part not in text], text
    assert not [each for each in INSIDE if each in text], text


def descriptor(message: Message) -> flight.FlightDescriptor:
    """The descriptor of a command."""
    return flight.FlightDescriptor.for_command(pack(message))


def query(sql: str) -> flight.FlightDescriptor:
    """The descriptor of a query."""
    return descriptor(CommandStatementQuery(sql))


def fetch(client: flight.FlightClient, message: Message) -> pa.Table:
    """The answer of a command by plain Flight: first where it is, then what."""
    info = client.get_flight_info(descriptor(message))
    (endpoint,) = info.endpoints
    table = client.do_get(endpoint.ticket).read_all()
    assert table.schema.remove_metadata().equals(info.schema.remove_metadata())
    return table
