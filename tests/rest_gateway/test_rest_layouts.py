"""Bodies laid out as people have them, by parameters of the names that the command line's options have."""

from __future__ import annotations

import gzip
from typing import Any

import httpx
import pytest

from tests.rest_gateway.calls import assert_error, read
from tests.rest_gateway.test_rest_uploads import ARROW, CSV, body_of, post, table_of
from timedb.layouts.options import FILE_OPTIONS

GERMAN = "Zeit;Ort;Wert\n26.10.2025 02:00;Nord;1.234,5\n26.10.2025 02:00;Nord;-0,5\n".encode("utf-16")


def german(name: str, **more: Any) -> dict[str, Any]:
    return {
        "valid_time": "Zeit",
        "value": "Wert",
        "series": name,
        "label": "site=Ort",
        "time_format": "%d.%m.%Y %H:%M",
        "time_zone": "Europe/Berlin",
        "decimal": ",",
        "thousands": ".",
        "known_after": "15min",
        **more,
    }


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_german_spreadsheet_is_a_run_once(rest: httpx.Client, name: str, encoding: str) -> None:
    body = gzip.compress(GERMAN) if encoding else GERMAN
    first, again = (post(rest, body, CSV, encoding, **german(name)) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200), first.text
    assert first.json()["run_id"] == again.json()["run_id"]
    rows = read(rest, name, all_versions=True)["data"]
    assert [(row["valid_time"][11:16], row["known_time"][11:16], row["value"]) for row in rows] == [
        ("00:00", "00:15", 1234.5),
        ("01:00", "01:15", -0.5),
    ]
    other = post(rest, body, CSV, encoding, **german(name, workflow_id="other"))
    assert other.json()["run_id"] != first.json()["run_id"]


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ({"decimal": None, "thousands": None}, ("Wert: line 2", "decimal=','")),
        ({"time_format": None}, ("Zeit: line 2", "time_format='%d.%m.%Y %H:%M'")),
        ({"label": None}, ("column Ort", "label='Ort=Ort'", "ignore='Ort'")),
        ({"wide": "yes"}, ("wide", "true or false")),
        ({"skip_lines": "-1"}, ("skip_lines",)),
        ({"known_time_from_name": "x"}, ("known_time_from_name",)),
        ({"format": "csv"}, ("format",)),
        ({"known_time": "Zeit"}, ("known_time, known_after",)),
    ],
)
def test_an_error_names_parameters(
    rest: httpx.Client, name: str, query: dict[str, Any], parts: tuple[str, ...]
) -> None:
    said = {key: value for key, value in german(name, **query).items() if value is not None}
    assert_error(post(rest, GERMAN, CSV, **said), 422, "invalid_request", *parts)


def test_options_are_about_tables(rest: httpx.Client, name: str) -> None:
    for kind in ("application/json", "application/x-ndjson"):
        assert_error(post(rest, b"{}", kind, decimal=","), 422, "invalid_request", "decimal", "text/csv")
    body = body_of(table_of(name), ARROW)
    assert_error(post(rest, body, ARROW, decimal=","), 422, "invalid_request", "decimal", "arrow")
    answer = post(rest, body, ARROW, ignore=["known_time", "tags"], known_after="1h")
    assert answer.status_code == 200, answer.text
    assert {row["tags"] is None for row in read(rest, name, all_versions=True)["data"]} == {True}


def test_the_document_knows_every_option(rest: httpx.Client) -> None:
    call = rest.get("/openapi.json").json()["paths"]["/runs"]["post"]
    described = {each["name"]: each for each in call["parameters"]}
    for option in FILE_OPTIONS:
        assert (option.name in described) == option.over_rest
        if option.over_rest:
            assert described[option.name]["schema"]["examples"]
