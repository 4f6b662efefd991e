"""Series found by words, on the server: what the page's search field asks."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.ui.conftest import MANY
from tests.ui.pages import Demo


@pytest.fixture
def found(rest: httpx.Client, demo: Demo) -> Any:
    """Searches; the series in the order of the answer."""

    def search(**parameters: Any) -> list[tuple[str, dict[str, str]]]:
        answer = rest.get("/list_timeseries", params=parameters)
        assert answer.status_code == 200, answer.text
        return [(series["series_key"], series["labels"]) for series in answer.json().values()]

    return search


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("quantile", 3),
        ("TEMPERATURE forest quantile=0.5", 1),
        ("air temperature", 3),
        ("degc", 4),
        ("  load   zone=se3 ", MANY // 8),
        ("zone=SE3 zone=SE4", 0),
        ("", MANY + 4),
    ],
)
def test_every_word_must_occur_somewhere(found: Any, words: str, count: int) -> None:
    series = found(search=words)
    assert len([one for one in series if one[0] in {"temperature", "observed", "load", "wind"}]) == count


def test_an_id_finds_its_series(found: Any, demo: Demo) -> None:
    assert found(search=demo.observed) == [("observed", {"site": "north"})]
    assert found(search=demo.observed[:13].upper()) == [("observed", {"site": "north"})]


def test_the_limit_takes_the_first_by_name(found: Any) -> None:
    series = found(search="zone", limit=5)
    assert series == found(search="zone")[:5]
    assert [name for name, _ in series] == ["load"] * 5
    assert found(search="zone=SE1", labels='{"site": ["004", "005"]}') == [
        ("load", {"site": "004", "zone": "SE1"}),
        ("wind", {"site": "004", "zone": "SE1"}),
    ]


@pytest.mark.parametrize(
    "parameters", [{"limit": "0"}, {"limit": "many"}, {"search": "x" * 256}, {"search": ["a", "b"]}]
)
def test_what_makes_no_sense_is_refused(rest: httpx.Client, parameters: dict[str, Any]) -> None:
    answer = rest.get("/list_timeseries", params=parameters)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert next(iter(parameters)) in answer.json()["detail"]
