"""The examples in the docstrings of the functions of ``td`` print what they say, each for itself."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import timedb as td
from timedb.contract.settings import ServerSettings, load_settings
from timedb.run.launch import start_service

# Those of the client are run by tests/timedb/client/test_examples.py.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(td, name) for name in td.__all__ if inspect.isfunction(getattr(td, name)) and name != "connect"
}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What examples may speak of."""
    folder = tmp_path_factory.mktemp("examples")
    td.create_user("ann@example.com", lake=f"{folder}/closed")
    settings = load_settings(ServerSettings, lake=f"{folder}/lake", flight_port=0, rest_port=0)
    hours = [datetime(2025, 1, 1, hour, tzinfo=UTC) for hour in range(2)]
    with start_service(settings) as service, td.connect(service.flight_url) as client:
        client.upload(pl.DataFrame({"series_key": "load", "valid_time": hours, "value": [10.0, 13.0]}))
        yield {
            "td": td,
            "duckdb": duckdb,
            "url": service.flight_url,
            "rest_url": service.rest_url,
            "lake": settings.lake,
            "folder": str(folder),
            "closed": f"{folder}/closed",
        }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_prints_what_it_says(
    name: str,
    names: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for setting, value in {"LAKE": str(tmp_path / "lake"), "FLIGHT_PORT": "0"}.items():
        monkeypatch.setenv(f"TIMEDB_{setting}", value)
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(FUNCTIONS[name]) or "", dict(names), name, None, 0)
    assert example.examples or name == "load_duckdb_delta", "an example is missing"
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert result.failed == 0, capsys.readouterr().out
