"""Compressed answers: who gets them, that they are the same rows, and that nothing else changes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import timedelta

import httpx
import pyarrow as pa
import pytest

from tests.rest_gateway.calls import START, hours, upload
from timedb.contract.times import parse_time
from timedb.rest_gateway.answer.compression import preferred_coding

ROWS = 20_000
MANY = "compressed-rows"


@pytest.fixture(scope="module")
def many(rest: httpx.Client) -> str:
    """The query of a series whose answers are long in every format; always of one state of the lake."""
    start = parse_time(START)
    lines = "".join(f"{MANY},{start + timedelta(minutes=row)},{row / 8}\n" for row in range(ROWS))
    answer = rest.post(
        "/runs",
        params={"run_id": MANY},
        content="series_key,valid_time,value\n" + lines,
        headers={"Content-Type": "text/csv"},
    )
    assert answer.status_code == 200, answer.text
    token = rest.head("/values", params={"name": MANY}).headers["x-token"]
    return str(httpx.QueryParams(name=MANY, token=token))


def asked(
    rest: httpx.Client, path: str, coding: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[httpx.Response, bytes]:
    """An answer, and its body as it came."""
    headers = {"Accept-Encoding": coding, **(headers or {})}
    with rest.stream(method, path, headers=headers) as answer:
        return answer, b"".join(answer.iter_raw())


def unpacked(body: bytes, coding: str) -> bytes:
    """A body as it was before; that it is whole is part of it."""
    whole: bytes = pa.CompressedInputStream(io.BytesIO(body), coding).read()
    return whole


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("gzip;q=0.5, zstd;q=0.8, identity;q=0.1", "zstd"),
        ("gzip;q=0", None),
        ("gzip;q=0, zstd", "zstd"),
        ("gzip;q=x", None),
        ("gzip;q=0.5, identity", None),
        ("gzip, identity", "gzip"),
        ("*", "gzip"),
        ("*;q=0", None),
        ("gzip;q=0, *", None),
        ("zstd;q=0.1, *", "gzip"),
    ],
)
def test_the_coding_that_a_header_prefers(header: str, expected: str | None) -> None:
    assert preferred_coding(header) == expected


@pytest.mark.parametrize("form", ["json", "csv", "ndjson", "arrow"])
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_long_answer_is_compressed_and_else_the_same(rest: httpx.Client, many: str, form: str, coding: str) -> None:
    path = f"/values?{many}&format={form}"
    plain, body = asked(rest, path, "identity")
    packed, sent = asked(rest, path, coding)
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == coding
    assert unpacked(sent, coding) == body
    assert len(sent) < len(body) / 3
    assert "Accept-Encoding" in plain.headers["vary"]
    told = ("content-type", "etag", "x-token", "x-as-of", "cache-control", "vary")
    assert [packed.headers[name] for name in told] == [plain.headers[name] for name in told]
    again, nothing = asked(rest, path, coding, headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, nothing, "content-encoding" in again.headers) == (304, b"", False)


def test_head_says_what_get_says_of_it(rest: httpx.Client, many: str) -> None:
    for path in (f"/values?{many}", f"/values?{many}&limit=50", "/openapi.json", "/docs", "/list_timeseries"):
        for coding in ("identity", "gzip", "zstd"):
            head, nothing = asked(rest, path, coding, "HEAD")
            whole, _ = asked(rest, path, coding)
            apart = ("date", "x-request-id")
            said = [{name: text for name, text in each.headers.items() if name not in apart} for each in (head, whole)]
            assert said[0] == said[1]
            assert nothing == b""


def test_a_page_of_rows_says_how_long_it_is(rest: httpx.Client, many: str) -> None:
    answer, body = asked(rest, f"/values?{many}&limit=50", "gzip")
    assert (answer.headers["content-encoding"], answer.headers["content-length"]) == ("gzip", str(len(body)))
    assert rest.get(f"/values?{many}&limit=50").json()["count"] == 50


def test_what_is_short_or_compressed_goes_as_it_is(rest: httpx.Client, many: str, name: str) -> None:
    upload(rest, hours(name, [1.0]))
    for path in (f"/values?name={name}", f"/values?{many}&format=parquet", "/health", "/values?limit=x"):
        answer, body = asked(rest, path, "gzip, zstd")
        assert "content-encoding" not in answer.headers
        plain, as_it_is = asked(rest, path, "identity")
        assert answer.status_code == plain.status_code
        assert len(body) == len(as_it_is)


def test_every_long_answer_is_compressed_once(rest: httpx.Client, name: str) -> None:
    rows = [row for number in range(30) for row in hours(f"{name} {number}", [1.0])]
    answer = rest.post("/runs", json={"run_start_time": START, "value_rows": rows}, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.json()["series_ids"]) == 30
    for path in ("/openapi.json", "/metrics", "/list_timeseries", "/changes", "/ui", "/docs"):
        packed, body = asked(rest, path, "gzip")
        assert packed.headers.get_list("content-encoding") == ["gzip"]
        assert len(unpacked(body, "gzip")) > len(body)


@pytest.mark.usefixtures("many")
def test_events_are_never_held_back_by_a_compressor(rest: httpx.Client) -> None:
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, zstd"}
    with rest.stream("GET", f"/changes?name={MANY}", headers=headers) as answer:
        assert "content-encoding" not in answer.headers
        assert next(answer.iter_raw()).startswith(b"id: ")
