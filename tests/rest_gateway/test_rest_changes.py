"""``GET /changes``: an answer as soon as there is something, events without end, and what a waiter costs."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.rest_gateway.calls import assert_error, hours, read, upload
from timedb.rest_gateway.http import wake_ups

if TYPE_CHECKING:
    from timedb.run.launch import Service

EVENTS = {"Accept": "text/event-stream"}


def changes(rest: httpx.Client, **parameters: Any) -> dict[str, Any]:
    """The answer, whose shape is always the same."""
    response = rest.get("/changes", params=parameters)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert list(answer) == ["data", "count", "token"]
    assert answer["count"] == len(answer["data"])
    return answer


def events(response: httpx.Response) -> Iterator[dict[str, str]]:
    """The events of a stream, as the standard has them."""
    event: dict[str, str] = {}
    for line in response.iter_lines():
        if not line:
            yield event
            event = {}
            continue
        name, _, value = line.partition(": ")
        event[name] = value


def rows_of(answer: dict[str, Any]) -> list[float]:
    return [row["value"] for row in answer["data"]]


def test_a_chain_of_tokens_brings_each_version_once(rest: httpx.Client, name: str) -> None:
    upload(rest, hours(name, [1.0, 2.0]), run_id=name)
    first = changes(rest, name=name)
    assert rows_of(first) == [1.0, 2.0]
    assert first["data"] == read(rest, name, mode="changes")["data"]
    upload(rest, hours(name, [3.0]), run_id=f"{name}-2")
    second = changes(rest, name=name, since=first["token"], wait=30)
    assert rows_of(second) == [3.0]
    assert rows_of(changes(rest, name=name, since=second["token"])) == []
    assert read(rest, name, mode="changes", since=first["token"])["data"] == second["data"]


def test_who_waits_is_answered_once_something_is_there(rest: httpx.Client, name: str) -> None:
    upload(rest, hours(name, [1.0]), run_id=name)
    token = changes(rest, name=name, since="now")["token"]
    found: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: found.append(changes(rest, name=name, since=token, wait=300)))
    waiting.start()
    upload(rest, hours(f"{name}-other", [7.0]))
    upload(rest, hours(name, [2.0]), run_id=f"{name}-2")
    waiting.join(120)
    assert [rows_of(each) for each in found] == [[2.0]]
    nothing = changes(rest, name=name, since=found[0]["token"], wait=1)
    assert nothing["data"] == []
    assert rows_of(changes(rest, name=name, since=nothing["token"])) == []


def test_a_large_upload_comes_in_pages(rest: httpx.Client, name: str) -> None:
    lines = "".join(f"{name},{1735689600 + 60 * minute},{minute}\n" for minute in range(25_000))
    body = f"series_key,valid_time,value\n{lines}".encode()
    sent = rest.post("/runs", content=body, params={"time_format": "unix-s"}, headers={"Content-Type": "text/csv"})
    assert sent.status_code == 200, sent.text
    token, found = None, []
    while page := changes(rest, name=name, **({} if token is None else {"since": token})):
        if not page["count"]:
            break
        found += rows_of(page)
        token = page["token"]
    assert found == [float(minute) for minute in range(25_000)]


def test_events_go_on_from_the_last_id(rest: httpx.Client, name: str) -> None:
    upload(rest, hours(name, [1.0]), run_id=name)
    with rest.stream("GET", "/changes", params={"name": name}, headers=EVENTS) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        stream = events(response)
        first = next(stream)
        assert rows_of(json.loads(first["data"])) == [1.0]
        assert json.loads(first["data"])["token"] == first["id"]
        upload(rest, hours(name, [2.0]), run_id=f"{name}-2")
        assert rows_of(json.loads(next(each for each in stream if "data" in each)["data"])) == [2.0]
    again = {**EVENTS, "Last-Event-ID": first["id"]}
    with rest.stream("GET", "/changes", params={"name": name, "since": "now"}, headers=again) as response:
        assert rows_of(json.loads(next(events(response))["data"])) == [2.0]


def test_nothing_new_is_an_event_without_data(new_service: Callable[..., Service]) -> None:
    service = new_service(follow_heartbeat_seconds=0.05)
    with httpx.stream("GET", f"{service.rest_url}/changes", params={"since": "now"}, headers=EVENTS) as response:
        stream = events(response)
        assert [list(next(stream)) for _ in range(3)] == [["id"]] * 3


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    ("parameters", "status", "code", "part"),
    [
        ({"since": "yesterday"}, 422, "invalid_request", "since: 'yesterday' is not the token"),
        ({"wait": "301"}, 422, "invalid_request", "wait"),
        ({"wait": "soon"}, 422, "invalid_request", "wait"),
        ({"limit": "5"}, 422, "invalid_request", "limit"),
        ({"as_of": "2025-01-01T00:00:00Z"}, 422, "invalid_request", "as_of"),
        ({"mode": "flat"}, 422, "invalid_request", "mode"),
        ({"name": "no such series"}, 404, "not_found", "no such series"),
    ],
)
def test_what_does_not_fit_is_an_error(
    rest: httpx.Client, parameters: dict[str, str], status: int, code: str, part: str, accept: str
) -> None:
    response = rest.get("/changes", params=parameters, headers={"Accept": accept})
    assert_error(response, status, code, part)


def test_another_format_is_refused(rest: httpx.Client) -> None:
    assert_error(rest.get("/changes", headers={"Accept": "text/csv"}), 422, "invalid_request", "text/event-stream")


def test_waiters_have_places_of_their_own_and_share_a_stream(new_service: Callable[..., Service]) -> None:
    service = new_service(max_rest_followers=20, max_rest_calls=2, max_followers=1)
    with httpx.Client(base_url=service.rest_url, timeout=60) as rest:
        token = changes(rest, since="now")["token"]
        found: list[dict[str, Any]] = []

        def wait() -> None:
            with httpx.Client(base_url=service.rest_url, timeout=60) as own:
                while (answer := own.get("/changes", params={"since": token, "wait": 300})).status_code == 503:
                    pass  # the place was the other client's, below
                found.append(answer.json())

        waiting = [threading.Thread(target=wait) for _ in range(20)]
        for thread in waiting:
            thread.start()
        while rest.get("/changes", params={"since": token}).status_code == 200:
            pass
        assert_error(rest.get("/changes"), 503, "busy", "20 calls are under way")
        upload(rest, hours("woken", [1.0]))
        for thread in waiting:
            thread.join(120)
        # The server has a place for one follower alone.
        assert [rows_of(each) for each in found] == [[1.0]] * 20


def test_many_who_are_woken_at_once_are_all_answered(new_service: Callable[..., Service]) -> None:
    service = new_service(max_concurrent_reads_per_tenant=10)
    many = 40

    async def wait_for_all() -> list[list[float]]:
        limits = httpx.Limits(max_connections=many)
        async with httpx.AsyncClient(base_url=service.rest_url, timeout=60, limits=limits) as rest:
            token = (await rest.get("/changes", params={"since": "now"})).json()["token"]
            waiting = [rest.get("/changes", params={"since": token, "wait": 300}) for _ in range(many)]
            woken = asyncio.gather(*waiting)
            await asyncio.to_thread(write)
            return [rows_of(answer.raise_for_status().json()) for answer in await woken]

    def write() -> None:
        with httpx.Client(base_url=service.rest_url, timeout=60) as rest:
            upload(rest, hours("woken", [1.0]))

    assert asyncio.run(wait_for_all()) == [[1.0]] * many


def test_who_waits_is_let_go_when_the_gateway_stops(new_service: Callable[..., Service]) -> None:
    service = new_service(shutdown_seconds=60.0)
    with httpx.stream("GET", f"{service.rest_url}/changes", params={"since": "now"}, headers=EVENTS) as response:
        stream = events(response)
        next(stream)
        stopping = threading.Thread(target=service.stop)
        stopping.start()
        assert [event for event in stream if "data" in event] == []
        stopping.join(30)
        assert not stopping.is_alive()


def test_a_stream_that_nobody_waits_for_ends(new_service: Callable[..., Service]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wake_ups, "_LINGER_SECONDS", 0.05)
        service = new_service()
        with httpx.Client(base_url=service.rest_url, timeout=60) as rest:
            changes(rest, since="now", wait=1)
            while 'timedb_flight_slots_taken{kind="followers"} 0.0' not in rest.get("/metrics").text:
                pass
