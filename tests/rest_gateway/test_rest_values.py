"""``GET /values`` and ``PUT /values``: which rows, in which order, in which format."""

from __future__ import annotations

import json
import math
from datetime import datetime
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

import httpx
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.rest_gateway.calls import START, assert_error, hours, read, upload
from timedb.contract.columns import AUDIT_COLUMNS
from timedb.files.formats import ParquetBody, write_body
from timedb.rest_gateway.answer.formats import style_of

if TYPE_CHECKING:
    pass

ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"
FLAT = ["valid_time", "series_id", "value", "series_key", "series_unit"]


def values(answer: dict[str, Any]) -> list[Any]:
    return [row["value"] for row in answer["data"]]


@pytest.fixture
def revised(rest: httpx.Client, name: str) -> str:
    """A series with two runs, known at 06:00 and at 12:00, and a correction of the second one."""
    upload(rest, hours(name, [1.0, 2.0, 3.0]), known_time="2025-01-01T06:00:00Z", run_id=f"{name}-early")
    run = upload(rest, hours(name, [10.0, 20.0]), known_time="2025-01-01T12:00:00Z", run_id=f"{name}-late")
    update = {"series_id": run["series_ids"][name], "valid_time": "2025-01-01T01:00:00", "value": 21.0}
    update |= {"annotation": "checked", "tags": ["B", "a "], "changed_by": "me"}
    assert rest.put("/values", json={"updates": [update]}).status_code == 200
    return name


def test_the_newest_rows(rest: httpx.Client, revised: str) -> None:
    assert values(read(rest, revised, last=2)) == [21.0, 3.0]
    assert values(read(rest, revised, descending="true")) == [3.0, 21.0, 10.0]
    assert values(read(rest, revised, mode="overlapping", last=2)) == [2.0, 3.0, 21.0], "of each, all its revisions"
    page = read(rest, revised, descending="true", limit=2)
    assert values(page) == [3.0, 21.0]
    assert values(read(rest, revised, descending="true", limit=2, cursor=page["next_cursor"])) == [10.0]
    assert values(read(rest, revised, mode="overlapping", order_by="valid_time", descending="true", limit=1)) == [3.0]
    assert_error(
        rest.get("/values", params={"mode": "latest", "last": 1}),
        422,
        "invalid_request",
        "last: goes with the views flat",
    )
    assert_error(rest.get("/values", params={"last": "-1"}), 422, "invalid_request", "last: ")


def test_columns_are_chosen_and_series_stand_side_by_side(rest: httpx.Client, revised: str) -> None:
    answer = read(rest, revised, columns="valid_time,value, revision", newest_run="true")
    assert [(row.pop("valid_time")[11:13], row) for row in answer["data"]] == [
        ("00", {"value": 10.0, "revision": 2}),
        ("01", {"value": 21.0, "revision": 2}),
    ]
    upload(rest, hours(f"{revised}-b", [5.0, "NaN"]), known_time="2025-01-01T06:00:00Z")
    asked = {"name": [revised, f"{revised}-b"], "pivot": "series_key"}
    wide = rest.get("/values", params=asked | {"limit": 2}).json()
    assert wide["count"] == 2
    assert wide["data"][0] == {
        "valid_time": "2025-01-01T00:00:00.000000+00:00",
        "valid_time_end": None,
        revised: 10.0,
        f"{revised}-b": 5.0,
    }
    assert wide["data"][1][f"{revised}-b"] is None
    rest_of_it = rest.get("/values", params=asked | {"limit": 2, "cursor": wide["next_cursor"], "format": "csv"}).text
    assert (
        rest_of_it.splitlines()
        == [f"valid_time,valid_time_end,{revised},{revised}-b", "2025-01-01T02:00:00.000000+00:00,,3,"]
        or rest_of_it.splitlines()[1] == "2025-01-01T02:00:00.000000+00:00,,3.0,"
    )
    filled = {"period": "1h", "fill": "0", "start_valid": START, "end_valid": "2025-01-01T05:00:00Z"}
    assert values(read(rest, revised, **filled)) == [10.0, 21.0, 3.0, 0.0, 0.0]
    for parameters, says in (
        ({"columns": "value", "intervals": "true"}, "intervals: columns says whether valid_time_end is there"),
        ({"columns": "value", "pivot": "series_key"}, "columns: pivot makes the columns"),
        ({"period": "1h", "fill": "next"}, "fill: 'next' is not"),
        ({"fill": "0"}, "period: is missing; fill needs it"),
    ):
        refused = rest.get("/values", params={"name": revised, **parameters})
        assert refused.status_code == 422
        assert says in refused.text


