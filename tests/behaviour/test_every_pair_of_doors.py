"""Whatever goes in by one door comes out the same by every door, and what one refuses the others refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import flight

import timedb as td
from tests.behaviour.histories import utc
from tests.behaviour.pairs import (
    WAYS_IN,
    WAYS_OUT,
    Doors,
    Item,
    Meaning,
    arrow_bytes,
    arrow_table,
    bits,
    in_by_file,
    meanings,
    micros_of,
    parquet_bytes,
    posted,
)
from timedb.contract.times import MAX_MICROS, MIN_MICROS

if TYPE_CHECKING:
    pass

HOUR = 3_600_000_000
NOON = utc("2025-01-01 12:00")
FLOATS: list[float | None] = [
    None,
    math.nan,
    math.inf,
    -math.inf,
    0.0,
    -0.0,
    5e-324,
    -5e-324,
    2.225073858507201e-308,
    1.7976931348623157e308,
    0.1 + 0.2,
    1 / 3,
    9877.38,
    1e22,
    1e23,
    123456789012345680.0,
    2.0**53,
    2.0**53 + 2,
    -1.5,
    3.4028234663852886e38,
]
TIMES = [
    MIN_MICROS,
    MIN_MICROS + 1,
    MAX_MICROS - 1,
    MAX_MICROS,
    -1,
    0,
    1,
    utc("1582-10-10 00:00"),
    utc("1677-09-21 00:00"),
    utc("2262-04-12 00:00"),
    utc("2025-03-30 00:59") + 999_999,
    utc("2025-03-30 01:00"),
    utc("2025-10-26 00:30"),
    utc("2025-10-26 01:30"),
    utc("2024-02-29 23:59") + 59_999_999,
    utc("2016-12-31 23:59") + 59_000_000,
]
TEXTS = [
    "ordinary",
    "comma, quote \" and 'single'",
    "two\nlines",
    "\r\n",
    "tab\tand bell\x07",
    "  spaces around  ",
    "null",
    "NaN",
    "-",
    "[]",
    "{}",
    "#comment",
    "\\n",
    "Ünïcödé ⚡ 日本語 🌊",
    "e\u0301 is not \u00e9",
    "\u202eright to left",
    "a" * 10_000,
    "\ufeffmark",
    "\u2028",
    "=1+1",
    "\x7f",
    "0",
    "true",
]
NAMES = [
    "plain",
    "comma,name",
    'quote"name',
    "it's",
    " leading",
    "semi;colon",
    "ünï⚡日本",
    "name=value",
    "{}",
    "null",
    "NaN",
    "%20 &?#/",
    "a\\b",
    "e\u0301",
    "\u00e9",
    "-",
    "1e5",
    "<b>",
    "x" * 200,
]
TAGS: list[list[str] | None] = [
    None,
    [],
    ["a"],
    ["b", "a", "a"],
    [" Padded ", "padded"],
    ["comma,", 'quote"', "⚡"],
    ["[]"],
    [""],
]
CLEAN: list[tuple[str, ...] | None] = [
    None,
    None,
    ("a",),
    ("a", "b"),
    ("padded",),
    ("comma,", 'quote"', "⚡"),
    ("[]",),
    None,
]


def items(way: str) -> list[Item]:
    """Every value, time, text and name, in series that no other way in has."""
    found = [Item(f"values {way}", NOON + hour * HOUR, value) for hour, value in enumerate(FLOATS)]
    found += [Item(f"times {way}", time) for time in TIMES]
    found += [Item(f"ends {way}", start, valid_time_end=start + 1) for start in TIMES if start < MAX_MICROS]
    found += [Item(f"texts {way}", NOON + hour * HOUR, annotation=text) for hour, text in enumerate(TEXTS)]
    found += [
        Item(f"blanks {way}", NOON + hour * HOUR, annotation=text) for hour, text in enumerate(["", " ", "\t", None])
    ]
    found += [Item(f"tags {way}", NOON + hour * HOUR, tags=tags) for hour, tags in enumerate(TAGS)]
    found += [Item(f"{name} {way}", NOON) for name in NAMES]
    if "correction" not in way:  # which leaves the known_time
        known = [utc("1678-01-01 00:00"), -1, utc("2262-01-01 00:00")]
        found += [Item(f"known {way}", NOON + hour * HOUR, known_time=time) for hour, time in enumerate(known)]
    return found


def expected(way: str) -> dict[tuple[str, int], Meaning]:
    """What has to come out."""
    tags = dict(zip(map(json.dumps, TAGS), CLEAN, strict=True))
    return {
        (item.name, item.valid_time): (
            item.valid_time_end,
            item.known_time,
            bits(item.value),
            item.annotation if item.annotation and item.annotation.strip() else None,
            tags[json.dumps(item.tags)],
        )
        for item in items(way)
    }


@pytest.fixture(scope="module")
def uploaded(doors: Doors) -> list[str]:
    """The ids of all series, once everything went in by every way; one upload a way."""
    for way, send in WAYS_IN.items():
        send(doors, items(way))
    names = {item.name for way in WAYS_IN for item in items(way)}
    return [series["series_id"] for series in doors.client.list_series() if series["name"] in names]


@pytest.fixture(scope="module")
def read(doors: Doors, uploaded: list[str]) -> Any:
    """What a way out says of everything; one read a way."""
    answers: dict[str, dict[tuple[str, int], Meaning]] = {}

    def answer(way: str) -> dict[tuple[str, int], Meaning]:
        if way not in answers:
            answers[way] = meanings(WAYS_OUT[way](doors, uploaded))
        return answers[way]

    return answer


@pytest.mark.parametrize("out", WAYS_OUT)
@pytest.mark.parametrize("way", WAYS_IN)
def test_what_goes_in_comes_out(read: Any, way: str, out: str) -> None:
    answer = read(out)
    wanted = expected(way)
    found = {key: answer.get(key) for key in wanted}
    assert found == wanted


def test_what_goes_in_is_looked_up(doors: Doors, uploaded: list[str]) -> None:
    wanted = {key: meaning for way in WAYS_IN for key, meaning in expected(way).items()}
    asked = arrow_table(Item(name, time, valid_time_end=meaning[0]) for (name, time), meaning in wanted.items())
    found = doors.client.lookup(asked.select(["series_key", "valid_time", "valid_time_end"]))
    assert found["found"].all()
    answers = zip(map(bits, found["value"]), map(micros_of, found["known_time"]), strict=True)
    assert list(answers) == [(meaning[2], meaning[1]) for meaning in wanted.values()]


ROW = Item("refused", NOON)
REFUSED: dict[str, tuple[Item, str]] = {
    "a name of nothing": (replace(ROW, name=" "), "is not a name of 1 to 255 printable characters"),
    "a name with a line break": (replace(ROW, name="two\nlines"), "is not a name of 1 to 255 printable characters"),
    "a long name": (replace(ROW, name="x" * 256), "255"),
    "an end that is the start": (replace(ROW, valid_time_end=NOON), "is not after valid_time"),
    "a long annotation": (replace(ROW, annotation="a" * 10_001), "10000 characters"),
    "a long tag": (replace(ROW, tags=["t" * 256]), "255 characters"),
}


def refusal(doors: Doors, send: Any) -> str:
    """Why a door does not take what is sent; nothing of it may be there afterwards."""
    with pytest.raises((td.InvalidRequest, flight.FlightServerError, AssertionError)) as caught:
        send()
    text = str(caught.value)
    assert isinstance(caught.value, td.InvalidRequest) or "invalid_request: " in text, text
    return text


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("way", [way for way in WAYS_IN if "correction" not in way])
def test_what_one_door_refuses_all_refuse(doors: Doors, way: str, case: str) -> None:
    item, reason = REFUSED[case]
    assert reason in refusal(doors, lambda: WAYS_IN[way](doors, [item]))


JSON_ROW = {"value_key": "refused", "valid_time": "2025-01-01T00:00:00Z", "value": 1.0}
TEXTS_REFUSED = {
    "finer than a microsecond": ("valid_time", "2025-01-01T00:00:00.1234567Z", "microsecond"),
    "the year 0": ("valid_time", "0000-12-31T23:59:59Z", "valid_time"),
    "before the year 1 in UTC": ("valid_time", "0001-01-01T00:00:00+01:00", "valid_time"),
    "the year 10000": ("valid_time", "10000-01-01T00:00:00Z", "valid_time"),
    "a day that does not exist": ("valid_time", "2025-02-29", "2025-02-29"),
    "a leap second": ("valid_time", "2016-12-31T23:59:60Z", "2016-12-31T23:59:60Z"),
    "hour 24": ("valid_time", "2025-01-01T24:00:00Z", "24:00"),
    "no time": ("valid_time", "yesterday", "yesterday"),
    "a number for a time": ("valid_time", "1735689600", "1735689600"),
    "beyond the range": ("value", "1e309", "too large for a 64-bit float"),
    "a whole number that does not come back": ("value", "9007199254740993", "whole number"),
}


@pytest.mark.parametrize(
    ("way", "case"),
    [
        (way, case)
        for way in ("rest_json", "rest_ndjson", "rest_csv", "cli_csv")
        for case in TEXTS_REFUSED
        if (way, case) != ("cli_csv", "hour 24")  # in a file it is the next day's midnight
    ],
)
def test_texts_that_all_doors_refuse(doors: Doors, way: str, case: str) -> None:
    field, text, reason = TEXTS_REFUSED[case]
    values = {**JSON_ROW, field: text}
    if "csv" in way:
        line = ",".join(str(value) for value in values.values())
        body = f"series_key,valid_time,value\n{line}\n".encode()
    else:
        row = json.dumps(values).replace(f'"{text}"', text) if field == "value" else json.dumps(values)
        body = (f'{{"run_start_time": "2025-01-01", "value_rows": [{row}]}}' if way == "rest_json" else row).encode()
    types = {"rest_json": "application/json", "rest_ndjson": "application/x-ndjson", "rest_csv": "text/csv"}

    def send() -> None:
        if way == "cli_csv":
            in_by_file(doors, "csv", body)
        else:
            posted(doors, types[way], body)

    assert reason in refusal(doors, send)


SURROGATE = "\\ud800"
RUN: dict[str, Any] = {"run_start_time": "2025-01-01", "value_rows": [JSON_ROW]}
BODIES = {
    "an annotation": (
        "POST",
        "/upload",
        {**RUN, "value_rows": [{**JSON_ROW, "annotation": "?"}]},
    ),
    "a tag": ("POST", "/upload", {**RUN, "value_rows": [{**JSON_ROW, "tags": ["?"]}]}),
    "a name": ("POST", "/upload", {**RUN, "value_rows": [{**JSON_ROW, "value_key": "?"}]}),
    "a parameter": (
        "POST",
        "/upload",
        {**RUN, "run_params": {"a": ["?"]}},
    ),
    "a run": ("POST", "/upload", {**RUN, "run_id": "?"}),
    "a label": ("POST", "/series", {"name": "x", "labels": {"site": "?"}}),
    "a label's key": ("POST", "/series", {"name": "x", "labels": {"?": "north"}}),
    "a description": ("POST", "/series", {"name": "x", "description": "?"}),
    "a correction": ("PUT", "/values", {"updates": [{"value_id": "x", "annotation": "?"}]}),
    "a reason": ("POST", "/runs/x/withdraw", {"reason": "?"}),
}


@pytest.mark.parametrize("case", BODIES)
def test_half_a_character_is_refused_in_json(doors: Doors, case: str) -> None:
    method, path, body = BODIES[case]
    content = json.dumps(body).replace("?", SURROGATE)
    answer = doors.http.request(method, path, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text


def test_half_a_character_is_refused_by_the_client(doors: Doors) -> None:
    client, half = doors.client, "\ud800"
    calls: dict[str, Any] = {
        "name": lambda: client.create_series(half),
        "labels": lambda: client.create_series("x", labels={"a": half}),
        "keys": lambda: client.read(series_keys=half),
        "correction": lambda: client.update_values([{"value_id": "x", "annotation": half}]),
        "run": lambda: client.get_run(half),
        "params": lambda: client.upload(arrow_table([ROW]), run_params={"a": half}),
        "search": lambda: client.list_series(search=half),
    }
    for what, call in calls.items():
        assert "half" in refusal(doors, call) or "unicode" in refusal(doors, call), what


DAY = utc("2025-01-01 00:00")
KINDS: list[tuple[pa.DataType, Any, float]] = [
    (pa.decimal128(38, 20), Decimal("0.12345678901234567890"), 0.12345678901234567890),
    (pa.decimal128(10, 2), Decimal("9877.38"), 9877.38),
    (pa.uint64(), 2**63, 2.0**63),
    (pa.float32(), 0.1, 0.10000000149011612),
]


def sent(doors: Doors, table: pa.Table) -> None:
    doors.client.upload(table)


ARROW_WAYS: dict[str, Callable[[Doors, pa.Table], None]] = {
    "client": lambda doors, table: sent(doors, table),
    "rest parquet": lambda doors, table: posted(doors, "application/vnd.apache.parquet", parquet_bytes(table)),
    "rest arrow": lambda doors, table: posted(doors, "application/vnd.apache.arrow.stream", arrow_bytes(table)),
    "cli parquet": lambda doors, table: in_by_file(doors, "parquet", parquet_bytes(table)),
}


@pytest.mark.parametrize("way", ARROW_WAYS)
def test_numbers_of_other_types_and_dates(doors: Doors, way: str) -> None:
    for kind, value, _ in KINDS:
        columns = {"valid_time": pa.array([date(2025, 1, 1)]), "value": pa.array([value], kind)}
        ARROW_WAYS[way](doors, pa.table({"series_key": [f"{kind} {way}"], **columns}))
    for kind, _, meaning in KINDS:
        found = doors.client.read(series_keys=f"{kind} {way}", start_valid=date(2025, 1, 1), end_valid="2025-01-02")
        assert found["value"].to_list() == [meaning], kind
        assert [micros_of(time) for time in found["valid_time"]] == [DAY], kind


def test_a_bare_date_is_midnight_utc_wherever_it_stands(doors: Doors) -> None:
    name = "bare dates"
    body = b"series_key,valid_time,value\nbare dates,2025-01-0%d,%d\n"
    posted(doors, "text/csv", body % (1, 1))
    in_by_file(doors, "csv", body % (2, 2))
    posted(
        doors,
        "application/json",
        json.dumps(
            {
                "run_start_time": "2025-01-03",
                "known_time": "2025-01-03",
                "value_rows": [{"value_key": name, "valid_time": "2025-01-03", "value": 3}],
            }
        ).encode(),
    )
    doors.client.upload(arrow_table([Item(name, DAY + 3 * 24 * HOUR, 4.0)]), known_time=date(2025, 1, 4))
    whole = doors.client.read(series_keys=name).sort("valid_time")
    assert [micros_of(time) for time in whole["valid_time"]] == [DAY + day * 24 * HOUR for day in range(4)]
    bounds: dict[str, Any] = {"start_valid": "2025-01-02", "end_valid": "2025-01-04"}
    answers = [
        doors.client.read(series_keys=name, start_valid=date(2025, 1, 2), end_valid=date(2025, 1, 4))[
            "value"
        ].to_list(),
        doors.client.read(series_keys=name, **bounds)["value"].to_list(),
        td.scan_lake(doors.lake, series_keys=name, **bounds).collect()["value"].to_list(),
        [row["value"] for row in doors.http.get("/values", params={"name": name, **bounds}).json()["data"]],
        [
            row["value"]
            for row in json.loads(
                doors.cli(
                    "read", "--series", name, "--json", "--start-valid", "2025-01-02", "--end-valid", "2025-01-04"
                )
            )
        ],
    ]
    assert [sorted(answer) for answer in answers] == [[2.0, 3.0]] * len(answers)
