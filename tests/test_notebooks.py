"""Every cell of every notebook runs, in order, against a real service."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

import timedb as td
from tests.conftest import Served

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.fixture(autouse=True)
def _as_in_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setenv("MPLBACKEND", "agg")


def cells_of(notebook: Path) -> list[tuple[str, str]]:
    """The kind and the source of each cell."""
    return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook.read_text())["cells"]]


def run(notebook: Path, *replaced: tuple[str, str]) -> dict[str, Any]:
    """Run the cells one after the other in one namespace; what they leave in it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, (kind, source) in enumerate(cells_of(notebook)):
        if kind == "code":
            for ours, theirs in replaced:
                source = source.replace(ours, theirs)
            exec(compile(source, f"{notebook.name}, cell {number}", "exec"), namespace)
    return namespace


def test_the_notebooks_are_committed_without_outputs() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == [
        "honest_backtest",
        "probabilistic_forecast",
        "read_the_lake",
        "rest_api",
    ]
    for notebook in NOTEBOOKS:
        for cell in json.loads(notebook.read_text())["cells"]:
            assert not cell.get("outputs"), notebook.name
            assert cell.get("execution_count") is None


@pytest.mark.parametrize("with_users", [False, True])
def test_the_rest_api(
    lake_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], with_users: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for name, value in {"LAKE": str(lake_dir), "REST_PORT": str(port), "FLIGHT_PORT": "0"}.items():
        monkeypatch.setenv(f"TIMEDB_{name}", value)
    if with_users:
        monkeypatch.setenv("TIMEDB_API_KEY", td.create_user("ann@example.com")["api_key"])
    try:
        left = run(EXAMPLES / "rest_api.ipynb", ("http://127.0.0.1:8000", f"http://127.0.0.1:{port}"))
    finally:
        td.stop_api()
    assert left["temp_records"]["annotation"].tolist()[1:] == ["Updated via API"]
    assert left["temp_records"]["changed_by"].tolist()[1:] == ["ann@example.com" if with_users else None]
    assert bool(td.list_users()) == with_users
    assert "Run created successfully" in capsys.readouterr().out


def test_an_honest_backtest(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMEDB_FLIGHT_URL", served.flight_url)
    left = run(EXAMPLES / "honest_backtest.ipynb")
    left["plt"].close("all")
    assert left["accuracy"]["count"].sum() == left["forecasts"].height
    assert left["fan"].height > 24
    assert left["honest"].height == left["plain"].height == left["score"]["count"][0] == 72


def test_a_probabilistic_forecast(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMEDB_FLIGHT_URL", served.flight_url)
    left = run(EXAMPLES / "probabilistic_forecast.ipynb")
    left["plt"].close("all")
    assert left["bands"].columns == ["valid_time", "valid_time_end", "0.05", "0.5", "0.95"]
    assert left["together"]["count"].sum() == left["forecasts"].height // 3
    assert left["skill"]["skill_wis"].is_between(0, 1).all()


def test_the_lake_is_read(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMEDB_FLIGHT_URL", served.flight_url)
    monkeypatch.setenv("TIMEDB_LAKE", os.fspath(served.lake))
    left = run(EXAMPLES / "read_the_lake.ipynb")
    assert left["served"]["value"][0] == 9.0
