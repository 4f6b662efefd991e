"""The document at /openapi.json says what the calls take, in the way that generated clients and fuzzers read it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.rest_gateway.calls import START, assert_error, hours


@pytest.fixture(scope="module")
def document(rest: httpx.Client) -> dict[str, Any]:
    """The document."""
    found: dict[str, Any] = rest.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Verb, path and description of each call."""
    for path, calls in document["paths"].items():
        for verb, operation in calls.items():
            yield verb.upper(), path, operation


def parameters(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and description of each query parameter."""
    for _, path, operation in operations(document):
        yield from ((path, each) for each in operation.get("parameters", ()) if each["in"] == "query")


def names_that_generators_give(document: dict[str, Any]) -> Iterator[str]:
    """Classes of a generated client: the schemas, and the objects that stand within them without a name."""
    for name, schema in document["components"]["schemas"].items():
        yield name
        for field, inner in schema.get("properties", {}).items():
            if inner.get("type") == "object":
                yield name + "".join(part.capitalize() for part in field.split("_"))


def test_no_two_classes_of_a_generated_client_have_one_name(document: dict[str, Any]) -> None:
    counts = Counter(names_that_generators_give(document))
    assert counts["SeriesLabels"] == 1
    assert [name for name, count in counts.items() if count > 1] == []
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert {"create_run", "read_values", "list_series", "create_many_series"} <= set(ids)


@pytest.mark.parametrize("path", ["/runs", "/upload"])
def test_json_is_taken_with_every_default_that_the_document_states(
    rest: httpx.Client, document: dict[str, Any], name: str, path: str
) -> None:
    stated = [each for of, each in parameters(document) if of == path and "run" in each["name"]]
    assert stated
    query = {each["name"]: each["schema"]["default"] for each in stated if "default" in each["schema"]}
    body = {"run_start_time": START, "workflow_id": "mine", "create_series": True, "value_rows": hours(name, [1.0])}
    answer = rest.post(path, json=body, params=query)
    assert answer.status_code == 200, answer.text
    assert rest.get(f"/runs/{answer.json()['run_id']}").json()["workflow_id"] == "mine"


def test_the_query_says_what_a_json_body_leaves_out_and_never_contradicts_it(rest: httpx.Client, name: str) -> None:
    body = {"run_start_time": START, "value_rows": hours(name, [1.0])}
    query = {"run_id": name, "workflow_id": "of the query", "run_start_time": START}
    assert rest.post("/runs", json=body, params=query).json()["run_id"] == name
    assert rest.get(f"/runs/{name}").json()["workflow_id"] == "of the query"
    refused = rest.post("/runs", json={**body, "run_id": "another"}, params={"run_id": name})
    assert_error(refused, 422, "invalid_request", "run_id", "say it once")
    assert_error(rest.post("/runs", json=body, params={"runid": "x"}), 422, "invalid_request", "runid")


def test_whole_numbers_have_the_bounds_that_they_are_held_to(rest: httpx.Client, document: dict[str, Any]) -> None:
    # Lines that are skipped have no greatest number; test_rest_layouts.py holds them to what they are.
    found = [(path, each) for path, each in parameters(document) if each["schema"].get("type") == "integer"]
    numbers = [(path, each) for path, each in found if each["name"] != "skip_lines"]
    assert {(path, each["name"]) for path, each in numbers} == {
        ("/series", "limit"),
        ("/list_timeseries", "limit"),
        ("/runs", "limit"),
        ("/values", "last"),
        ("/values", "limit"),
        ("/values", "days_ahead"),
        ("/accuracy", "days_ahead"),
        ("/values", "fill_limit"),
        ("/changes", "wait"),
    }
    gate = {"time_zone": "UTC", "time_of_day": "00:00", "name": "x"}
    nobody = {"name": "x"}  # which is an error at once
    beside = {
        "fill_limit": {"period": "P1D", "fill": "null"},
        "limit": {},
        "last": {},
        "days_ahead": gate,
        "wait": nobody,
    }
    needed = {"/accuracy": {"actual_key": "x", "horizon": "1h"}}
    for path, each in numbers:
        low, high = each["schema"]["minimum"], each["schema"]["maximum"]
        for value, fits in ((low - 1, False), (low, True), (high, True), (high + 1, False)):
            answer = rest.get(path, params={**needed.get(path, {}), **beside[each["name"]], each["name"]: value})
            assert (answer.status_code != 422) is fits, (path, value, answer.text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("{}", True),
        ('{"site": "north"}', True),
        (' { "a b" : "ü" , "c" : [ "x" , "y" ], "d":null, "e":[] } ', True),
        (r'{"a": "say \"x\"\n"}', True),
        ("", False),
        ("ù", False),
        ("null", False),
        ("{", False),
        ('{"a"}', False),
        ('{"a": 1}', False),
        ('{"a": {"b": "c"}}', False),
        ('{"a": ["x", null]}', False),
        ('{"a": "b",}', False),
    ],
)
def test_labels_in_a_query_have_the_pattern_that_they_are_held_to(
    rest: httpx.Client, document: dict[str, Any], text: str, fits: bool
) -> None:
    patterns = {each["schema"]["pattern"] for _, each in parameters(document) if each["name"] == "labels"}
    (pattern,) = patterns
    assert (re.search(pattern, text) is not None) is fits
    assert (rest.get("/series", params={"labels": text}).status_code == 200) is fits


def test_names_of_labels_have_their_pattern(rest: httpx.Client, document: dict[str, Any]) -> None:
    labels = document["components"]["schemas"]["NewSeries"]["properties"]["labels"]
    assert labels["additionalProperties"]["type"] == "string"
    assert "patternProperties" not in labels
    for name in ("site", "\r", " ", "x" * 256):
        fits = re.search(labels["propertyNames"]["pattern"], name) and len(name) <= labels["propertyNames"]["maxLength"]
        answer = rest.post("/series", json={"name": "labelled", "labels": {name: "x"}})
        assert (answer.status_code == 200) is bool(fits)


def json_bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Verb, path and schema of each call that takes JSON."""
    for verb, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        if reference := content.get("application/json", {}).get("schema", {}).get("$ref"):
            yield verb, path, reference.rpartition("/")[2]


def may_be_null(schema: dict[str, Any], field: str) -> bool:
    """Whether an object that is like its example may have a null there."""
    other = schema.get("else", {})
    rules = [other, *(next(iter(of.get("anyOf", ())), {}) for of in (schema, other))]  # examples are of the first kind
    stated = [schema["properties"][field], *(rule.get("properties", {}).get(field, {}) for rule in rules)]
    return all("type" not in each and {"type": "null"} in each.get("anyOf", [{"type": "null"}]) for each in stated)


def objects(document: dict[str, Any], model: str) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Bodies of a schema, each with a field of the body, or of an item of its list, that is null; and whose it is."""
    schemas = document["components"]["schemas"]
    (example, *_) = schemas[model]["examples"]
    for field in schemas[model]["properties"]:
        yield {**example, field: None}, field, schemas[model]
        items = schemas[model]["properties"][field].get("items", {})
        if reference := items.get("$ref"):
            inner = schemas[reference.rpartition("/")[2]]
            for name in inner["properties"]:
                yield {**example, field: [{**example[field][0], name: None}]}, name, inner


def test_what_may_be_null_and_what_may_not_is_as_stated(
    rest: httpx.Client, document: dict[str, Any], name: str
) -> None:
    run = rest.post("/runs", json={"run_start_time": START, "value_rows": hours(name, [1.0])}).json()
    (series_id,) = run["series_ids"].values()
    asked = set()
    for verb, path, model in json_bodies(document):
        for body, field, schema in objects(document, model):
            if "run_id" in body and verb == "POST":
                body = {**body, "run_id": None if field == "run_id" else f"{name} {path} {model} {field}"}
            answer = rest.request(verb, path.format(run_id=run["run_id"], series_id=series_id), json=body)
            refused = answer.status_code == 422
            assert refused is not may_be_null(schema, field), (verb, path, field, answer.text)
            assert not refused or field in answer.json()["detail"]
            asked.add((model, field))
    assert {("SeriesChange", "name"), ("SeriesChange", "unit"), ("UploadRequest", "value")} <= asked


def test_a_unit_and_what_it_does_to_values_go_together_by_the_document(document: dict[str, Any]) -> None:
    change = document["components"]["schemas"]["SeriesChange"]
    assert change["dependentRequired"] == {"unit": ["unit_change"], "unit_change": ["unit"]}
    assert change["properties"]["unit_change"]["enum"] == ["declare", "convert"]
    assert set(change["then"]["properties"]) == {"name", "description", "retired"}


def test_a_correction_is_addressed_in_one_of_two_ways(document: dict[str, Any]) -> None:
    row = document["components"]["schemas"]["UpdateRow"]
    assert row["if"]["required"] == ["value_id"]
    of_series = {"series_id", "series_key", "labels"}
    assert set(row["then"]["properties"]) == of_series | {"run_id", "valid_time", "known_time", "valid_time_end"}
    assert row["else"]["required"] == ["valid_time"]
    assert [each["required"] for each in row["else"]["anyOf"]] == [["series_id"], ["series_key"]]


def test_a_lake_without_users_needs_no_key_by_the_document(document: dict[str, Any]) -> None:
    secured = [operation["security"] for _, _, operation in operations(document) if "security" in operation]
    assert secured
    assert all({} in alternatives and len(alternatives) == 3 for alternatives in secured)


@pytest.mark.parametrize("path", ["/series", "/runs", "/values", "/health"])
def test_a_wrong_method_is_told_all_that_there_are(rest: httpx.Client, document: dict[str, Any], path: str) -> None:
    allowed = rest.request("DELETE", path).headers["allow"].split(", ")
    documented = {verb for verb, of, _ in operations(document) if of == path}
    assert set(allowed) == documented | ({"HEAD"} if "GET" in documented else set())
