"""The examples of /openapi.json. They belong together: sent one after the other to a lake without users, each works."""

from __future__ import annotations

from timedb.contract.read_options import ACCURACY, READ, ROWS

__all__ = ["PATH", "QUERY", "RUN", "SERIES_ID", "TIME"]

SERIES_ID = "288dd910-eaab-5e01-bdbf-c6387db81bd4"
"""Of the series that the example of ``POST /series`` makes, where there are no users."""
RUN = "morning-forecast"
TIME = "2025-01-01T00:00:00Z"
_CURSOR = (
    "eyJhc19vZiI6IjIwMjUtMDEtMDFUMDA6MDA6MDAuMDAwMDAwKzAwOjAwIiwibGFzdCI6eyJ2YWxpZF90aW1lIjoiMjAyNS0wMS0wMVQwMDowMD"
    "owMC4wMDAwMDArMDA6MDAiLCJzZXJpZXNfaWQiOiIyODhkZDkxMC1lYWFiLTVlMDEtYmRiZi1jNjM4N2RiODFiZDQiLCJ2YWxpZF90aW1lX2Vu"
    "ZCI6bnVsbH0sInRhYmxlX3ZlcnNpb24iOjF9"
)
_AFTER = "WzAsImh1bWlkaXR5Iiwie30iLCIyODhkZDkxMC1lYWFiLTVlMDEtYmRiZi1jNjM4N2RiODFiZDQiXQ=="
PATH: dict[str, str] = {"series_id": SERIES_ID, "run_id": RUN}
"""Parameters in a path."""
QUERY: dict[str, object] = {option.name: option.example for option in (*ROWS, *READ, *ACCURACY)} | {
    "cursor": _CURSOR,
    "after": _AFTER,
    "series_id": [SERIES_ID],
    "name": ["temperature"],
    "labels": '{"site": "north"}',
    "search": "temp north",
    "format": "csv",
    "mode": "overlapping",
    "time_zone": "Europe/Stockholm",
    "intervals": True,
    "columns": "valid_time,value,revision",
    "non_finite": "text",
    "without_formulas": True,
    "delimiter": ";",
    "decimal": ",",
    "local_times": True,
    "limit": 1000,
    "wait": 30,
    "actual_id": SERIES_ID,
    "actual_key": "temperature",
    "actual_labels": '{"site": "north"}',
    "reference_labels": '{"site": "north"}',
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
    "update_id": "checked-2025-01",
    "create": False,
    "skip_unchanged": True,
}
"""Query parameters; one of the same name means the same in every call."""
