"""The dashboard of docs/clients: each of its queries is answered, its macros written out as Grafana's plugin does."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import flight

from tests.flight_server.flights import rows_of, send
from tests.flight_server.sql_client import ask, connected
from timedb.flight_server import FlightService

DASHBOARD = json.loads((Path(__file__).parents[3] / "docs" / "clients" / "grafana.json").read_text())
START = datetime(2025, 1, 1, tzinfo=UTC)
FROM, TO = "2025-01-01T00:00:00Z", "2025-01-01T06:00:00Z"


def written_out(sql: str, series: str) -> str:
    """A query as the plugin sends it, for six hours in bins of one."""
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= '{FROM}' AND \1 <= '{TO}'", sql)
    sql = re.sub(
        r"\$__dateBin\((\w+)\)", r"date_bin(interval '3600 second', \1, timestamp '1970-01-01T00:00:00Z')", sql
    )
    sql = sql.replace("$__timeFrom", f"cast('{FROM}' as timestamp)").replace("$__timeTo", f"cast('{TO}' as timestamp)")
    sql = sql.replace("${series}", series)
    assert "$" not in sql, sql
    return sql


def test_every_query_of_the_dashboard_is_answered(flight_service: FlightService, name: str) -> None:
    times = [START + timedelta(minutes=30 * number) for number in range(4)]
    with flight.connect(flight_service.url) as client:
        for hours in (1, 2):
            values = pa.array([hours * 10.0 + number for number in range(4)])
            rows = rows_of(name, 4, valid_time=pa.array(times, pa.timestamp("us", "UTC")), value=values)
            send(client, rows, rows=4, known_time=(START - timedelta(hours=4 - hours)).isoformat())
    (variable,) = [each for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    with connected(flight_service.url) as connection:
        found: dict[str, list[tuple[Any, ...]]] = {}
        for panel in DASHBOARD["panels"]:
            (target,) = panel["targets"]
            answer = ask(connection, written_out(target["queryText"], name))
            found[panel["title"]] = [tuple(row.values()) for row in answer.to_pylist()]
        names = ask(connection, written_out(variable["query"]["queryText"], name))["name"].to_pylist()
    assert name in names
    assert found["What is known last"] == [(START, name, 20.5), (START + timedelta(hours=1), name, 22.5)]
    assert found["Known then and known last"] == [(time, 10.0 + i, 20.0 + i) for i, time in enumerate(times)]
    assert found["Revisions of the last hour shown"] == [
        (START - timedelta(hours=3), 13.0),
        (START - timedelta(hours=2), 23.0),
    ]
    assert len(found["Newest uploads"]) >= 2