def test_a_flat_row_has_exactly_the_five_columns(rest: httpx.Client, revised: str) -> None:
    answer = read(rest, revised)
    assert values(answer) == [10.0, 21.0, 3.0]
    assert [list(row) for row in answer["data"]] == [FLAT] * 3
    assert [row["valid_time"] for row in answer["data"]] == [
        f"2025-01-01T0{hour}:00:00.000000+00:00" for hour in range(3)
    ]


def test_overlapping_rows_have_known_time_and_are_sorted_by_it(rest: httpx.Client, revised: str) -> None:
    answer = read(rest, revised, mode="overlapping")
    assert values(answer) == [1.0, 2.0, 3.0, 10.0, 21.0]
    assert [row["known_time"][11:13] for row in answer["data"]] == ["06", "06", "06", "12", "12"]
    assert set(answer["data"][0]) == {*FLAT, "known_time"}


@pytest.mark.parametrize("flag", ["true", "True", "1"])
def test_all_versions_adds_the_audit_columns_in_order_of_change(rest: httpx.Client, revised: str, flag: str) -> None:
    flat = read(rest, revised, all_versions=flag)
    assert values(flat) == [10.0, 20.0, 21.0, 3.0]
    assert set(flat["data"][0]) == {*FLAT, *AUDIT_COLUMNS}
    first, second = flat["data"][1:3]
    assert first["change_time"] < second["change_time"]
    assert first["value_id"] == second["value_id"]
    assert (second["annotation"], second["tags"], second["changed_by"]) == ("checked", ["a", "b"], "me")
    assert (first["annotation"], first["tags"]) == (None, None)
    assert second["run_id"] == f"{revised}-late"
    everything = read(rest, revised, all_versions=flag, mode="overlapping")
    assert values(everything) == [1.0, 2.0, 3.0, 10.0, 20.0, 21.0]


def test_known_time_and_change_time_filters(rest: httpx.Client, revised: str) -> None:
    assert values(read(rest, revised, end_known="2025-01-01T12:00:00")) == [1.0, 2.0, 3.0]
    assert values(read(rest, revised, start_known="2025-01-01T12:00:00")) == [10.0, 21.0]
    before = read(rest, revised, all_versions=True)["data"][1]["change_time"]
    assert values(read(rest, revised, as_of=before)) == [10.0, 20.0, 3.0]


def test_a_day_ahead_gate(rest: httpx.Client, name: str) -> None:
    upload(rest, hours(name, [1.0]), known_time="2024-12-31T08:59:00Z")
    upload(rest, hours(name, [2.0]), known_time="2024-12-31T09:01:00Z")
    gate = {"days_ahead": 1, "time_of_day": "10:00", "time_zone": "Europe/Stockholm"}
    assert values(read(rest, name, **gate)) == [1.0]
    assert values(read(rest, name, time_zone="UTC")) == [2.0], "one day ahead at 10:00 is the default"


def test_times_without_offset_are_utc_and_a_plus_may_be_lost(rest: httpx.Client, revised: str) -> None:
    same = [{"start_valid": "2025-01-01T01:00"}, {"start_valid": "2025-01-01 01:00:00Z"}]
    assert [values(read(rest, revised, **each)) for each in same] == [[21.0, 3.0]] * 2
    url = f"/values?name={revised}&start_valid=2025-01-01T03:00:00+02:00"  # unescaped, so the server sees a space
    assert values(rest.get(url).json()) == [21.0, 3.0]


def test_series_are_chosen_by_id_name_and_labels(rest: httpx.Client, name: str) -> None:
    ids = {}
    for site in ("north", "south"):
        body = {"name": name, "labels": {"site": site}, "unit": "MW"}
        ids[site] = rest.post("/series", json=body).json()["series_id"]
    rows = [
        {"valid_time": START, "series_id": ids[site], "value": value}
        for site, value in zip(ids, [1.0, 2.0], strict=True)
    ]
    upload(rest, rows)
    both = rest.get("/values", params={"series_id": list(ids.values())}).json()
    assert both["count"] == 2
    assert [row["series_id"] for row in both["data"]] == sorted(ids.values())
    assert values(rest.get("/values", params={"series_id": ids["south"]}).json()) == [2.0]
    assert values(read(rest, name, labels='{"site": "north"}')) == [1.0]
    assert read(rest, name, labels='{"site": ["north", "south"]}')["count"] == 2
    assert_error(
        rest.post("/runs", json={"run_start_time": START, "value_rows": hours(name, [1.0])}),
        422,
        "invalid_request",
        name,
    )


