"""``Client.lookup``: frames in, the same frames with what was known out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

import timedb as td
from timedb.client import Client
from timedb.contract.errors import InvalidRequest, NotFound
from timedb.run.launch import Service

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
MORNING = NOON - timedelta(hours=6)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    """A client with two series of two revisions each."""
    with td.connect(service.flight_url) as client:
        for shift, known in enumerate((MORNING, MORNING + timedelta(hours=3))):
            rows = pl.DataFrame({"series_key": ["lookup-a", "lookup-b"], "valid_time": NOON, "value": [1.0, 2.0]})
            client.upload(rows.with_columns(pl.col("value") + 10 * shift), run_id=f"lookup-{shift}", known_time=known)
        yield client


def asked(*rows: tuple[str, datetime | None]) -> pl.DataFrame:
    """Names and cut-offs, with a column of the caller's own."""
    names, cut_offs = zip(*rows, strict=True)
    kinds: dict[str, Any] = {"series_key": pl.String, "known_by": pl.Datetime("us", "UTC"), "mine": pl.Int64}
    frame = pl.DataFrame({"series_key": names, "known_by": cut_offs, "mine": range(len(rows))}, schema=kinds)
    return frame.with_columns(valid_time=pl.lit(NOON))


def test_rows_and_columns_stay_as_they_are(client: Client) -> None:
    frame = asked(("lookup-b", None), ("lookup-a", MORNING), ("lookup-b", MORNING), ("lookup-a", NOON - timedelta(1)))
    found = client.lookup(frame)
    assert found.drop("value", "known_time", "found").equals(frame)
    assert found["value"].to_list() == [12.0, 1.0, 2.0, None]
    assert found["found"].to_list() == [True, True, True, False]
    assert found["known_time"].to_list() == [MORNING + timedelta(hours=3), MORNING, MORNING, None]
    assert client.lookup(frame.to_pandas()).select("value").equals(found.select("value"))
    assert client.lookup(frame.to_arrow()).select("value").equals(found.select("value"))


def test_what_a_read_returned_can_be_looked_up(client: Client) -> None:
    flat = client.read(series_keys=["lookup-a", "lookup-b"], columns=["series_id", "valid_time", "value"])
    found = client.lookup(flat.rename({"value": "now"}).with_columns(known_by=pl.lit(MORNING)))
    assert (found["now"] - found["value"]).to_list() == [10.0, 10.0]


def test_a_frame_of_no_rows_gets_its_columns(client: Client) -> None:
    found = client.lookup(asked(("lookup-a", None)).clear())
    assert found.height == 0
    assert found.schema["value"] == pl.Float64
    assert found.schema["known_time"] == pl.Datetime("us", "UTC")


def test_as_of_goes_back(client: Client) -> None:
    first = client.get_run("lookup-0")["change_time"]
    assert client.lookup(asked(("lookup-a", None)), as_of=first)["value"].to_list() == [1.0]


def test_an_error_names_the_callers_row(client: Client) -> None:
    frame = asked(("lookup-b", None), ("lookup-a", None), ("lookup-a", None))
    holed = frame.with_columns(valid_time=pl.Series([NOON, NOON, None], dtype=pl.Datetime("us", "UTC")))
    with pytest.raises(InvalidRequest, match="valid_time: row 2 is null"):
        client.lookup(holed)
    with pytest.raises(NotFound, match="no such series"):
        client.lookup(asked(("lookup-a", None), ("no such series", None)))


def test_a_frame_that_does_not_fit(client: Client) -> None:
    frame = asked(("lookup-a", None))
    with pytest.raises(InvalidRequest, match="known_time: is a column of the answer"):
        client.lookup(frame.with_columns(known_time=pl.lit(NOON)))
    with pytest.raises(InvalidRequest, match="valid_time: the column is missing"):
        client.lookup(frame.drop("valid_time"))
    with pytest.raises(InvalidRequest, match="int is not tabular"):
        client.lookup(5)
