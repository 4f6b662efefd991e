"""The notebook that describes the REST API, cell by cell, with its own payloads over real HTTP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pandas as pd
import pytest
import requests

from timedb.contract.identity import OPEN_TENANT_ID

if TYPE_CHECKING:
    from timedb.run.launch import Service

# The notebook sends a key although the lake is open.
HEADERS = {"Content-Type": "application/json", "X-API-Key": "OekXZaRjQDxdQ-3NfX_Y0p7SzgRWSkd2q32VxUkJbTs"}
PLAIN = {"Content-Type": "application/json"}
BASE_TIME = datetime(2025, 1, 1, 0, 0, tzinfo=UTC)
NEW_BASE_TIME = datetime(2025, 1, 2, 0, 0, tzinfo=UTC)
SERIES = [
    {"name": "temperature", "description": "Temperature measurements in Celsius", "unit": "celsius"},
    {"name": "humidity", "description": "Relative humidity percentage", "unit": "percent"},
]
UNITS = {"temperature": "celsius", "humidity": "percent"}
FLAT_COLUMNS = ["valid_time", "series_id", "value", "series_key", "series_unit"]


@pytest.fixture
def url(new_service: Callable[..., Service]) -> str:
    return new_service().rest_url


def answer(response: requests.Response) -> Any:
    response.raise_for_status()
    return response.json()


def times(base: datetime, count: int) -> list[datetime]:
    return [base + timedelta(hours=hour) for hour in range(count)]


def text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")


def flat_rows(series_ids: dict[str, str], values: dict[str, list[float]], base: datetime) -> list[dict[str, Any]]:
    """The rows of a flat answer, in its order."""
    keys = sorted(values, key=lambda key: series_ids[key])
    return [
        {
            "valid_time": text(time),
            "series_id": series_ids[key],
            "value": values[key][hour],
            "series_key": key,
            "series_unit": UNITS[key],
        }
        for hour, time in enumerate(times(base, len(values[keys[0]])))
        for key in keys
    ]


def test_every_cell_of_the_notebook(url: str) -> None:
    # Part 2: the API is there
    info = answer(requests.get(f"{url}/"))
    assert info["name"] == "TimeDB API"
    for endpoint, says in {
        "read_values": "GET /values - Read time series values",
        "upload_timeseries": "POST /upload - Upload time series data (create a new run with values)",
        "create_series": "POST /series - Create a new time series",
        "list_timeseries": "GET /list_timeseries - List all time series (series_id -> series_key mapping)",
        "update_records": "PUT /values - Update existing time series records",
    }.items():
        assert info["endpoints"][endpoint] == says

    # Part 3: create the series
    created_series = {}
    for series_info in SERIES:
        result = answer(requests.post(f"{url}/series", json=series_info, headers=HEADERS))
        assert result["message"] == "Series created successfully"
        created_series[series_info["name"]] = result["series_id"]
    for series_info in SERIES:  # the cell run a second time
        again = answer(requests.post(f"{url}/series", json=series_info, headers=HEADERS))
        assert again == {"series_id": created_series[series_info["name"]], "message": "Series already exists"}

    # 3.1: upload
    values = {
        "temperature": [20.0 + hour * 0.3 for hour in range(24)],
        "humidity": [60.0 - hour * 0.5 for hour in range(24)],
    }
    value_rows = [
        {"valid_time": date.isoformat(), "value_key": key, "value": values[key][hour]}
        for hour, date in enumerate(times(BASE_TIME, 24))
        for key in ("temperature", "humidity")
    ]
    create_run_request: dict[str, Any] = {"run_start_time": datetime.now(UTC).isoformat(), "value_rows": value_rows}
    uploaded = answer(requests.post(f"{url}/upload", json=create_run_request, headers=HEADERS))
    run_id = uploaded["run_id"]
    assert uploaded["message"] == "Run created successfully"
    assert uploaded["series_ids"] == created_series, "a value_key finds the series of that name"

    # 3.2: list
    assert answer(requests.get(f"{url}/list_timeseries", headers=HEADERS)) == {
        created_series[info["name"]]: {
            "series_key": info["name"],
            "description": info["description"],
            "unit": info["unit"],
            "labels": {},
        }
        for info in SERIES
    }

    # Part 4: read, flat
    params: dict[str, Any] = {
        "start_valid": BASE_TIME.isoformat(),
        "end_valid": (BASE_TIME + timedelta(hours=24)).isoformat(),
        "mode": "flat",
        "all_versions": False,
    }
    data = answer(requests.get(f"{url}/values", params=params, headers=HEADERS))
    assert data == {"count": 48, "data": flat_rows(created_series, values, BASE_TIME)}
    df_api = pd.DataFrame(data["data"])
    assert list(df_api.columns) == FLAT_COLUMNS
    assert df_api["value"].dtype == "float64"
    assert str(pd.to_datetime(df_api["valid_time"]).dtype).startswith("datetime64")

    # 4.1: read, overlapping
    params |= {"end_valid": (BASE_TIME + timedelta(hours=6)).isoformat(), "mode": "overlapping"}
    overlapping = answer(requests.get(f"{url}/values", params=params))
    known = {row.pop("known_time") for row in overlapping["data"]}
    assert len(known) == 1, "the upload's time of receipt"
    assert overlapping == {
        "count": 12,
        "data": flat_rows(created_series, {key: each[:6] for key, each in values.items()}, BASE_TIME),
    }

    # Part 5: insert a second run
    new_values = {
        "temperature": [25.0 + hour * 0.2 for hour in range(12)],
        "humidity": [50.0 - hour * 0.3 for hour in range(12)],
    }
    new_rows = [
        {"valid_time": date.isoformat(), "value_key": key, "value": new_values[key][hour]}
        for hour, date in enumerate(times(NEW_BASE_TIME, 12))
        for key in ("temperature", "humidity")
    ]
    new_run: dict[str, Any] = {"run_start_time": datetime.now(UTC).isoformat(), "value_rows": new_rows}
    result_new = answer(requests.post(f"{url}/runs", json=new_run, headers=PLAIN))
    assert result_new["message"] == "Run created successfully"
    assert result_new["run_id"] != run_id
    assert result_new["series_ids"] == created_series

    params = {
        "start_valid": NEW_BASE_TIME.isoformat(),
        "end_valid": (NEW_BASE_TIME + timedelta(hours=12)).isoformat(),
        "mode": "flat",
    }
    data_new = answer(requests.get(f"{url}/values", params=params))
    assert data_new == {"count": 24, "data": flat_rows(created_series, new_values, NEW_BASE_TIME)}

    # Part 6: update a record
    one_hour: dict[str, Any] = {
        "start_valid": BASE_TIME.isoformat(),
        "end_valid": (BASE_TIME + timedelta(hours=1)).isoformat(),
        "mode": "flat",
    }
    before = answer(requests.get(f"{url}/values", params=one_hour))
    series_mapping = {record["series_key"]: UUID(record["series_id"]) for record in before["data"]}
    update_request = {
        "updates": [
            {
                "run_id": run_id,
                "tenant_id": "00000000-0000-0000-0000-000000000000",
                "valid_time": BASE_TIME.isoformat(),
                "series_id": str(series_mapping["temperature"]),
                "value": 22.5,
                "annotation": "Updated via API",
            }
        ]
    }
    update_result = answer(requests.put(f"{url}/values", json=update_request, headers=PLAIN))
    (updated,) = update_result["updated"]
    value_id = updated.pop("value_id")
    assert value_id
    assert updated == {
        "run_id": run_id,
        "tenant_id": OPEN_TENANT_ID,
        "valid_time": text(BASE_TIME),
        "series_id": created_series["temperature"],
    }
    assert update_result["skipped_no_ops"] == []
    again = answer(requests.put(f"{url}/values", json=update_request, headers=PLAIN))
    assert again == {"updated": [], "skipped_no_ops": [{"value_id": value_id, **updated}]}

    # Part 7: verify
    data_verify = answer(requests.get(f"{url}/values", params={**one_hour, "all_versions": True}))
    df_verify = pd.DataFrame(data_verify["data"])
    df_verify["valid_time"] = pd.to_datetime(df_verify["valid_time"])
    temp_records = df_verify[(df_verify["series_key"] == "temperature") & (df_verify["valid_time"] == BASE_TIME)]
    assert len(temp_records) == 2
    assert list(temp_records[["valid_time", "series_key", "value", "changed_by", "change_time"]]["value"]) == [
        20.0,
        22.5,
    ]
    assert list(temp_records["change_time"]) == sorted(temp_records["change_time"])
    current = temp_records.iloc[-1]
    assert current["value"] == 22.5
    assert current["annotation"] == "Updated via API"
    assert data_verify["count"] == 3, "and one of humidity"
    after = answer(requests.get(f"{url}/values", params=one_hour))
    assert {row["series_key"]: row["value"] for row in after["data"]} == {"temperature": 22.5, "humidity": 60.0}
