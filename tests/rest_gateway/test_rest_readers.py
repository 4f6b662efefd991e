"""Answers of ``GET /values`` in the hands of the readers that people have: data frames from an address or a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import duckdb
import httpx
import pandas as pd
import polars as pl
import pytest

from tests.rest_gateway.calls import hours, upload
from timedb.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from timedb.run.launch import Service

VALUES = [1.5, None, 3.25]


@pytest.fixture
def address(service: Service, rest: httpx.Client, name: str) -> str:
    """Where three values of a series are, in a format that is added."""
    upload(rest, hours(name, VALUES))
    return str(httpx.URL(f"{service.rest_url}/values", params={"name": name, "format": ""}))


READERS: dict[str, Callable[[Any], Any]] = {
    "polars ndjson": lambda url: pl.read_ndjson(urlopen(f"{url}ndjson")),
    "pandas ndjson": lambda url: pd.read_json(f"{url}ndjson", lines=True),
    "polars csv": lambda url: pl.read_csv(urlopen(f"{url}csv")),
    "pandas csv": lambda url: pd.read_csv(f"{url}csv"),
    "polars parquet": lambda url: pl.read_parquet(urlopen(f"{url}parquet")),
    "pandas parquet": lambda url: pd.read_parquet(f"{url}parquet"),
    "polars arrow": lambda url: pl.read_ipc_stream(urlopen(f"{url}arrow")),
}


@pytest.mark.parametrize("reader", READERS)
def test_data_frames_have_the_rows_and_nothing_else(address: str, reader: str) -> None:
    frame = READERS[reader](address)
    assert list(frame.columns) == ["valid_time", "series_id", "value", "series_key", "series_unit"]
    assert [None if pd.isna(value) else value for value in frame["value"]] == VALUES


@pytest.mark.parametrize(
    ("name_of", "function"), [("ndjson", "read_json"), ("csv", "read_csv"), ("parquet", "read_parquet")]
)
def test_duckdb_has_the_rows_and_nothing_else(address: str, tmp_path: Path, name_of: str, function: str) -> None:
    (tmp_path / f"answer.{name_of}").write_bytes(httpx.get(f"{address}{name_of}").content)
    reader = "read_json" if name_of == "ndjson" else f"read_{name_of}"
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT value FROM {reader}('{tmp_path}/answer.{name_of}')").fetchall()
    assert [value for (value,) in found] == VALUES


GETS = "/ /health /health/live /metrics /docs /openapi.json /ui /list_timeseries /series/labels /runs"


@pytest.mark.parametrize("path", GETS.split())
def test_head_is_get_without_the_body(rest: httpx.Client, path: str) -> None:
    head, whole = rest.head(path), rest.get(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize("format", ["json", "csv", "ndjson", "arrow", "parquet"])
def test_head_of_values_tells_what_get_would_begin_with(rest: httpx.Client, address: str, format: str) -> None:
    head, whole = rest.head(f"{address}{format}"), rest.get(f"{address}{format}")
    told = ("content-type", "content-length", "x-as-of", "x-table-version")
    assert [head.headers[name] for name in told] == [whole.headers[name] for name in told]
    assert (head.status_code, head.content) == (200, b"")


def test_head_of_a_long_answer_ends_at_once_and_frees_its_place(new_service: Callable[..., Service]) -> None:
    service = new_service(max_concurrent_reads=1)
    with httpx.Client(base_url=service.rest_url, timeout=60) as rest:
        times = pl.datetime_range(pl.datetime(2025, 1, 1), pl.datetime(2025, 1, 4), "1s", time_zone="UTC", eager=True)
        with connect(service.flight_url) as client:
            client.upload(pl.DataFrame({"valid_time": times}).with_columns(series_key=pl.lit("long"), value=1.0))
        for _ in range(3):
            deadline = time.monotonic() + 30
            while (head := rest.head("/values", params={"name": "long"})).status_code == 503:
                assert time.monotonic() < deadline  # the read before ends soon after its answer
            assert (head.status_code, head.content) == (200, b"")


def test_head_tells_of_errors_too(rest: httpx.Client) -> None:
    assert rest.head("/values", params={"name": "there is no such series"}).status_code == 404
    assert rest.head("/values", params={"nam": "x"}).status_code == 422
    assert rest.head("/upload").status_code == 405
    assert rest.head("/nowhere").status_code == 404
