"""The examples in the docstrings of the client do what they say, one after the other, on one new lake."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import timedb as td
from timedb.client import client, correction_calls, files, run_calls, series_calls, upload_calls
from timedb.contract.settings import ServerSettings, load_settings
from timedb.run.launch import start_service

PARTS = (
    series_calls.SeriesCalls,
    upload_calls.UploadCalls,
    correction_calls.CorrectionCalls,
    run_calls.RunCalls,
    files.FileCalls,
)


@pytest.fixture
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the examples know, and what each leaves to the next: a client, and what came true of the series "wind"."""
    path: Path = tmp_path_factory.mktemp("examples")
    settings = load_settings(ServerSettings, lake=str(path / "lake"), flight_port=0)
    with (
        start_service(settings, rest=False) as service,
        pytest.MonkeyPatch.context() as patch,
        td.connect(service.flight_url) as connected,
    ):
        patch.setenv("TIMEDB_FLIGHT_URL", service.flight_url)
        patch.chdir(path)
        hours = [datetime(2025, 1, 1, hour, tzinfo=UTC) for hour in range(2)]
        seen = pl.DataFrame({"series_key": "wind seen", "valid_time": hours, "value": [5.75, 7.25]})
        connected.upload(seen, run_id="seen", run_start_time=hours[0])
        yield {
            "client": connected,
            "td": td,
            "pl": pl,
            "datetime": datetime,
            "timedelta": timedelta,
            "UTC": UTC,
            "Path": Path,
        }


def examples() -> list[doctest.DocTest]:
    """Those of each docstring, as they stand in the files."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for module in (series_calls, upload_calls, client, correction_calls, run_calls, files):
        found += sorted(finder.find(module), key=lambda each: each.lineno or 0)
    return [each for each in found if each.examples]


def test_the_examples_do_what_they_say(names: dict[str, Any]) -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner()
    for example in examples():
        example.globs = names
        runner.run(example, out=said.append, clear_globs=False)
    assert not said, "".join(said)


def test_each_call_has_an_example() -> None:
    with_example = {each.name.rpartition(".")[2] for each in examples()}
    bare = {name for name in vars(client.Client) if callable(getattr(client.Client, name)) and not name.startswith("_")}
    bare |= {name for part in PARTS for name in vars(part) if name[0] != "_"}
    assert bare - with_example == {"call", "stream", "stream_sql", "send", "close", "health", "compact", "maintain"}
