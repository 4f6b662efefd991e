"""``client.follow``: every version once, whatever becomes of the connection and of the server."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

import polars as pl
import pytest

import timedb as td
from tests.timedb.client.test_writer import serving
from tests.timedb.conftest import frame
from tests.timedb.relay import Relay
from timedb.client import Client
from timedb.client.following import Follower
from timedb.contract.settings import ServerSettings, load_settings
from timedb.flight_server import start_flight_server
from timedb.run.launch import Service
from timedb.storage import Lake


def taken(follower: Follower, runs: int) -> tuple[list[str], str | None]:
    """The run of each row until there were so many runs, and the token behind them."""
    found: list[str] = []
    while len(set(found)) < runs:
        rows, _ = next(follower)
        found += rows["run_id"].to_list()
    return found, follower.token


def test_what_is_written_after_it_began_is_seen(client: Client, name: str) -> None:
    client.upload(frame(name, [1.0]), run_id=f"{name}-0")
    with client.follow(since="now", series_keys=name) as follower:
        client.upload(frame(name, [2.0, 3.0]), run_id=f"{name}-1")
        rows, token = next(follower)
    assert rows.schema["series_id"] == pl.String
    assert rows.select("run_id", "value").rows() == [(f"{name}-1", 2.0), (f"{name}-1", 3.0)]
    assert next(follower, None) is None
    assert client.read(view="changes", since=token, series_keys=name).height == 0
    client.update_values([{"value_id": rows["value_id"][0], "retracted": True}])
    with client.follow(since=token, series_keys=name, columns=["retracted"], wait=False) as follower:
        assert [rows.rows() for rows, _ in follower] == [[(True,)]]


def test_a_lost_connection_is_made_anew(service: Service, client: Client, name: str) -> None:
    client.upload(frame(name, [1.0]), run_id=f"{name}-0")
    with Relay(service.flight_url) as relay, td.connect(relay.url) as through:
        follower = through.follow(series_keys=name)
        found, _ = taken(follower, 1)
        for number in range(1, 4):
            relay.cut()
            client.upload(frame(name, [1.0, 2.0]), run_id=f"{name}-{number}")
            found += taken(follower, 1)[0]
        follower.close()
    assert Counter(found) == {f"{name}-0": 1, **{f"{name}-{number}": 2 for number in range(1, 4)}}


def test_a_server_that_is_killed_and_started_anew_is_followed_on(lake_dir: Path, name: str) -> None:
    found: list[str] = []
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        server, url = stack.enter_context(serving(lake_dir, log.fileno()))
        with td.connect(url) as client:
            follower = client.follow()
            client.upload(frame(name, [1.0] * 3), run_id="before")
            found += taken(follower, 1)[0]
            client.upload(frame(name, [1.0] * 3), run_id="perhaps unseen")
            server.kill()
            server.wait(30)
            settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=int(url.rpartition(":")[2]))
            with closing(Lake.open(str(lake_dir), settings)) as lake:
                service = start_flight_server(lake, settings)
                client.compact()
                client.upload(frame(name, [2.0] * 3), run_id="after")
                while "after" not in found:
                    found += next(follower)[0]["run_id"].to_list()
                follower.close()
                service.stop()
    assert Counter(found) == {"before": 3, "perhaps unseen": 3, "after": 3}


def test_what_cannot_be_followed_is_an_error_at_once(client: Client, name: str) -> None:
    with pytest.raises(td.NotFound, match=name):
        client.follow(series_keys=name)
    with pytest.raises(td.InvalidRequest, match="since"):
        client.follow(since="yesterday")
    with pytest.raises(td.InvalidRequest, match="view"):
        client.follow(view="flat")  # type: ignore[call-arg]
    with td.connect("grpc://127.0.0.1:1") as nobody, pytest.raises(td.Unavailable):
        nobody.follow()


def test_closing_ends_a_wait(client: Client) -> None:
    follower = client.follow(since="now", series_ids=[])
    waiting = threading.Thread(target=lambda: list(follower))
    waiting.start()
    follower.close()
    waiting.join(30)
    assert not waiting.is_alive()
