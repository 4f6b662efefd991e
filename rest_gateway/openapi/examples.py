"""The examples of /openapi.json. They belong together: sent one after the other to a lake without users, each works."""

from __future__ import annotations

__all__ = ["PATH", "QUERY", "RUN", "SERIES_ID", "TIME"]

SERIES_ID = "288dd910-eaab-5e01-bdbf-c6387db81bd4"
"""Of the series that the example of ``POST /series`` makes, where there are no users."""
RUN = "morning-forecast"
TIME = "2025-01-01T00:00:00Z"
_TOKEN = "eyJhc19vZiI6IjIwMjUtMDEtMDFUMDA6MDA6MDAuMDAwMDAwKzAwOjAwIiwidGFibGVfdmVyc2lvbiI6MX0="
_CURSOR = (
    "eyJhc19vZiI6IjIwMjUtMDEtMDFUMDA6MDA6MDAuMDAwMDAwKzAwOjAwIiwibGFzdCI6eyJ2YWxpZF90aW1lIjoiMjAyNS0wMS0wMVQwMDowMDow"
    "MC4wMDAwMDArMDA6MDAiLCJzZXJpZXNfaWQiOiIyODhkZDkxMC1lYWFiLTVlMDEtYmRiZi1jNjM4N2RiODFiZDQiLCJ2YWxpZF90aW1lX2VuZCI6"
    "bnVsbH19"
)
_AFTER = "WzAsImh1bWlkaXR5Iiwie30iLCIyODhkZDkxMC1lYWFiLTVlMDEtYmRiZi1jNjM4N2RiODFiZDQiXQ=="
PATH: dict[str, str] = {"series_id": SERIES_ID, "run_id": RUN}
"""Parameters in a path."""
QUERY: dict[str, object] = {
    "start_valid": TIME,
    "end_valid": "2025-01-02T00:00:00Z",
    "start_known": TIME,
    "end_known": "2025-01-02T00:00:00+01:00",
    "as_of": "2025-01-01T12:00:00Z",
    "token": _TOKEN,
    "since": _TOKEN,
    "cursor": _CURSOR,
    "after": _AFTER,
    "series_id": [SERIES_ID],
    "name": ["temperature"],
    "labels": '{"site": "north"}',
    "search": "temp north",
    "format": "csv",
    "mode": "overlapping",
    "all_versions": True,
    "days_ahead": 1,
    "time_of_day": "10:00",
    "time_zone": "Europe/Stockholm",
    "window_length": "P1D",
    "issue_offset": "-PT14H",
    "start_window": TIME,
    "lead_time": "36h",
    "period": "P1D",
    "aggregate": "max",
    "unit": "kelvin",
    "intervals": True,
    "non_finite": "text",
    "limit": 1000,
    "actual_id": SERIES_ID,
    "actual_key": "temperature",
    "horizon": "6h",
    "workflow_id": "api-workflow",
    "start": TIME,
    "end": "2025-01-02T00:00:00Z",
    "run_start_time": TIME,
    "run_finish_time": "2025-01-01T00:05:00Z",
    "known_time": TIME,
    "run_id": "evening-forecast",
    "run_params": '{"model": "v2"}',
    "create_series": True,
    "skip_unchanged": True,
}
"""Query parameters; one of the same name means the same in every call."""
