"""``follow`` over the wire: rows with tokens, heartbeats, limits, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.callers import calling, outcome
from tests.flight_server.flights import Connect, Start, command, eventually, fails, read, read_command, rows_of, send
from timedb.contract.message_sizes import MESSAGE_BYTES_HEADER
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import parse_object
from timedb.flight_server import start_flight_server
from timedb.storage import Lake
from timedb.storage.users.users import NewUser, UserAddress

ONE = "11111111-1111-1111-1111-111111111111"


def follow(client: flight.FlightClient, options: Any = None, **fields: Any) -> flight.FlightStreamReader:
    """Begin to follow."""
    return client.do_get(flight.Ticket(command("follow", fields)), options or flight.FlightCallOptions())


def message(reader: flight.FlightStreamReader) -> tuple[pa.RecordBatch, str]:
    """The next rows, and the token of what follows them."""
    chunk = reader.read_chunk()
    (token,) = json.loads(chunk.app_metadata.to_pybytes()).values()
    return chunk.data, token


def some(reader: flight.FlightStreamReader) -> tuple[pa.RecordBatch, str]:
    """The next message that has rows."""
    while not (found := message(reader))[0].num_rows:
        pass
    return found


def test_rows_come_as_they_are_committed_with_the_token_of_what_follows(client: flight.FlightClient, name: str) -> None:
    send(client, rows_of(name), rows=3, run_id=name)
    reader = follow(client, series_keys=[name])
    assert {pa.types.is_dictionary(each.type) for each in reader.schema} == {False}
    assert float(reader.schema.metadata[b"heartbeat_seconds"]) == 15.0
    first, token = some(reader)
    send(client, rows_of(name, 2), rows=2, run_id=f"{name}-2")
    second, _ = some(reader)
    reader.cancel()
    assert (first.num_rows, second.num_rows) == (3, 2)
    assert second.column("run_id").to_pylist() == [f"{name}-2"] * 2
    since = read(client, view="changes", since=token, series_keys=[name])
    assert since.column_names == second.schema.names
    assert since.num_rows == 2
    again = follow(client, since=token, series_keys=[name])
    assert some(again)[0].num_rows == 2
    again.cancel()


def test_who_is_up_to_date_hears_it_at_once_and_then_by_heartbeats(
    start: Start, connect: Connect, client: flight.FlightClient, name: str
) -> None:
    send(client, rows_of(name), rows=3, run_id=name)
    other = connect(start(follow_heartbeat_seconds=0.01))
    reader = follow(other, since="now", series_keys=[name])
    for _ in range(3):
        batch, token = message(reader)
        assert batch.num_rows == 0
        assert batch.schema == reader.schema.remove_metadata()
    send(client, rows_of(name, 2), rows=2, run_id=f"{name}-2")  # by another server
    assert some(reader)[0].num_rows == 2
    reader.cancel()
    ended = follow(other, since=token, series_keys=[name], wait=False)
    assert ended.read_all().num_rows == 2


def test_who_wants_no_rows_is_woken_by_each_commit(client: flight.FlightClient, name: str) -> None:
    reader = follow(client, since="now", rows=False)
    tokens = [message(reader)[1]]
    send(client, rows_of(name), rows=3, run_id=name)
    while (found := message(reader))[1] == tokens[0]:
        pass
    assert found[0].num_rows == 0
    reader.cancel()


def test_each_piece_of_a_batch_has_a_token_of_its_own(client: flight.FlightClient, name: str) -> None:
    texts = pa.array([f"{number:06}" * 20 for number in range(2000)])
    send(client, rows_of(name, 2000, annotation=texts), rows=2000, run_id=name)
    options = flight.FlightCallOptions(headers=[(MESSAGE_BYTES_HEADER.encode(), b"65536")])
    reader = follow(client, options, series_keys=[name])
    batch, token = some(reader)
    reader.cancel()
    assert 0 < batch.num_rows < 2000
    rest = follow(client, since=token, series_keys=[name], wait=False).read_all()
    values = batch.column("value").to_pylist() + rest.column("value").to_pylist()
    assert values == [float(number) for number in range(2000)]


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"columns": ["value", "revision"]}, ("columns", "revision counts the revisions that stand")),
        ({"view": "flat"}, ("view", "follow gives each version as it was written")),
        ({"as_of": "2025-01-01T00:00:00Z"}, ("as_of", "cut-offs")),
        ({"lead_time": "PT1H"}, ("lead_time", "cut-offs")),
        ({"relative": {"time_zone": "UTC"}}, ("relative",)),
        ({"limit": 5}, ("limit", "limits")),
        ({"serieskeys": []}, ("serieskeys: unknown field of the ticket; did you mean series_keys",)),
        ({"identifiers": "dictionary"}, ("identifiers",)),
        ({"since": "yesterday"}, ("since: 'yesterday' is not the token of an answer",)),
        ({"columns": ["valu"]}, ("columns: unknown column 'valu'",)),
    ],
)
def test_what_follow_does_not_know_is_refused(
    client: flight.FlightClient, fields: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with fails("invalid_request", *parts):
        follow(client, **fields).read_chunk()


def test_it_has_no_plan_and_no_series_that_there_are_not(client: flight.FlightClient, name: str) -> None:
    with fails("invalid_request", "op"):
        client.get_flight_info(read_command(op="follow"))
    with fails("not_found", name):
        follow(client, series_keys=[name]).read_chunk()


def test_followers_have_places_of_their_own(start: Start, connect: Connect) -> None:
    service = start(max_followers=2, max_concurrent_reads=1, max_call_seconds=0.5, max_idle_seconds=0.5)
    client, followers = connect(service), service.slots["followers"]
    readers = [follow(client, since="now") for _ in range(2)]
    for reader in readers:
        message(reader)
    with fails("busy", "2 followers run already"):
        follow(client, since="now").read_chunk()
    assert read(client, series_ids=[]).num_rows == 0, "reads have theirs"
    readers[0].cancel()
    eventually(lambda: followers.taken == 1)
    assert message(follow(client, since="now"))[0].num_rows == 0
    eventually(lambda: service.calls_in_flight == followers.taken)


def test_a_server_that_stops_ends_them_at_once_and_says_so(start: Start, connect: Connect) -> None:
    service = start(shutdown_seconds=60.0)
    reader = follow(connect(service), since="now")
    message(reader)
    service.stop()
    with fails("busy", "the server is stopping"):
        reader.read_chunk()
    assert service.calls_in_flight == 0


def test_a_key_that_is_withdrawn_ends_it(lake_dir: Path) -> None:
    settings = load_settings(
        ServerSettings, lake=str(lake_dir), flight_port=0, follow_heartbeat_seconds=0.1, shutdown_seconds=1.0
    )
    lake = Lake.open(settings.lake, settings)
    made = lake.create_user(parse_object(NewUser, {"email": "a@example.com", "tenant_id": ONE}))
    labels = {"site": ["north"]}
    limited = lake.create_user(parse_object(NewUser, {"email": "b@example.com", "tenant_id": ONE, "labels": labels}))
    service = start_flight_server(lake, settings)
    with calling(service.url, made["api_key"]) as client, calling(service.url, limited["api_key"]) as other:
        reader, seen = follow(client, since="now"), follow(other)
        message(reader)
        message(seen)
        for site in ("north", "south"):
            labelled = rows_of("load", 1, labels=pa.array([f'{{"site": "{site}"}}']))
            send(client, labelled, rows=1, run_id=site)
        assert some(seen)[0].column("run_id").to_pylist() == ["north"]
        lake.users.set_active(parse_object(UserAddress, {"email": "a@example.com"}), False)

        def ends() -> None:
            while True:
                message(reader)

        assert outcome(ends)[0] == "unauthenticated"
        seen.cancel()
    with calling(service.url) as nobody:
        assert outcome(lambda: follow(nobody).read_chunk())[0] == "unauthenticated"
    service.stop()
    lake.close()
