"""``identifiers: plain``: the same answers for clients that cannot read dictionaries."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.flights import fails, many_rows, rows_of, send
from timedb.contract.columns import COLUMN_TYPES

READS: dict[str, dict[str, Any]] = {
    "flat": {},
    "overlapping, all columns": {"view": "overlapping", "columns": list(COLUMN_TYPES)},
    "all versions, in order": {"all_versions": True, "ordered": True},
    "a page": {"limit": 7, "order_by": "valid_time"},
    "latest": {"view": "latest", "columns": ["series_key", "value"]},
    "resampled": {"resample": {"period": "P1D", "aggregate": "mean"}},
    "compressed": {"compression": "zstd", "columns": ["run_id", "value"]},
    "nothing": {"start_valid": "2090-01-01T00:00:00Z"},
}


@pytest.fixture(scope="module")
def names(client: flight.FlightClient) -> list[str]:
    send(client, many_rows("plain", 400, series=5), rows=400, run_id="plain")
    return [f"plain-{number}" for number in range(5)]


def command(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def every_part(client: flight.FlightClient, body: dict[str, Any]) -> pa.Table:
    """What the endpoints of a read give together; each has the columns that the plan said."""
    descriptor = flight.FlightDescriptor.for_command(command(body))
    info = client.get_flight_info(descriptor)
    assert info.schema.equals(client.get_schema(descriptor).schema)
    parts = [client.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints]
    assert all(part.schema.equals(info.schema) for part in parts)
    return pa.concat_tables(parts) if parts else info.schema.empty_table()


def sorted_rows(table: pa.Table) -> list[Any]:
    return sorted(table.to_pylist(), key=repr)


def has_dictionaries(schema: pa.Schema) -> bool:
    return any(pa.types.is_dictionary(kind) for kind in schema.types)


@pytest.mark.parametrize("case", READS)
def test_the_same_rows_without_dictionaries(client: flight.FlightClient, names: list[str], case: str) -> None:
    asked = {"op": "read", "series_keys": names, **READS[case]}
    plain = {**asked, "identifiers": "plain"}
    usual, found = every_part(client, asked), every_part(client, plain)
    assert has_dictionaries(usual.schema)
    assert not has_dictionaries(found.schema)
    assert all(kind != pa.string_view() for kind in found.schema.types)
    assert sorted_rows(found) == sorted_rows(usual)
    at_once = client.do_get(flight.Ticket(command(plain))).read_all()
    assert at_once.schema.equals(found.schema)
    assert sorted_rows(at_once) == sorted_rows(found)


def test_the_accuracy_of_forecasts_too(client: flight.FlightClient, names: list[str]) -> None:
    send(client, rows_of("plain-actual", 80), rows=80)
    body = {"op": "accuracy", "series_keys": names, "actual_key": "plain-actual", "horizon": "P1D"}
    usual, found = every_part(client, body), every_part(client, {**body, "identifiers": "plain"})
    assert found.schema.field("series_id").type == pa.string()
    assert sorted_rows(found) == sorted_rows(usual)


def test_another_word_is_refused(client: flight.FlightClient) -> None:
    with fails("invalid_request", "identifiers", "'text'"):
        client.do_get(flight.Ticket(command({"op": "read", "identifiers": "text"}))).read_all()
