"""Bodies laid out as people have them, by parameters of the names that the command line's options have."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.rest_gateway.calls import assert_error, read
from tests.rest_gateway.test_rest_uploads import ARROW, CSV, NDJSON, body_of, post, table_of
from tests.timedb.layouts.workbooks import sparse_workbook, workbook
from timedb import connect
from timedb.layouts.options import FILE_OPTIONS
from timedb.rest_gateway.ask.sent import SHEET_TYPE as XLSX
from timedb.run.launch import Service

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
        ({"format": "parquet"}, ("format", "text/csv")),
        ({"known_time": "Zeit"}, ("known_time, known_after",)),
    ],
)
def test_an_error_names_parameters(
    rest: httpx.Client, name: str, query: dict[str, Any], parts: tuple[str, ...]
) -> None:
    said = {key: value for key, value in german(name, **query).items() if value is not None}
    assert_error(post(rest, GERMAN, CSV, **said), 422, "invalid_request", *parts)


def test_options_are_about_tables(rest: httpx.Client, name: str) -> None:
    assert_error(post(rest, b"{}", "application/json", decimal=","), 422, "invalid_request", "decimal", "csv", "JSON")
    body = body_of(table_of(name), ARROW)
    assert_error(post(rest, body, ARROW, decimal=","), 422, "invalid_request", "decimal", "arrow")
    answer = post(rest, body, ARROW, ignore=["known_time", "tags"], known_after="1h")
    assert answer.status_code == 200, answer.text
    assert {row["tags"] is None for row in read(rest, name, all_versions=True)["data"]} == {True}


def test_the_document_knows_every_option(rest: httpx.Client) -> None:
    call = rest.get("/openapi.json").json()["paths"]["/runs"]["post"]
    described = {each["name"]: each for each in call["parameters"]}
    assert set(described["format"]["schema"]["enum"]) == {"json", "csv", "parquet", "arrow", "ndjson", "xlsx"}
    for option in FILE_OPTIONS:
        assert (option.name in described) == option.over_rest or option.name == "format"
        if option.over_rest:
            assert described[option.name]["schema"]["examples"]


def test_lines_and_workbooks_are_laid_out_too(rest: httpx.Client, name: str) -> None:
    lines = b'{"t": "26.10.2025 02:00", "v": 1.5, "q": 0.1}\n{"t": "26.10.2025 02:00", "v": 2, "q": 0.1}\n'
    layout = {"valid_time": "t", "value": "v", "time_format": "%d.%m.%Y %H:%M", "time_zone": "Europe/Berlin"}
    answer = post(rest, lines, NDJSON, series=name, quantile="q", **layout)
    assert answer.status_code == 200, answer.text
    rows = read(rest, name, labels='{"quantile": "0.1"}')["data"]
    assert [row["valid_time"][11:16] for row in rows] == ["00:00", "01:00"]
    sheet = workbook(("Notes", [["by hand"]]), ("Prices", [["t", "v"], [(45658.0,), 1.5], [(45658.5,), "1.234,5"]]))
    book = {"valid_time": "t", "value": "v", "series": f"{name}-x", "time_zone": "Europe/Berlin", "decimal": ","}
    assert_error(post(rest, sheet, XLSX, **book), 422, "invalid_request", "sheet: say which of its 2 sheets")
    for _ in range(2):
        answer = post(rest, sheet, XLSX, sheet="Prices", thousands=".", known_after="0h", **book)
        assert answer.status_code == 200, answer.text
    rows = read(rest, f"{name}-x", mode="overlapping")["data"]
    assert [(row["valid_time"][:16], row["value"]) for row in rows] == [
        ("2024-12-31T23:00", 1.5),
        ("2025-01-01T11:00", 1234.5),
    ]
    plain = workbook(("A", [["series_key", "valid_time", "value"], [f"{name}-y", "2025-01-01T00:00Z", 5]]))
    assert post(rest, plain, XLSX).status_code == 200
    assert_error(post(rest, lines, NDJSON, series=name, delimiter=";"), 422, "invalid_request", "delimiter", "ndjson")
    assert_error(post(rest, b"PK\x03\x04", XLSX, series=name), 422, "invalid_request", "damaged")


def test_a_workbook_whose_sheet_would_fill_the_memory_is_refused_and_harms_nobody(
    rest: httpx.Client, name: str
) -> None:
    sheet = sparse_workbook([["t", "v"], ["2025-01-01", 1]], "XFD1048576")
    assert len(sheet) < 4000
    assert_error(post(rest, sheet, XLSX, series=name, valid_time="t", value="v"), 413, "too_large", "sheet", "MiB")
    assert rest.get("/health").status_code == 200


def test_values_are_written_for_a_german_spreadsheet_and_taken_again(rest: httpx.Client, name: str) -> None:
    assert post(rest, GERMAN, CSV, **german(name)).status_code == 200
    told = {"delimiter": ";", "decimal": ",", "local_times": "true", "time_zone": "Europe/Berlin"}
    answer = rest.get("/values", params={"name": name, "format": "csv", **told})
    assert answer.headers["content-type"].startswith("text/csv")
    header, *lines = answer.text.splitlines()
    assert header == "valid_time;series_id;value;series_key;series_unit"
    assert [line.split(";")[0::2][:2] for line in lines] == [
        ["2025-10-26 02:00:00", "1234,5"],
        ["2025-10-26 02:00:00", "-0,5"],
    ]
    again = {"decimal": ",", "time_zone": "Europe/Berlin", "series": f"{name}-b"}
    answer = post(rest, answer.content, CSV, ignore="series_unit", **again)
    assert answer.status_code == 200, answer.text
    both = (read(rest, each)["data"] for each in (name, f"{name}-b"))
    first, second = ([(row["valid_time"], row["value"]) for row in rows] for rows in both)
    assert first == second
    for wrong, parts in [
        ({"delimiter": "ab"}, ("delimiter: 'ab'",)),
        ({"decimal": ";"}, ("decimal: ';'",)),
        ({"local_times": "true"}, ("local_times: of which zone", "time_zone")),
        ({"local_times": "true", "time_zone": "Mars"}, ("time_zone",)),
        ({"decimal": ",", "format": "json"}, ("decimal", "format=csv")),
    ]:
        answer = rest.get("/values", params={"name": name, "format": "csv", **wrong})
        assert_error(answer, 422, "invalid_request", *parts)


def test_a_file_is_the_same_run_through_every_door(
    rest: httpx.Client, service: Service, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "german.csv"
    path.write_bytes(GERMAN)
    said = german(name, workflow_id="w", unit="MW")
    with connect(service.flight_url) as client:
        run_id = client.upload_file(path, **said).run_id
        answer = post(rest, GERMAN, CSV, **said)
        assert (answer.status_code, answer.json()["run_id"]) == (200, run_id), answer.text
        said = german(name, workflow_id="w", unit="MW", skip_unchanged=True)
        first = post(rest, GERMAN, CSV, **{**said, "skip_unchanged": "true"}).json()["run_id"]
        again = client.upload_file(path, **said)
        assert (again.run_id, again.already_loaded, first == run_id) == (first, True, False)
