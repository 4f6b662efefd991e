"""What caches are told, and when an answer that somebody has is still so."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.rest_gateway.calls import START, hours, upload

if TYPE_CHECKING:
    from timedb.run.launch import Service


def asked(rest: httpx.Client, tag: str, **parameters: str) -> int:
    """The status of a read by somebody who has an answer of this tag."""
    return rest.get("/values", params=parameters, headers={"If-None-Match": tag}).status_code


@pytest.mark.parametrize("form", ["json", "csv", "ndjson", "arrow", "parquet"])
def test_rows_that_somebody_has_are_not_sent_again(rest: httpx.Client, name: str, form: str) -> None:
    upload(rest, hours(name, [1.0, 2.0]), run_id=name, known_time=START)
    first = rest.get("/values", params={"name": name, "format": form})
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    assert {"Accept", "X-API-Key", "Authorization"} <= {each.strip() for each in first.headers["vary"].split(",")}
    assert first.headers["x-token"] in tag
    for given in (tag, tag.removeprefix("W/"), f'"other", {tag}'):
        again = rest.get("/values", params={"name": name, "format": form}, headers={"If-None-Match": given})
        assert (again.status_code, again.content) == (304, b"")
        assert (again.headers["etag"], again.headers["cache-control"]) == (tag, "private, no-cache")
    assert asked(rest, tag, name=name, format="csv" if form != "csv" else "json") == 200, "another form of it"
    assert asked(rest, '"other"', name=name, format=form) == 200
    assert (
        rest.head("/values", params={"name": name, "format": form}, headers={"If-None-Match": tag}).status_code == 304
    )


def test_a_tag_goes_with_every_change_that_an_answer_shows(rest: httpx.Client, name: str) -> None:
    series_id = upload(rest, hours(name, [1.0]), run_id=name, known_time=START)["series_ids"][name]

    def tag_after(change: httpx.Response | None) -> str:
        assert change is None or change.status_code == 200, change.text
        answer = rest.get("/values", params={"series_id": series_id})
        assert asked(rest, answer.headers["etag"], series_id=series_id) == 304
        return answer.headers["etag"]

    correction = {"series_id": series_id, "valid_time": START, "value": 9.0}
    tags = [
        tag_after(None),
        tag_after(rest.put("/values", json={"updates": [correction]})),
        tag_after(rest.patch(f"/series/{series_id}", json={"name": f"{name} renamed"})),
        tag_after(rest.patch(f"/series/{series_id}", json={"unit": "MW", "unit_change": "declare"})),
        tag_after(rest.post(f"/runs/{name}/withdraw", json={})),
    ]
    assert len(set(tags)) == len(tags)


def test_what_is_said_of_series_and_runs_is_not_sent_again(rest: httpx.Client, name: str) -> None:
    series_id = upload(rest, hours(name, [1.0]), run_id=name, known_time=START)["series_ids"][name]
    paths = [*(f"/{path}?name={name}" for path in ("series", "list_timeseries", "series/labels")), f"/runs/{name}"]

    def tags() -> list[str]:
        found = [rest.get(path).headers["etag"] for path in (*paths, "/openapi.json", "/")]
        for path, tag in zip(paths, found, strict=False):
            for method, given in itertools.product(("GET", "HEAD"), (tag, tag.removeprefix("W/"), f'"x", {tag}', "*")):
                again = rest.request(method, path, headers={"If-None-Match": given})
                assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
                assert "content-length" not in again.headers
                assert again.headers["cache-control"] == "private, no-cache"
            assert rest.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
        return found

    first = tags()
    assert tags() == first
    assert rest.patch(f"/series/{series_id}", json={"description": "at the coast"}).status_code == 200
    assert rest.post(f"/runs/{name}/withdraw", json={}).status_code == 200
    assert [old != new for old, new in zip(first, tags(), strict=True)] == [True, True, False, True, False, False]


def test_a_tag_is_of_one_key_and_of_what_it_sees(new_service: Callable[..., Service]) -> None:
    from timedb import create_user, update_user

    service = new_service()
    assert service.lake is not None
    with httpx.Client(base_url=service.rest_url) as rest:
        upload(rest, hours("seen", [1.0]), run_id="seen", known_time=START)
        keys = [create_user(f"{who}@example.com", lake=service.lake)["api_key"] for who in ("ann", "bob")]

        def read(key: str, tag: str = "") -> httpx.Response:
            return rest.get("/values", headers={"X-API-Key": key, "If-None-Match": tag})

        tags = [read(key).headers["etag"] for key in keys]
        assert [read(key, tag).status_code for key, tag in zip(keys, tags, strict=True)] == [304, 304]
        assert read(keys[1], tags[0]).status_code == 200
        assert read("wrong", tags[0]).status_code == 401
        update_user("bob@example.com", labels={"region": "north"}, lake=service.lake)
        limited = read(keys[1], tags[1])
        assert limited.status_code == 200
        assert limited.json()["data"] == []


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/series", "private, no-cache"),
        ("GET", "/runs", "private, no-cache"),
        ("GET", "/list_timeseries", "private, no-cache"),
        ("GET", "/openapi.json", "private, no-cache"),
        ("GET", "/ui", "no-cache"),
        ("GET", "/health", "no-store"),
        ("GET", "/health/live", "no-store"),
        ("GET", "/metrics", "no-store"),
        ("GET", "/nowhere", "no-store"),
        ("GET", "/values?limit=x", "no-store"),
        ("DELETE", "/values", "no-store"),
        ("POST", "/series", "no-store"),
    ],
)
def test_every_answer_says_what_caches_may_do(rest: httpx.Client, method: str, path: str, expected: str) -> None:
    answer = rest.request(method, path)
    assert answer.headers["cache-control"] == expected
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
