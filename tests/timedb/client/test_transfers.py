"""Long transfers: over several streams, compressed, and shown as they go."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import timedb as td
from tests.flight_server.flights import eventually
from tests.timedb.conftest import T0, frame
from tests.timedb.relay import Relay
from timedb.client import Client
from timedb.contract.settings import ServerSettings, load_settings
from timedb.run.launch import Service, start_service


@pytest.fixture(scope="module")
def names(client: Client) -> list[str]:
    """Series in many buckets, 60,000 values in two revisions."""
    names = [f"transfer-{number}" for number in range(30)]
    for revision in (1.0, 2.0):
        client.upload(pl.concat([frame(each, [revision * hour for hour in range(1000)]) for each in names]))
    return names


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_compressed_answer_is_the_same(client: Client, names: list[str], compression: Any) -> None:
    plain = client.read_arrow(series_keys=names, ordered=True)
    packed = client.read_arrow(series_keys=names, ordered=True, compression=compression)
    assert packed.equals(plain)
    assert plain.num_rows == 30_000


def test_compression_makes_fewer_bytes(client: Client, service: Service, names: list[str]) -> None:
    sizes = {}
    for compression in (None, "lz4", "zstd"):
        with Relay(service.flight_url) as relay, td.connect(relay.url) as through:
            selection: dict[str, Any] = {"series_keys": names, "compression": compression}
            assert through.read_arrow(**selection).num_rows == 30_000
            sizes[compression] = relay.received
    assert sizes["lz4"] < 0.8 * sizes[None]
    assert sizes["zstd"] < 0.8 * sizes[None]


def test_an_unknown_compression_is_refused(client: Client) -> None:
    with pytest.raises(td.InvalidRequest, match="compression"):
        client.read(compression="snappy")  # type: ignore[arg-type]  # on purpose


SELECTIONS: dict[str, dict[str, Any]] = {
    "flat": {"ordered": True},
    "overlapping": {"view": "overlapping", "ordered": True, "columns": ["series_key", "valid_time", "value", "run_id"]},
    "in order of time": {"ordered": True, "order_by": "valid_time"},
    "under a limit": {"limit": 1234},
    "nothing": {"start_valid": T0, "end_valid": T0},
}


@pytest.mark.parametrize("how", SELECTIONS)
@pytest.mark.parametrize("parallel", [2, 40])
def test_several_streams_give_the_answer_of_one(client: Client, names: list[str], how: str, parallel: int) -> None:
    selection = {"series_keys": names, **SELECTIONS[how]}
    one = client.read_arrow(**selection)
    several = client.read_arrow(parallel=parallel, **selection)
    assert pl.DataFrame(several).equals(pl.DataFrame(one))
    assert several.schema.equals(one.schema)
    assert several.schema.metadata.keys() == one.schema.metadata.keys()
    for key in (b"table_version", b"as_of", b"token", b"cursor"):
        assert several.schema.metadata.get(key) == one.schema.metadata.get(key)
    assert (b"cursor" in several.schema.metadata) == (how == "under a limit")


def test_a_token_of_several_streams_reads_the_same_again(client: Client, name: str) -> None:
    client.upload(frame(name, [1.0, 2.0]), known_time=T0)
    answer = client.read_arrow(series_keys=name, parallel=2)
    client.upload(frame(name, [3.0, 4.0]))
    again = client.read(series_keys=name, token=answer.schema.metadata[b"token"].decode(), parallel=2, ordered=True)
    assert again["value"].to_list() == [1.0, 2.0]


def test_a_server_with_room_for_one_stream_gives_the_answer_over_one(lake_dir: Path) -> None:
    settings = load_settings(
        ServerSettings, lake=str(lake_dir), flight_port=0, max_concurrent_reads=1, shutdown_seconds=1.0
    )
    with start_service(settings, rest=False) as service, td.connect(service.flight_url) as client:
        client.upload(pl.concat([frame(f"s{number}", [1.0] * 2000) for number in range(30)]))
        assert client.read(parallel=8).height == 60_000


def test_several_streams_that_fail_raise_what_one_would(client: Client) -> None:
    for parallel in (1, 4):
        with pytest.raises(td.NotFound, match="no such series at all"):
            client.read(series_keys="no such series at all", parallel=parallel)
    with pytest.raises(td.InvalidRequest, match="parallel"):
        client.read(parallel=0)


def test_progress_counts_the_rows_both_ways(client: Client, names: list[str], name: str) -> None:
    sent: list[int] = []
    client.upload(frame(name, [1.0] * 300_000), progress=sent.append)
    assert sent[-1] == 300_000
    assert len(sent) >= 3
    assert sent == sorted(set(sent))
    for parallel in (1, 3):
        read: list[int] = []
        client.read(series_keys=names, progress=read.append, parallel=parallel)
        assert read[-1] == 30_000
        assert read == sorted(set(read))


def test_a_bar_is_for_terminals(client: Client, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    client.upload(frame(name, [1.0] * 10), progress=True)
    assert client.read(series_keys=name, progress=True).height == 10
    assert capfd.readouterr() == ("", "")


_TERMINAL = """
import os, pty, sys
def read(fd):
    data = os.read(fd, 65536)
    return data
sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], read)))
"""
_READER = """
import sys, timedb as td
with td.connect(sys.argv[1]) as client:
    client.read(series_keys=sys.argv[2], progress=True)
"""


def test_a_terminal_gets_a_bar(client: Client, service: Service, name: str) -> None:
    client.upload(frame(name, [1.0] * 1234))
    shown = subprocess.run(
        [sys.executable, "-c", _TERMINAL, _READER, service.flight_url, name],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={"TERM": "xterm", "PATH": "/usr/bin:/bin"},
        timeout=60,
        check=True,
    )
    assert b"Reading" in shown.stdout
    assert b"1,234 rows" in shown.stdout


_WITHOUT_PANDAS = """
import sys
sys.modules["pandas"] = None
import timedb as td
with td.connect("grpc://127.0.0.1:1") as client:
    try:
        client.read_pandas()
    except ModuleNotFoundError as error:
        print(error)
"""


def test_without_pandas_it_is_said_how_to_get_it() -> None:
    said = subprocess.run([sys.executable, "-c", _WITHOUT_PANDAS], capture_output=True, text=True, check=True)
    assert said.stdout == "read_pandas needs pandas: pip install pandas\n"


def test_a_peer_that_goes_silent_is_noticed_and_an_upload_sent_again(
    service: Service, client: Client, name: str
) -> None:
    with Relay(service.flight_url) as relay, td.connect(relay.url, keepalive=2.0, timeout=120.0) as through:
        eventually(lambda: answers(through))
        relay.silence()
        with pytest.raises(td.Busy, match="was lost"):  # not td.Timeout, which is what the end of the call's time is
            through.health()
        eventually(lambda: answers(through))
        relay.silence()
        assert through.upload(frame(name, [1.0, 2.0]), known_time=T0).rows == 2
    assert client.read(series_keys=name, view="overlapping").height == 2


def answers(client: Client) -> bool:
    """Whether a call gets through; on a machine without a moment to spare, a sign of life may come too late."""
    with suppress(td.Busy):
        return bool(client.health()["ok"])
    return False
