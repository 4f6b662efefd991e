"""The examples run against a real service, and their answers are the ones that pandas finds in the CSV."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from examples import load_forecasts
from tests.conftest import Served
from timedb.client import connect

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def printed(served: Served) -> str:
    """What the example prints, run twice as a user would: the second run is a retry."""
    command = ["examples/load_forecasts.py", "--lake", str(served.lake)]
    command += ["--flight-url", served.flight_url, "--rest-url", served.rest_url]
    first = subprocess.run(
        [sys.executable, *command], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert first.returncode == 0, first.stderr
    second = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(second):
        patch.setattr(sys, "argv", command)
        load_forecasts.main()
    assert second.getvalue() == first.stdout
    return first.stdout


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
