"""The examples run against a real service, and their answers are the ones that pandas finds in the CSV."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import polars as pl
import pytest

from examples import append_measurements, load_forecasts
from tests.conftest import Served
from timedb.client import connect

ROOT = Path(__file__).parents[1]


def printed_by(example: ModuleType, *arguments: str) -> str:
    """What an example prints, run twice as a user would: the second time it adds nothing, and prints the same."""
    command = [str(example.__file__), *arguments]
    first = subprocess.run(
        [sys.executable, *command], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert first.returncode == 0, first.stderr
    second = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(second):
        patch.setattr(sys, "argv", command)
        example.main()
    assert second.getvalue() == first.stdout
    return first.stdout


@pytest.fixture(scope="module")
def printed(served: Served) -> str:
    """What the forecasts' example prints."""
    urls = ["--flight-url", served.flight_url, "--rest-url", served.rest_url]
    return printed_by(load_forecasts, "--lake", str(served.lake), *urls)


@pytest.fixture(scope="module")
def truth() -> pd.DataFrame:
    """The CSV as pandas reads it, under our names."""
    frame = pd.read_csv(load_forecasts.CSV, dtype={"cumulative_probability": str})
    return pd.DataFrame(
        {
            "quantile": frame["cumulative_probability"],
            "valid_time": pd.to_datetime(frame["event_start"]),
            "known_time": pd.to_datetime(frame["belief_time"]),
            "value": frame["event_value"],
        }
    )


def latest(truth: pd.DataFrame) -> list[tuple[str, pd.Timestamp, float]]:
    """Per quantile and hour the value with the latest known_time."""
    winners = truth.loc[truth.groupby(["quantile", "valid_time"])["known_time"].idxmax()]
    return sorted(winners[["quantile", "valid_time", "value"]].itertuples(index=False, name=None))


def test_it_says_that_all_doors_agree(printed: str) -> None:
    assert printed.splitlines()[0].startswith("15840 rows are in the lake")
    assert printed.splitlines()[-1] == "The same three answers through Arrow Flight, REST, the Delta tables."


@pytest.mark.usefixtures("printed")
def test_the_answers_are_those_of_the_csv(served: Served, truth: pd.DataFrame) -> None:
    with connect(served.flight_url) as client:
        quantile = {one["series_id"]: one["labels"]["quantile"] for one in client.list_series(name="temperature")}
        answers = load_forecasts.ask_flight(client)
    assert sorted(quantile.values()) == ["0.05", "0.5", "0.95"]

    def rows(frame: pl.DataFrame) -> list[tuple[str, pd.Timestamp, float]]:
        return sorted((quantile[series], time, value) for series, time, value in frame.iter_rows())

    assert len(truth) == 15_840
    assert len(latest(truth)) == 72 * 3
    assert rows(answers.flat) == latest(truth)
    known = truth[truth["known_time"] <= load_forecasts.KNOWN_AT]
    assert rows(answers.known) == latest(known)
    assert rows(answers.known) != [row for row in latest(truth) if row[1] in set(known["valid_time"])]
    hour = truth[(truth["valid_time"] == load_forecasts.HOUR) & (truth["quantile"] == "0.5")]
    revisions = hour.sort_values("known_time")[["known_time", "value"]]
    assert answers.revisions.rows() == list(revisions.itertuples(index=False, name=None))
    assert len(revisions) > 70


def test_readings_are_appended_once(served: Served) -> None:
    lines = printed_by(append_measurements, "--flight-url", served.flight_url).splitlines()
    assert lines[0] == "480 readings are durable"
    energy = dict.fromkeys(append_measurements.METERS, 0.0)
    for meter, _, value in append_measurements.readings():
        energy[meter] += value
    assert lines[1:] == [f"{meter}: {round(total, 2)} kWh" for meter, total in energy.items()]
    with connect(served.flight_url) as client:
        stored = client.read_arrow(series_keys=append_measurements.METERS, view="overlapping", columns=["run_id"])
    assert stored.num_rows == 480