def test_intervals_have_their_end_on_request(rest: httpx.Client, name: str) -> None:
    end = "2025-01-01T01:00:00Z"
    upload(rest, [{"valid_time": START, "valid_time_end": end, "value_key": name, "value": 5.0}, *hours(name, [6.0])])
    assert sorted(values(read(rest, name))) == [5.0, 6.0]
    answer = read(rest, name, intervals="true")
    assert {(row["valid_time_end"], row["value"]) for row in answer["data"]} == {
        ("2025-01-01T01:00:00.000000+00:00", 5.0),
        (None, 6.0),
    }
    assert set(answer["data"][0]) == {*FLAT, "valid_time_end"}


def test_null_nan_and_infinity(rest: httpx.Client, name: str) -> None:
    literals = json.dumps({"run_start_time": START, "value_rows": hours(name, [math.nan, math.inf, -math.inf])})
    assert "NaN" in literals
    response = rest.post("/runs", content=literals, headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    upload(rest, hours(name, ["NaN", "Infinity", "-Infinity", None, -0.0], day="2025-01-02"))
    answer = read(rest, name)
    assert values(answer) == [None] * 7 + [-0.0]
    assert math.copysign(1, values(answer)[-1]) == -1
    assert pd.DataFrame(answer["data"])["value"].dtype == "float64"
    assert values(read(rest, name, non_finite="text")) == ["NaN", "Infinity", "-Infinity"] * 2 + [None, -0.0]
    arrow = rest.get("/values", params={"name": name}, headers={"Accept": ARROW})
    column = pa.ipc.open_stream(arrow.content).read_all()["value"].combine_chunks()
    assert column.null_count == 1
    assert repr(column.to_pylist()) == repr([math.nan, math.inf, -math.inf] * 2 + [None, -0.0])
    text = rest.get("/values", params={"name": name}, headers={"Accept": "text/csv"}).text
    assert [line.split(",")[2] for line in text.splitlines()[1:]] == ["NaN", "Infinity", "-Infinity"] * 2 + ["", "-0.0"]


def test_every_format_tells_the_same(rest: httpx.Client, revised: str) -> None:
    parameters: dict[str, Any] = {"name": revised, "mode": "overlapping", "all_versions": True, "intervals": True}
    whole = rest.get("/values", params=parameters).json()
    rows = whole["data"]
    assert whole["count"] == len(rows) == 6

    answer = rest.get("/values", params=parameters, headers={"Accept": NDJSON})
    assert answer.headers["content-type"] == NDJSON
    assert [json.loads(line) for line in answer.text.splitlines()] == rows

    answer = rest.get("/values", params=parameters, headers={"Accept": ARROW})
    assert answer.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.column_names == list(rows[0])
    assert [as_json(row) for row in table.to_pylist()] == rows
    assert table.schema.metadata[b"as_of"].decode() == answer.headers["x-as-of"]
    assert table.schema.metadata[b"table_version"].decode() == answer.headers["x-table-version"]

    answer = rest.get("/values", params=parameters, headers={"Accept": PARQUET})
    assert answer.headers["content-type"] == PARQUET
    assert parquet.read_table(BytesIO(answer.content)).equals(table)

    answer = rest.get("/values", params=parameters, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    frame = pd.read_csv(StringIO(answer.text), converters={"tags": lambda text: json.loads(text) if text else None})
    expected = pd.DataFrame(rows)
    assert list(frame.columns) == list(expected.columns)
    for column in frame:
        assert [each if filled(each) else None for each in frame[column]] == [
            each if filled(each) else None for each in expected[column]
        ], column


def filled(value: Any) -> bool:
    return isinstance(value, list) or not pd.isna(value)


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def test_an_empty_answer_in_every_format(rest: httpx.Client, revised: str) -> None:
    parameters = {"name": revised, "start_valid": "2100-01-01"}
    assert rest.get("/values", params=parameters).json() == {"count": 0, "data": []}
    assert rest.get("/values", params=parameters, headers={"Accept": NDJSON}).text == ""
    assert rest.get("/values", params=parameters, headers={"Accept": "text/csv"}).text == ",".join(FLAT) + "\n"
    arrow = rest.get("/values", params=parameters, headers={"Accept": ARROW})
    assert pa.ipc.open_stream(arrow.content).read_all().num_rows == 0
    file = rest.get("/values", params=parameters, headers={"Accept": PARQUET})
    assert parquet.read_table(BytesIO(file.content)).column_names == FLAT


@pytest.mark.parametrize("path", ["/values", "/accuracy"])
def test_format_wins_over_accept(rest: httpx.Client, revised: str, path: str) -> None:
    parameters = {"name": revised} | ({"actual_key": revised} if path == "/accuracy" else {})
    types = {"json": "application/json", "arrow": ARROW, "parquet": PARQUET, "ndjson": NDJSON, "csv": "text/csv"}
    for name, media_type in types.items():
        answer = rest.get(path, params={**parameters, "format": name}, headers={"Accept": "text/csv"})
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] == media_type
        assert answer.headers["x-token"]
    wrong = rest.get(path, params={**parameters, "format": "xml"})
    assert_error(wrong, 422, "invalid_request", "format", "xml")


def test_row_groups_of_parquet_are_written_as_they_fill_up() -> None:
    batch = pa.record_batch({"value": pa.array(range(100_000), pa.float64()), "series_id": pa.array(["a"] * 100_000)})
    pieces = list(write_body(ParquetBody(batch.schema, style_of(None, non_finite_text=False)), [batch] * 7))
    file = parquet.ParquetFile(BytesIO(b"".join(pieces)))
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [300_000] * 2 + [
        100_000
    ]
    assert len([piece for piece in pieces if len(piece) > 4]) == 3
    assert file.read()["value"].to_pylist()[-1] == 99_999.0


@pytest.mark.parametrize("accept", ["application/json", NDJSON, ARROW, PARQUET, "text/csv"])
@pytest.mark.parametrize("mode", ["flat", "overlapping"])
def test_pages_hold_every_row_once(rest: httpx.Client, revised: str, mode: str, accept: str) -> None:
    parameters: dict[str, Any] = {"name": revised, "mode": mode}
    whole = values(read(rest, revised, mode=mode))
    seen: list[float] = []
    for _ in range(len(whole) + 1):
        page = rest.get("/values", params={**parameters, "limit": 2}, headers={"Accept": accept})
        found, cursor = page_of(accept, page)
        assert len(found) <= 2
        assert cursor == page.headers.get("x-next-cursor")
        seen += found
        if cursor is None:
            break
        parameters["cursor"] = cursor
    assert seen == whole


def test_pages_stay_on_the_state_of_the_first(rest: httpx.Client, revised: str) -> None:
    first = read(rest, revised, limit=2)
    upload(rest, hours(revised, [100.0, 200.0, 300.0, 400.0]), known_time="2025-01-01T18:00:00Z")
    second = read(rest, revised, limit=2, cursor=first["next_cursor"])
    assert values(first) + values(second) == [10.0, 21.0, 3.0]
    assert "next_cursor" not in second
    assert values(read(rest, revised)) == [100.0, 200.0, 300.0, 400.0]


def test_every_view_has_its_parameters(rest: httpx.Client, revised: str) -> None:
    windows = {"window_length": "1h", "issue_offset": "-PT1H", "start_window": "2025-01-01"}
    assert values(read(rest, revised, start_valid="2025-01-01T12:00:00Z", **windows)) == []
    upload(rest, hours(revised, [7.0, 8.0]), known_time="2024-12-31T22:30:00Z")
    assert values(read(rest, revised, **windows)) == [7.0, 8.0]
    assert values(read(rest, revised, lead_time="90m")) == [7.0, 8.0]
    assert values(read(rest, revised, mode="latest")) == [3.0]
    assert values(read(rest, revised, mode="first")) == [7.0, 8.0, 3.0]
    assert values(read(rest, revised, mode="first", period="1d", aggregate="max")) == [8.0]
    assert values(read(rest, revised, period="1d", aggregate="max")) == [21.0]
    assert values(read(rest, revised, period="1d", aggregate="median")) == [10.0]
    assert values(read(rest, revised, period="1d", aggregate="quantile:0.25")) == [6.5]
    refused = rest.get("/values", params={"name": revised, "period": "1d", "aggregate": "p25"})
    assert_error(refused, 422, "invalid_request", "aggregate: 'p25' is another spelling of quantile:0.25; use that")
    before = rest.get("/values", params={"name": revised}).headers["x-token"]
    upload(rest, hours(revised, [9.0]), known_time="2025-01-01T20:00:00Z")
    assert values(read(rest, revised, mode="changes", since=before)) == [9.0]
    assert values(read(rest, revised, token=before)) == [10.0, 21.0, 3.0]


def page_of(accept: str, page: httpx.Response) -> tuple[list[float], str | None]:
    """The values of a page and where the next one starts."""
    assert page.status_code == 200, page.text
    if accept == ARROW:
        table = pa.ipc.open_stream(page.content).read_all()
        cursor = table.schema.metadata.get(b"cursor")
        return table["value"].to_pylist(), cursor.decode() if cursor else None
    if accept == PARQUET:
        table = parquet.read_table(BytesIO(page.content))
        cursor = table.schema.metadata.get(b"cursor")
        return table["value"].to_pylist(), cursor.decode() if cursor else None
    if accept == "text/csv":
        return list(pd.read_csv(BytesIO(page.content))["value"]), page.headers.get("x-next-cursor")
    if accept == NDJSON:
        return [json.loads(line)["value"] for line in page.text.splitlines()], page.headers.get("x-next-cursor")
    return values(page.json()), page.json().get("next_cursor")


def test_a_correction_by_winner_by_id_and_by_run(rest: httpx.Client, revised: str) -> None:
    rows = read(rest, revised, all_versions=True, mode="overlapping")["data"]
    early, series_id = rows[0], rows[0]["series_id"]
    updates = [
        {"value_id": early["value_id"], "value": 1.5},
        {"series_id": series_id, "valid_time": START, "annotation": "of the winner"},
        {"run_id": f"{revised}-early", "series_id": series_id, "valid_time": "2025-01-01T02:00:00", "value": None},
        {"run_id": f"{revised}-late", "series_id": series_id, "valid_time": "2025-01-01T02:00:00", "value": "NaN"},
    ]
    answer = rest.put("/values", json={"updates": updates, "update_id": f"{revised}-update"}).json()
    assert len(answer["updated"]) == 4
    assert [list(row) for row in answer["updated"]] == [
        ["value_id", "run_id", "tenant_id", "valid_time", "series_id"]
    ] * 4
    assert {row["valid_time"] for row in answer["updated"]} == {
        "2025-01-01T00:00:00.000000+00:00",
        "2025-01-01T02:00:00.000000+00:00",
    }
    assert values(read(rest, revised, mode="overlapping", non_finite="text")) == [1.5, 2.0, None, 10.0, 21.0, "NaN"]
    again = rest.put("/values", json={"updates": updates, "update_id": f"{revised}-update"}).json()
    assert again == answer, "a retry answers as the first time"
    assert_error(
        rest.put("/values", json={"updates": updates[:1], "update_id": f"{revised}-update"}),
        409,
        "conflict",
        "update_id",
    )


def test_a_single_revision_can_be_retracted_and_brought_back(rest: httpx.Client, revised: str) -> None:
    winner = read(rest, revised, all_versions=True)["data"][0]
    assert winner["value"] == 10.0
    rest.put("/values", json={"updates": [{"value_id": winner["value_id"], "retracted": True}]}).raise_for_status()
    assert values(read(rest, revised)) == [1.0, 21.0, 3.0]
    rest.put("/values", json={"updates": [{"value_id": winner["value_id"], "retracted": False}]}).raise_for_status()
    assert values(read(rest, revised)) == [10.0, 21.0, 3.0]


def test_a_batch_of_corrections_is_all_or_nothing(rest: httpx.Client, revised: str) -> None:
    series_id = read(rest, revised)["data"][0]["series_id"]
    updates = [
        {"series_id": series_id, "valid_time": START, "value": 99.0},
        {"series_id": series_id, "valid_time": "2099-01-01T00:00:00Z", "value": 99.0},
    ]
    assert_error(rest.put("/values", json={"updates": updates}), 404, "not_found", "updates.1")
    assert values(read(rest, revised)) == [10.0, 21.0, 3.0]


def test_csv_for_spreadsheets_has_no_formulas(rest: httpx.Client, name: str) -> None:
    upload(rest, hours(f"=1+1 {name}", [-1.0]), run_id=f"@{name}", known_time=START)
    asked = {"name": f"=1+1 {name}", "format": "csv", "mode": "overlapping", "all_versions": "true"}
    plain = rest.get("/values", params=asked)
    guarded = rest.get("/values", params={**asked, "without_formulas": "true"})
    assert f",-1.0,=1+1 {name}," in plain.text
    assert f",-1.0,'=1+1 {name}," in guarded.text
    assert f",'@{name}," in guarded.text
