"""No message is longer than clients take: gRPC's 4 MiB, or what they ask for. gRPC itself is the judge here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.flights import (
    commit_marker,
    fails,
    hours,
    many_rows,
    read,
    read_command,
    read_ticket,
    rows_of,
    send,
    upload_command,
)
from tests.flight_server.sql_client import query
from timedb.contract.columns import COLUMN_TYPES
from timedb.contract.message_sizes import MESSAGE_BYTES, MESSAGE_BYTES_HEADER, joined
from timedb.flight_server import FlightService

SMALL = 1 << 16
ASKS = flight.FlightCallOptions(headers=[(MESSAGE_BYTES_HEADER.encode(), str(SMALL).encode())])


def strict(url: str, most: int) -> flight.FlightClient:
    """A client that refuses longer messages, as gRPC does by default in most languages, and in pyarrow does not."""
    return flight.connect(url, generic_options=[("grpc.max_receive_message_length", most)])


@pytest.fixture(scope="module")
def usual(flight_service: FlightService) -> Iterator[flight.FlightClient]:
    """Takes 4 MiB and asks for nothing."""
    with strict(flight_service.url, MESSAGE_BYTES) as client:
        yield client


@pytest.fixture(scope="module")
def small(flight_service: FlightService) -> Iterator[flight.FlightClient]:
    """Takes 64 KiB, and has to ask for so little with each call."""
    with strict(flight_service.url, SMALL) as client:
        yield client


@pytest.fixture(scope="module")
def texts(client: flight.FlightClient) -> pa.Table:
    """Rows of a thousand characters each, over 7 MB in all."""
    count = 7_000
    rows = rows_of(
        "long-texts",
        count,
        annotation=[f"{number:07d}" * 143 for number in range(count)],
        tags=pa.array([[f"{number}", "a tag"] for number in range(count)]),
    )
    send(client, rows, rows=count, run_id="long-texts")
    return rows


def test_rows_full_of_text_reach_a_client_that_takes_4_mib(usual: flight.FlightClient, texts: pa.Table) -> None:
    fields = {"series_keys": ["long-texts"], "columns": list(COLUMN_TYPES), "ordered": True}
    found = read(usual, **fields)
    assert found.column("annotation").to_pylist() == texts.column("annotation").to_pylist()
    assert found.column("tags").to_pylist() == [sorted(tags) for tags in texts.column("tags").to_pylist()]
    sizes = [chunk.data.nbytes for chunk in usual.do_get(read_ticket(**fields))]
    assert sum(sizes) > MESSAGE_BYTES > max(sizes)


def test_sql_answers_reach_a_client_that_takes_4_mib(usual: flight.FlightClient, texts: pa.Table) -> None:
    sql = (
        "SELECT annotation FROM \"values\" JOIN series USING (series_id) WHERE name = 'long-texts' ORDER BY valid_time"
    )
    (endpoint,) = usual.get_flight_info(query(sql)).endpoints
    found = usual.do_get(endpoint.ticket).read_all()
    assert found.column("annotation").to_pylist() == texts.column("annotation").to_pylist()


def test_a_long_dictionary_travels_with_the_rows_that_use_it(
    client: flight.FlightClient, small: flight.FlightClient
) -> None:
    count = 3_000
    send(client, many_rows("dictionary", count, count), rows=count)
    names = [f"dictionary-{number}" for number in range(count)]
    fields = {"series_keys": names, "columns": ["series_id", "series_key", "value"], "ordered": True}
    fields |= {"order_by": "valid_time"}
    whole = client.do_get(read_ticket(**fields)).read_all()
    assert whole.column("series_id").chunk(0).dictionary.nbytes > SMALL
    found = small.do_get(read_ticket(**fields), ASKS).read_all()
    assert found.to_pylist() == whole.to_pylist()
    assert found.num_rows == count


def test_a_receipt_of_many_series_comes_in_pieces(small: flight.FlightClient) -> None:
    count = 2_000
    rows = many_rows("receipt", count, count)
    writer, reader = small.do_put(upload_command(run_id="many-series"), rows.schema, ASKS)
    for batch in rows.to_batches(max_chunksize=500):
        writer.write_batch(batch)
    writer.write_metadata(commit_marker(count))
    writer.done_writing()
    pieces = []
    while (message := reader.read()) is not None:
        assert message.size <= SMALL
        pieces.append(json.loads(message.to_pybytes()))
    writer.close()
    assert len(pieces) > 1
    assert {(piece["run_id"], piece["rows"]) for piece in pieces} == {("many-series", count)}
    receipt = joined(pieces)
    assert set(receipt["series_ids"]) == {f"receipt-{number}" for number in range(count)}
    assert [one["series_id"] for one in receipt["series"]] == [
        receipt["series_ids"][one["series_key"]] for one in receipt["series"]
    ]


def test_a_receipt_whose_labels_fit_no_message_still_says_that_the_run_is_in(
    client: flight.FlightClient, small: flight.FlightClient, name: str
) -> None:
    labels = {f"label-{number}": "x" * 250 for number in range(300)}
    rows = rows_of(name, 2, labels=[json.dumps(labels)] * 2)
    writer, reader = small.do_put(upload_command(rows=2, run_id=name), rows.schema, ASKS)
    writer.write_table(rows)
    writer.done_writing()
    receipt = json.loads(reader.read().to_pybytes())
    writer.close()
    assert (receipt["run_id"], receipt["rows"], receipt["series_omitted"]) == (name, 2, True)
    assert read(client, series_keys=[name], labels={"label-0": "x" * 250}).num_rows == 2


def test_long_lists_come_in_pieces(client: flight.FlightClient, small: flight.FlightClient) -> None:
    count = 600
    send(client, many_rows("listed", count, count), rows=count)
    action = flight.Action("list_series", json.dumps({"search": "listed-"}).encode())
    (whole,) = [json.loads(result.body.to_pybytes()) for result in client.do_action(action)]
    pieces = [json.loads(result.body.to_pybytes()) for result in small.do_action(action, ASKS)]
    assert len(pieces) > 1
    assert joined(pieces) == whole
    assert len(whole["series"]) == count


def test_a_plan_of_many_series_fits_a_message(client: flight.FlightClient, small: flight.FlightClient) -> None:
    count = 400
    send(client, many_rows("plan", count, count), rows=count)
    found = json.loads(next(client.do_action(flight.Action("list_series", b'{"search": "plan-"}'))).body.to_pybytes())
    ids = [series["series_id"] for series in found["series"]]
    info = small.get_flight_info(read_command(series_ids=ids), ASKS)
    rows = [small.do_get(endpoint.ticket, ASKS).read_all().num_rows for endpoint in info.endpoints]
    assert len(rows) > 4
    assert sum(rows) == count
    # Names say nothing of buckets, so each ticket would have all of them: too long together, so there is one.
    names = [series["name"] for series in found["series"]]
    info = small.get_flight_info(read_command(series_keys=names * 5), ASKS)
    (endpoint,) = info.endpoints
    assert small.do_get(endpoint.ticket, ASKS).read_all().num_rows == count
    with fails("too_large", "command", MESSAGE_BYTES_HEADER):
        small.get_flight_info(read_command(series_keys=names * 10), ASKS)


def test_answers_to_a_lookup_are_cut_and_stay_in_order(
    client: flight.FlightClient, small: flight.FlightClient, name: str
) -> None:
    count = 5_000
    send(client, rows_of(name, count), rows=count)
    asked = pa.record_batch({"series_key": pa.array([name] * count), "valid_time": hours(count)})
    descriptor = flight.FlightDescriptor.for_command(b'{"op": "lookup"}')
    writer, reader = small.do_exchange(descriptor, ASKS)
    with writer:
        writer.begin(asked.schema)
        writer.write_batch(asked)
        writer.done_writing()
        answers = [chunk.data for chunk in reader]
    assert len(answers) > 1
    assert pa.Table.from_batches(answers).column("value").to_pylist() == list(np.arange(count, dtype=float))


def test_one_row_that_fits_no_message_is_refused_by_name(
    client: flight.FlightClient, small: flight.FlightClient, name: str
) -> None:
    tags = [[f"{number:0250d}" for number in range(300)]]
    send(client, rows_of(name, 1, tags=pa.array(tags)), rows=1)
    fields = {"series_keys": [name], "columns": ["valid_time", "tags"]}
    with fails("too_large", "one row", MESSAGE_BYTES_HEADER):
        small.do_get(read_ticket(**fields), ASKS).read_all()
    assert read(client, **fields).column("tags").to_pylist() == tags


@pytest.mark.parametrize("text", ["", "0", "-1", "4 MiB", "65535", "2147483648", "1e9"])
def test_a_limit_that_is_none_is_refused(client: flight.FlightClient, text: str) -> None:
    options = flight.FlightCallOptions(headers=[(MESSAGE_BYTES_HEADER.encode(), text.encode())])
    with fails("invalid_request", MESSAGE_BYTES_HEADER):
        client.do_get(read_ticket(limit=1), options).read_all()


def test_counts_are_the_truth_or_unknown(client: flight.FlightClient, name: str) -> None:
    for number in range(3):
        send(client, rows_of(name, 50), rows=50, known_time=f"2025-01-0{number + 1}T00:00:00Z")
    ways: list[dict[str, Any]] = [
        {"limit": 5},
        {"view": "latest"},
        {"start_valid": "2025-01-02T00:00:00Z"},
        {"all_versions": True},
    ]
    for way in ways:
        for view in ("flat", "overlapping"):
            fields = {"view": view, **way, "series_keys": [name]}
            if fields["view"] == "latest":
                fields.pop("all_versions", None)
            info = client.get_flight_info(read_command(**fields))
            assert info.total_records in (-1, read(client, **fields).num_rows), fields
            assert info.total_bytes == -1
    assert client.get_flight_info(read_command(view="overlapping", all_versions=True, limit=5)).total_records == 5
    list(client.do_action("compact"))  # rows of small writes, whose files several endpoints share, are not counted
    everything = client.get_flight_info(read_command(view="overlapping", all_versions=True))
    assert everything.total_records == read(client, view="overlapping", all_versions=True).num_rows
