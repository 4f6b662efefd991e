"""The client against a real service: what goes in comes out, whatever library it is in."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import timedb as td
from tests.timedb.conftest import T0, frame
from timedb.client import Client
from timedb.contract.wire import ListSeries, ReadCommand, UploadCommand
from timedb.run.launch import Service

VALUES = [1.5, None, -3.0]


def from_duckdb(data: pl.DataFrame) -> duckdb.DuckDBPyRelation:
    return duckdb.from_arrow(data.to_arrow())


FORMS: dict[str, Callable[[pl.DataFrame], Any]] = {
    "polars": lambda data: data,
    "polars, categorical": lambda data: data.with_columns(pl.col("series_key").cast(pl.Categorical)),
    "polars, enum": lambda data: data.with_columns(pl.col("series_key").cast(pl.Enum(data["series_key"].unique()))),
    "polars, another zone": lambda data: data.with_columns(pl.col("valid_time").dt.convert_time_zone("Asia/Kolkata")),
    "polars, nanoseconds": lambda data: data.with_columns(pl.col("valid_time").dt.cast_time_unit("ns")),
    "polars, in crumbs": lambda data: pl.concat([data[i : i + 1] for i in range(data.height)], rechunk=False),
    "pandas": lambda data: data.to_pandas(),
    "pandas, category": lambda data: data.to_pandas().astype({"series_key": "category"}),
    "pandas, indexed by time": lambda data: data.to_pandas().set_index("valid_time"),
    "arrow table": lambda data: data.to_arrow(),
    "arrow batch": lambda data: data.rechunk().to_arrow().to_batches()[0],
    "arrow reader": lambda data: data.to_arrow().to_reader(),
    "duckdb": from_duckdb,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_frame_of_any_make_comes_back_the_same(client: Client, name: str, form: str) -> None:
    data = frame(name, VALUES)
    receipt = client.upload(FORMS[form](data), known_time=T0)
    (series_id,) = receipt.series_ids.values()
    assert receipt.series == [{"series_key": name, "labels": {}, "series_id": series_id}]
    assert (receipt.rows, receipt.skipped) == (3, 0)
    assert receipt.change_time.utcoffset() == timedelta(0)
    back = client.read(series_keys=name, columns=data.columns, ordered=True)
    assert back.with_columns(pl.col("series_key").cast(pl.String)).equals(data)


def test_every_column_of_an_upload_arrives(client: Client, name: str) -> None:
    known = [T0 - timedelta(days=2), T0 - timedelta(days=1)]
    data = pl.DataFrame(
        {
            "series_key": [name] * 2,
            "labels": ['{"source":"a"}'] * 2,
            "valid_time": [T0] * 2,
            "valid_time_end": [T0 + timedelta(hours=1)] * 2,
            "known_time": known,
            "value": [1, 2],
            "annotation": ["first", None],
            "tags": [["x", "y"], None],
        }
    )
    client.upload(data)
    columns = ["known_time", "valid_time_end", "value", "annotation", "tags"]
    back = client.read(series_keys=name, view="overlapping", columns=columns, ordered=True)
    assert back.sort("known_time").rows() == [
        (known[0], T0 + timedelta(hours=1), 1.0, "first", ["x", "y"]),
        (known[1], T0 + timedelta(hours=1), 2.0, None, None),
    ]
    assert client.list_series(name=name)[0]["labels"] == {"source": "a"}
    assert client.series_labels(name) == {"source": ["a"]}


def test_null_and_nan_are_told_apart(client: Client, name: str) -> None:
    client.upload(frame(name, [None, math.nan, math.inf, -math.inf]))
    first, *others = client.read(series_keys=name, ordered=True)["value"].to_list()
    assert first is None
    assert str(others) == "[nan, inf, -inf]"


def test_a_large_upload_and_read(client: Client, name: str) -> None:
    data = frame(name, [float(i) for i in range(300_000)])
    assert client.upload(data).rows == 300_000
    assert client.read(series_keys=name, ordered=True)["value"].equals(data["value"])


def test_a_read_comes_in_pleasant_types(client: Client, name: str) -> None:
    client.upload(frame(name, VALUES))
    columns = ["series_id", "series_key", "run_id", "valid_time", "known_time", "value", "annotation", "tags"]
    time = pl.Datetime("us", "UTC")
    assert client.read(series_keys=[name], columns=columns).dtypes == [
        pl.Categorical,
        pl.Categorical,
        pl.Categorical,
        time,
        time,
        pl.Float64,
        pl.String,
        pl.List(pl.String),
    ]
    pandas = client.read_pandas(series_keys=[name], columns=columns)
    assert pandas["valid_time"].dtype == pd.DatetimeTZDtype("us", "UTC")
    assert pandas["series_key"].dtype == "category"
    assert pandas["value"].sum() == -1.5
    arrow = client.read_arrow(series_keys=[name])
    assert arrow.schema.metadata.keys() >= {b"table_version", b"as_of"}


def test_nothing_selected_is_an_empty_frame_with_its_columns(client: Client, name: str) -> None:
    client.upload(frame(name, VALUES))
    nothing = client.read(series_keys=name, end_valid=T0)
    assert nothing.height == 0
    assert nothing.columns == ["series_id", "valid_time", "value"]


def test_what_comes_out_goes_in_again(client: Client, name: str) -> None:
    client.upload(frame(name, VALUES), known_time=T0)
    receipt = client.upload(client.read(series_keys=name, view="overlapping"), skip_unchanged=True)
    assert (receipt.rows, receipt.skipped) == (3, 0) or (receipt.rows, receipt.skipped) == (0, 3)
    assert client.read_arrow(series_keys=name).num_rows == 3


def test_pages_follow_one_another(client: Client, name: str) -> None:
    client.upload(frame(name, [float(i) for i in range(10)]))
    seen: list[float] = []
    after: str | None = None
    while True:
        page = client.read_arrow(series_keys=name, ordered=True, limit=4, after=after)
        seen += page["value"].to_pylist()
        cursor = page.schema.metadata.get(b"cursor")
        if cursor is None:
            break
        after = cursor.decode()
    assert seen == [float(i) for i in range(10)]


def test_times_may_be_of_any_make(client: Client, name: str) -> None:
    client.upload(frame(name, [0.0, 1.0, 2.0, 3.0]))
    in_stockholm = timezone(timedelta(hours=1))
    bounds: list[Any] = [
        T0 + timedelta(hours=2),
        (T0 + timedelta(hours=2)).astimezone(in_stockholm),
        pd.Timestamp(T0) + pd.Timedelta(hours=2),
        "2025-01-01T03:00:00+01:00",
    ]
    for bound in bounds:
        assert client.read(series_keys=name, start_valid=bound)["value"].sort().to_list() == [2.0, 3.0]


WINDOWS = {"window_length": "PT6H", "issue_offset": "-PT1H", "start_window": "2025-01-01T00:00:00Z"}
HOURLY = {"period": "1h", "aggregate": "mean"}


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        ({"start_valid": datetime(2025, 1, 1)}, "start_valid: .* has no time zone; give it one, such as .*tzinfo"),
        ({"start_valid": "2025-01-01T00:00"}, "start_valid: .* has no time zone; add one, such as a trailing Z"),
        ({"start_vaild": T0}, r"start_vaild: unknown field; did you mean start_valid\?"),
        ({"as_of": pd.Timestamp("2025-01-01")}, "as_of: .* has no time zone"),
        ({"end_known": "yesterday"}, "end_known: 'yesterday' is not an RFC 3339 time"),
        ({"start_valid": T0, "end_valid": T0 - timedelta(1)}, "end_valid .* is before start_valid"),
        ({"colour": "red"}, "colour: unknown field; there are series_ids, series_keys, labels, .*"),
        ({"view": "sideways"}, "view: 'sideways'"),
        ({"limit": 0}, "limit: 0"),
        ({"columns": ["colour"]}, "columns: unknown column 'colour'"),
        ({"relative": {"days_ahead": 1}}, "time_zone is missing"),
        ({"relative": {"days_ahead": 0, "time_zone": "UTC"}}, "10:00 with days_ahead 0 .* inside its own window"),
        ({"relative": {"time_zone": "Mars/Phobos"}}, "relative.time_zone: 'Mars/Phobos' is not a time zone"),
        ({"relative": {**WINDOWS, "time_zone": "Mars/Phobos"}}, "relative.time_zone: 'Mars/Phobos'"),
        ({"relative": {**WINDOWS, "issue_offset": "PT1H"}}, "issue_offset PT1H is a cut-off inside its own window"),
        ({"relative": {**WINDOWS, "window_length": "PT0S"}}, "window_length PT0S is not longer than nothing"),
        ({"relative": {**WINDOWS, "window_length": "-P1D"}}, "window_length -P1D is not longer than nothing"),
        ({"relative": {**WINDOWS, "window_length": "P1DT6H"}}, "window_length P1DT6H mixes months, days and hours"),
        ({"relative": {**WINDOWS, "window_length": "a day"}}, "relative.window_length: 'a day' is not a duration"),
        ({"relative": {**WINDOWS, "window_length": "P99999Y"}}, "relative.window_length: .* ten thousand years"),
        ({"relative": {"window_length": "PT6H"}}, "issue_offset is missing"),
        ({"relative": {**WINDOWS, "days_ahead": 1}}, "days_ahead belongs to the daily gate"),
        ({"lead_time": "-P1M"}, "lead_time: -P1M has months"),
        ({"corrections": "by_cutoff"}, "corrections: by_cutoff needs a cut-off"),
        ({"lead_time": "P1M"}, "lead_time: P1M has months"),
        ({"lead_time": "1 h", "view": "latest"}, "lead_time: '1 h' is not a duration such as PT36H"),
        ({"lead_time": "1h", "relative": WINDOWS}, "lead_time and relative are two cut-offs"),
        ({"resample": {"period": "1h"}}, "resample.aggregate: is missing"),
        (
            {"resample": {"period": "1h", "aggregate": "medain"}},
            "resample.aggregate: 'medain' is no aggregate; did you mean median",
        ),
        ({"resample": {"period": "1h", "aggregate": "p10"}}, "'p10' is another spelling of quantile:0.1; use that"),
        ({"resample": {"period": "0h", "aggregate": "mean"}}, "period PT0S is not longer than nothing"),
        ({"resample": {"period": "1h", "aggregate": "mean", "time_zone": "Nowhere"}}, "resample.time_zone: 'Nowhere'"),
        ({"resample": HOURLY, "all_versions": True}, "resample would mix versions"),
        ({"resample": HOURLY, "columns": ["annotation"]}, "a resampled value has no annotation"),
        ({"resample": HOURLY, "view": "latest"}, "resample goes with the views flat and overlapping"),
        ({"view": "changes", "all_versions": True}, "all_versions goes with the views flat and overlapping"),
        ({"view": "changes", "since": "never"}, "since: 'never' is not the token of an answer"),
        ({"since": "never"}, "since goes with view changes"),
        ({"token": "e30="}, "token: 'e30=' is not the token of an answer"),
        ({"unit": "furlong per fortnight"}, "unit: .*furlong"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused_by_name(
    client: Client, selection: dict[str, Any], reason: str
) -> None:
    client.create_series("refused", unit="MW")  # a unit is refused for a series
    with pytest.raises(td.InvalidRequest, match=reason):
        client.read(**selection)


def test_too_many_windows_are_refused(client: Client, name: str) -> None:
    client.upload(frame(name, VALUES))
    windows = {"window_length": "1us", "issue_offset": "0s", "start_window": T0}
    with pytest.raises(td.InvalidRequest, match=r"window_length: PT0\.000001S makes more than 10000000 windows"):
        client.read(series_keys=name, relative=windows, start_valid=T0, end_valid=T0 + timedelta(days=1))
    # In an open range there are as many as have rows, also where each cut-off lies on the calendar.
    assert client.read(series_keys=name, relative={**windows, "issue_offset": "-P1D"}).is_empty()
    assert client.read(series_keys=name, relative={**windows, "window_length": "1s"}).is_empty()


@pytest.mark.parametrize("field", ["known_time", "run_start_time", "run_finish_time"])
def test_a_run_time_without_zone_is_refused_by_name(client: Client, name: str, field: str) -> None:
    without_zone: dict[str, Any] = {field: datetime(2025, 1, 1)}
    with pytest.raises(td.InvalidRequest, match=f"{field}: .* has no time zone"):
        client.upload(frame(name, VALUES), **without_zone)
    assert client.list_series(name=name) == []


def test_what_the_server_refuses_arrives_as_the_same_class(client: Client, name: str) -> None:
    series_id = client.create_series(name, unit="MW")
    assert client.create_series(name, unit="MW") == series_id
    with pytest.raises(td.Conflict, match="'kW'") as conflict:
        client.create_series(name, unit="kW")
    assert conflict.value.request_id
    with pytest.raises(td.NotFound):
        client.get_run(f"no-{name}")
    with pytest.raises(td.NotFound):
        client.read(series_keys=f"no-{name}")
    with pytest.raises(td.NotFound):
        client.upload(frame(f"no-{name}", VALUES), create_series=False)
    with pytest.raises(td.Unimplemented):
        client.call("dance", ListSeries())
    twice = pl.concat([frame(name, [1.0]), frame(name, [2.0])])
    with pytest.raises(td.InvalidRequest):
        client.upload(twice)
    assert client.read(series_ids=series_id).height == 0


def test_a_run_id_again_is_a_retry_or_a_conflict(client: Client, name: str) -> None:
    first = client.upload(frame(name, VALUES), run_id=name, known_time=T0)
    assert client.upload(frame(name, VALUES), run_id=name, known_time=T0) == first
    with pytest.raises(td.Conflict):
        client.upload(frame(name, [9.0]), run_id=name, known_time=T0)
    assert client.read(series_keys=name, view="overlapping").height == 3


def test_runs_are_listed_and_withdrawn(client: Client, name: str) -> None:
    run_id = uuid4()
    client.upload(
        frame(name, VALUES),
        run_id=run_id,
        workflow_id=name,
        run_start_time=T0,
        run_params={"model": "a", "at": pd.Timestamp(T0), "n": 3},
    )
    (run,) = client.list_runs(workflow_id=name)
    assert run == client.get_run(run_id)
    assert run["run_id"] == str(run_id)
    assert run["run_params"]["model"] == "a"
    assert client.list_runs(workflow_id=name, start=T0 + timedelta(1)) == []
    assert client.withdraw_run(run_id, reason="wrong weather") == 3
    assert client.read(series_keys=name).height == 0
    (run,) = client.list_runs(workflow_id=name)
    assert (run["withdrawn"]["reason"], run["withdrawn_rows"]) == ("wrong weather", 3)
    assert client.restore_run(run_id) == {"restored": 3, "left_retracted": 0}
    assert client.read(series_keys=name).height == 3


def test_a_retry_of_a_withdrawn_run_warns(client: Client, name: str) -> None:
    first = client.upload(frame(name, VALUES), run_id=name, known_time=T0)
    assert (first.withdrawn, first.withdrawn_rows) == (None, 0)
    (series_id,) = first.series_ids.values()
    client.update_values([{"run_id": name, "series_id": series_id, "valid_time": T0, "retracted": True}])
    with pytest.warns(UserWarning, match="was in already, and 1 of its rows are withdrawn"):
        client.upload(frame(name, VALUES), run_id=name, known_time=T0)
    client.withdraw_run(name, reason="wrong weather")
    with pytest.warns(UserWarning, match=r"is withdrawn since 20.* \(wrong weather\): its values stay invisible"):
        again = client.upload(frame(name, VALUES), run_id=name, known_time=T0)
    assert (again.rows, again.withdrawn_rows, (again.withdrawn or {})["reason"]) == (3, 3, "wrong weather")
    assert client.restore_run(name) == {"restored": 2, "left_retracted": 1}


def test_values_are_corrected(client: Client, name: str) -> None:
    (series_id,) = client.upload(frame(name, VALUES)).series_ids.values()
    address = {"series_id": series_id, "valid_time": pd.Timestamp(T0)}
    done = client.update_values([{**address, "value": 7, "annotation": "checked"}], update_id=name)
    assert len(done["updated"]) == 1
    assert client.update_values([{**address, "value": 7}])["updated"] == []
    row = client.read(series_ids=series_id, end_valid=T0 + timedelta(hours=1), columns=["value", "annotation"])
    assert row.rows() == [(7.0, "checked")]
    with pytest.raises(td.InvalidRequest, match=r"updates\.0\.valid_time: .* has no time zone"):
        client.update_values([{"series_id": series_id, "valid_time": datetime(2025, 1, 1), "value": 1.0}])


def test_series_are_described(client: Client, name: str) -> None:
    series_id = client.create_series(name, unit="MW", labels={"site": "north"})
    assert client.update_series(series_id, description="at the gate")["description"] == "at the gate"
    assert client.update_series(series_id, description=None)["description"] is None
    assert client.list_series(name=name, labels={"site": "north"})[0]["series_id"] == series_id
    assert client.list_series(name=name, labels={"site": "south"}) == []
    assert [one["series_id"] for one in client.list_series(search=f"{name} NORTH", limit=1)] == [series_id]
    assert client.list_series(search=f"{name} nowhere") == []


def test_the_service_says_how_it_is(client: Client) -> None:
    assert client.health() == {"ok": True}
    assert client.status()["rows"] >= 0
    assert client.compact()
    assert client.maintain()


def test_a_stream_is_iterated_read_whole_or_handed_on(client: Client, name: str) -> None:
    client.upload(frame(name, [float(i) for i in range(200_000)]))
    read = ReadCommand(series_keys=[name], columns=["value"])
    total = sum(range(200_000))
    with client.stream(read) as stream:
        assert stream.schema.names == ["value"]
        assert sum(sum(batch["value"].to_pylist()) for batch in stream) == total
        with pytest.raises(StopIteration):
            stream.read_next_batch()
    assert sum(client.stream(read).read_all()["value"].to_pylist()) == total
    assert pl.DataFrame(client.stream(read))["value"].sum() == total
    assert duckdb.from_arrow(client.stream(read).to_reader()).sum("value").fetchone() == (total,)


def test_a_stream_is_left_early(client: Client, name: str) -> None:
    client.upload(frame(name, [float(i) for i in range(300_000)]))
    with client.stream(ReadCommand(series_keys=[name])) as stream:
        assert next(stream).num_rows > 0
    stream.close()


def test_an_upload_command_is_sent_as_it_is(client: Client, name: str) -> None:
    table = frame(name, VALUES).to_arrow()
    receipt = client.send(UploadCommand(run_id=name, rows=3), table.to_reader())
    assert receipt["run_id"] == name
    assert td.Receipt.from_message(receipt).rows == 3


def test_one_client_serves_many_threads(client: Client, name: str) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            mine = f"{name}-{number}"
            for hour in range(3):
                client.upload(frame(mine, [float(number)], T0 + timedelta(hours=hour)))
            assert client.read(series_keys=mine)["value"].to_list() == [float(number)] * 3
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_client_is_a_context_manager_and_says_nothing_of_its_key(service: Service) -> None:
    with td.connect(service.flight_url, api_key="secret") as client:
        assert client.health() == {"ok": True}
        assert repr(client) == f"Client('{service.flight_url}')"
    client.close()
    with pytest.raises(td.TimeDBError):
        client.health()


def test_settings_come_from_the_environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMEDB_FLIGHT_URL", service.flight_url)
    with td.connect() as client:
        assert client.health() == {"ok": True}
    monkeypatch.setenv("TIMEDB_TIMEOUT_SECONDS", "soon")
    with pytest.raises(td.InvalidRequest, match="TIMEDB_TIMEOUT_SECONDS: 'soon'"):
        td.connect()


@pytest.mark.parametrize(
    "url", ["localhost:8815", "http://127.0.0.1:8815", "nonsense://x", "", "grpc://", "grpc://:8815"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(td.InvalidRequest, match="url: "):
        td.connect(url)


def test_known_time_is_when_it_was_received_unless_said(client: Client, name: str) -> None:
    before = datetime.now(UTC)
    client.upload(frame(name, [1.0]))
    (known,) = client.read(series_keys=name, view="overlapping")["known_time"]
    assert before <= known <= datetime.now(UTC)


def test_an_arrow_table_without_columns_is_refused(client: Client) -> None:
    with pytest.raises(td.InvalidRequest, match="valid_time: the column is missing"):
        client.upload(pa.table({}))
