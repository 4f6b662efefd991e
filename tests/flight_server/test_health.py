"""``health`` says when writes are stuck, at both doors, and nothing else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest
from pyarrow import flight

import timedb as td
from tests.flight_server.flights import act, eventually, rows_of, send, upload_command
from tests.storage.lakes import some_rows, upload
from timedb.contract.errors import Conflict
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.times import now
from timedb.flight_server import FlightService, start_flight_server
from timedb.run.launch import start_gateway, start_service
from timedb.storage import Lake
from timedb.storage.commit.writes import Answer, CommitContext


class Stuck:
    """A write whose turn does not end before it is told to."""

    rows = stamps = 1
    key = None
    shareable = False

    def __init__(self) -> None:
        self.release = threading.Event()

    def prepare(self, context: CommitContext) -> Answer:
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
            eventually(lambda: act(client, "health")["ok"] is False)
            answer = rest.get("/health")
            assert (answer.status_code, answer.json()["code"]) == (503, "busy")
            assert "stuck" in answer.json()["detail"]
            assert lane.oldest_seconds > 0.2
        finally:
            stuck.release.set()
            writing.join(30)
        eventually(lambda: act(client, "health") == {"ok": True})
        assert rest.get("/health").status_code == 200


def test_a_lake_that_goes_under_its_servers_shows_at_both_doors(lake_dir: Path, tmp_path: Path) -> None:
    with start_service(load_settings(ServerSettings, lake=str(lake_dir), flight_port=0, rest_port=0)) as service:
        body = {
            "value_rows": [{"valid_time": "2025-01-01T12:00:00Z", "value_key": "wind", "value": 4.2}],
            "run_start_time": "2025-01-01T06:00:00Z",
        }
        with flight.connect(service.flight_url) as client, httpx.Client(base_url=service.rest_url) as rest:
            assert rest.post("/upload", json=body).status_code == 200
            with pytest.raises(Conflict, match=service.flight_url):
                td.delete(str(lake_dir))
            td.delete(str(lake_dir), force=True)
            gone, another = "gone from its place", "another lake"
            for lost, then in ((gone, td.create), (another, td.create_with_users), (another, td.create)):
                for answer in (rest.post("/upload", json=body), rest.get("/values?name=wind"), rest.get("/runs")):
                    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
                    assert lost in answer.json()["detail"]
                eventually(partial(_fails_for, client, lost))
                assert act(client, "health")["ok"] is False
                assert (rest.get("/health").status_code, lost in rest.get("/health").json()["detail"]) == (503, True)
                then(str(lake_dir))
        assert sorted(path.name for path in lake_dir.iterdir()) == [".timedb-known", "timedb-lake.json", "users"]


def test_a_start_long_after_the_last_write_shows_at_both_doors(lake_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0, rest_port=0)
    with closing(Lake.open(str(lake_dir), settings)) as lake, monkeypatch.context() as then:
        then.setattr("timedb.storage.commit.lane.now", lambda: now() - timedelta(days=400))
        upload(lake.tenant(OPEN_TENANT_ID), some_rows(1, known=1), "of then")
    with start_service(settings) as service, flight.connect(service.flight_url) as client:
        health = act(client, "health")
        assert health["ok"], health
        assert "started 400 days" in health["warning"]
        answer = httpx.get(f"{service.rest_url}/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "warning": health["warning"]})
        assert act(client, "status")["clock_warning"] == health["warning"]
        assert (
            f'timedb_lake_clock_doubtful{{tenant="{OPEN_TENANT_ID}"}} 1.0'
            in httpx.get(f"{service.rest_url}/metrics").text
        )


def _fails_for(client: flight.FlightClient, reason: str) -> bool:
    return reason in act(client, "health").get("reason", "")


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
