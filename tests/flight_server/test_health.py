"""``health`` says when writes are stuck, at both doors, and nothing else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pyarrow import flight

from flight_server import FlightService, start_flight_server
from storage import Lake
from storage.lane import Answer, Turn
from tests.flight_server.flights import act, eventually, rows_of, send, upload_command
from timedb.identity import OPEN_TENANT_ID
from timedb.launch import start_gateway
from timedb.settings import ServerSettings, load_settings


class Stuck:
    """A write whose turn does not end before it is told to."""

    rows = 1
    key = None
    shareable = False

    def __init__(self) -> None:
        self.release = threading.Event()

    def prepare(self, turn: Turn) -> Answer:
        self.release.wait(60)
        return Answer({})


@pytest.fixture
def lake(lake_dir: Path) -> Iterator[Lake]:
    lake = Lake.open(str(lake_dir), load_settings(ServerSettings, lake=str(lake_dir)))
    yield lake
    lake.close()


@pytest.fixture
def service(lake: Lake) -> Iterator[FlightService]:
    service = start_flight_server(lake, load_settings(ServerSettings, flight_port=0, stuck_seconds=0.2))
    yield service
    service.stop()


def test_a_write_that_is_stuck_shows_at_both_doors(lake: Lake, service: FlightService) -> None:
    stuck, lane = Stuck(), lake.tenant(OPEN_TENANT_ID).lane
    gateway = start_gateway(load_settings(ServerSettings, flight_url=service.url, rest_port=0))
    with gateway, flight.connect(service.url) as client, httpx.Client(base_url=gateway.rest_url) as rest:
        assert act(client, "health") == {"ok": True}
        writing = threading.Thread(target=lane.submit, args=(stuck,))
        writing.start()
        try:
            eventually(lambda: act(client, "health") == {"ok": False})
            answer = rest.get("/health")
            assert (answer.status_code, answer.json()["code"]) == (503, "busy")
            assert "stuck" in answer.json()["detail"]
            assert lane.oldest_seconds > 0.2
        finally:
            stuck.release.set()
            writing.join(30)
        eventually(lambda: act(client, "health") == {"ok": True})
        assert rest.get("/health").status_code == 200


def test_the_oldest_write_counts_not_the_turn_that_runs(lake: Lake) -> None:
    first, second, lane = Stuck(), Stuck(), lake.tenant(OPEN_TENANT_ID).lane
    writing = [threading.Thread(target=lane.submit, args=(one,)) for one in (first, second)]
    for thread in writing:
        thread.start()
    eventually(lambda: lane.queued == 1)
    waited = lane.oldest_seconds
    first.release.set()
    eventually(lambda: lane.queued == 0)
    assert lane.oldest_seconds > waited / 2
    second.release.set()
    for thread in writing:
        thread.join(30)
    eventually(lambda: lane.oldest_seconds == 0.0)


def test_a_commit_is_logged_under_the_request_that_asked_for_it(
    service: FlightService, caplog: pytest.LogCaptureFixture
) -> None:
    named = flight.FlightCallOptions(headers=[(b"x-request-id", b"upload-1")])
    with flight.connect(service.url) as client, caplog.at_level(logging.INFO):
        act(client, "create_series", {"name": "a"}, headers=[(b"x-request-id", b"other-1")])
        rows = rows_of("a")
        writer, reader = client.do_put(upload_command(rows=3), rows.schema, named)
        writer.write_table(rows)
        writer.done_writing()
        assert reader.read() is not None
        writer.close()
        send(client, rows_of("b"), rows=3)
    commits = [record.getMessage() for record in caplog.records if record.getMessage().startswith("committed ")]
    assert [line.endswith(" request_id=upload-1") for line in commits] == [True, False]
    assert "rows=3" in commits[0]
