"""The figures for Prometheus: they count what was done, and a tenant sees its own only."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pyarrow import flight

from tests.flight_server.callers import calling
from tests.flight_server.flights import Connect, Start, act, fails, read, read_ticket, rows_of, send
from timedb.contract.errors import InvalidRequest
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import parse_object
from timedb.flight_server import start_flight_server
from timedb.storage import Lake
from timedb.storage.users.users import NewUser

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-222222222222"
DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


def figures(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of that name with those labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_calls_rows_and_bytes_are_counted(start: Start, connect: Connect, name: str) -> None:
    client = connect(start())
    send(client, rows_of(name, 5), rows=5)
    read(client, series_keys=[name])
    for _ in range(2):
        with fails("not_found"):
            read(client, series_keys=["there is no such series"])
    text = act(client, "metrics")["text"]
    for method, code, calls in (("do_put", "ok", 1), ("do_get", "ok", 1), ("do_get", "not_found", 2)):
        labels = {"tenant": OPEN_TENANT_ID, "method": method}
        assert figures(text, "timedb_flight_calls_total", code=code, **labels) == calls
    for method, calls in (("do_put", 1), ("do_get", 3)):
        assert figures(text, "timedb_flight_rows_total", method=method) == 5
        assert 5 * 16 <= figures(text, "timedb_flight_bytes_total", method=method) < 5_000
        assert figures(text, "timedb_flight_call_seconds_count", method=method) == calls
    assert figures(text, "timedb_flight_calls_running") == 1
    assert figures(text, "timedb_flight_slots_taken", kind="calls") == 1


def test_the_lake_is_measured(lake_dir: Path) -> None:
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0, maintenance_seconds=10_000.0)
    lake = Lake.open(settings.lake, settings)
    service = start_flight_server(lake, settings)
    with flight.connect(service.url) as client:
        send(client, rows_of("a", 4), rows=4)
        send(client, rows_of("a", 3), rows=3)
        text = act(client, "metrics")["text"]
        assert figures(text, "timedb_lake_compaction_debt_rows") == figures(text, "timedb_lake_rows") == 7
        assert figures(text, "timedb_lake_compaction_debt_files") == figures(text, "timedb_lake_files", tier="fresh")
        commits = figures(text, "timedb_lake_commits_total")
        act(client, "compact")
        text = act(client, "metrics")["text"]
        assert figures(text, "timedb_lake_compaction_debt_rows") == 0
        assert figures(text, "timedb_lake_rows", tier="current") == 4
        assert figures(text, "timedb_lake_commits_total") > commits
        assert figures(text, "timedb_lake_series") == 1
        assert figures(text, "timedb_lake_queued_writes") == figures(text, "timedb_lake_oldest_write_seconds") == 0
    service.stop()
    lake.close()


def test_a_tenant_sees_its_own_figures_and_the_port_shows_all(lake_dir: Path) -> None:
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0, metrics_port=0)
    lake = Lake.open(settings.lake, settings)
    keys = [
        lake.create_user(parse_object(NewUser, {"email": "a@example.com", "tenant_id": tenant}))["api_key"]
        for tenant in (ONE, TWO)
    ]
    service = start_flight_server(lake, settings)
    with calling(service.url, keys[0]) as one, calling(service.url, keys[1]) as two:
        send(one, rows_of("a", 3), rows=3)
        send(two, rows_of("a", 5), rows=5)
        text = act(one, "metrics")["text"]
        assert TWO not in text
        assert "calls_running" not in text, "what others do is nobody's business"
        assert figures(text, "timedb_flight_rows_total", method="do_put") == 3
        assert figures(text, "timedb_lake_rows") == 3
    with calling(service.url) as stranger, fails("unauthenticated"):
        act(stranger, "metrics")
    assert service.metrics_url is not None
    with urllib.request.urlopen(service.metrics_url) as answer:
        everything = answer.read().decode()
    assert figures(everything, "timedb_lake_rows", tenant=ONE) == 3
    assert figures(everything, "timedb_lake_rows", tenant=TWO) == 5
    assert figures(everything, "timedb_flight_calls_total", code="unauthenticated", tenant="-") == 1
    assert not [key for key in keys if key in everything]
    service.stop()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(service.metrics_url)
    lake.close()


def test_a_metrics_port_in_use_is_a_clear_error(start: Start) -> None:
    taken = start().port
    with pytest.raises(InvalidRequest, match=f"TIMEDB_METRICS_PORT.*port {taken}"):
        start(metrics_port=taken)


def test_every_figure_is_documented(start: Start, connect: Connect, wide_read: dict[str, object]) -> None:
    client = connect(start())
    client.do_get(read_ticket(series_keys=["wide-0"])).read_all()
    named = {
        sample.name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
        for family in text_string_to_metric_families(act(client, "metrics")["text"])
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    document = DOCUMENT.read_text()
    assert not [name for name in named if f"`{name}`" not in document]
