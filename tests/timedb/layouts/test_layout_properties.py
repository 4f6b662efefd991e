"""Whatever numbers, times and bytes a file holds: a right answer, or an error that names a line."""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.timedb.layouts.reading import rows_of
from timedb.contract.errors import TimeDBError

S: dict[str, Any] = {"valid_time": "t", "value": "v", "series": "s"}
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/St_Johns",
    "UTC",
    "Europe/London",
]
FORMATS = ["%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M", "%Y%m%d %H%M", "%Y-%m-%d %H:%M", "%d-%b-%y %H:%M", "%d/%m/%Y %I:%M %p"]


@pytest.fixture(scope="module")
def folder() -> Any:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def outcome(folder: Path, content: str | bytes, **options: Any) -> list[dict[str, Any]] | TimeDBError:
    """The rows of a file, or what is wrong with it."""
    try:
        return rows_of(folder, content, **options)
    except TimeDBError as error:
        return error


def written(number: float, decimal: str, thousands: str) -> str:
    """A number as a locale writes it."""
    whole, _, part = f"{abs(number):,.3f}".partition(".")
    sign = "-" if number < 0 else ""
    return sign + whole.replace(",", thousands) + (decimal + part if part else "")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(-(10**12), 10**12).map(lambda each: each / 1000), min_size=1, max_size=8),
    st.sampled_from([(".", ","), (",", "."), (",", " "), (".", "'"), (",", ""), (".", "")]),
)
def test_numbers_of_every_locale_round_trip_when_it_is_told(
    folder: Path, numbers: list[float], locale: tuple[str, str]
) -> None:
    decimal, thousands = locale
    rows = [
        f"2025-01-01T00:{minute:02}Z;{written(number, decimal, thousands)}" for minute, number in enumerate(numbers)
    ]
    content = "t;v\n" + "\n".join(rows) + "\n"
    found = rows_of(folder, content, decimal=decimal, thousands=thousands or None, **S)
    assert [row["value"] for row in found] == numbers
    untold = outcome(folder, content, **S)  # right, or refused
    if isinstance(untold, TimeDBError):
        assert re.search("v: line .*(--decimal|--thousands|--null)", untold.detail)
    else:
        assert [row["value"] for row in untold] == numbers


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(FORMATS),
    st.dates(datetime(1990, 1, 1).date(), datetime(2037, 12, 30).date()),
    st.sampled_from([15, 30, 60]),
    st.sampled_from(["woven", "blocks", "backwards"]),
)
def test_every_instant_of_every_local_day_is_found_again(
    folder: Path, zone: str, form: str, day: Any, minutes: int, order: str
) -> None:
    local = ZoneInfo(zone)
    begin = datetime(day.year, day.month, day.day, tzinfo=local).astimezone(UTC)
    count = 25 * 60 // minutes + 2
    instants = [begin + timedelta(minutes=minutes * number) for number in range(count)]
    stamps = [(instant.astimezone(local).strftime(form), instant) for instant in instants]
    if order == "woven":  # by what the clock shows, the first time first
        stamps.sort(key=lambda each: each[1].astimezone(local).replace(tzinfo=None))
    elif order == "backwards":
        stamps.reverse()
    content = "t;v\n" + "".join(f"{text};{number}\n" for number, (text, _) in enumerate(stamps))
    found = outcome(folder, content, time_format=form, time_zone=zone, decimal=".", **S)
    if isinstance(found, TimeDBError):  # a file that ends within the hour that comes twice may leave it open
        assert re.search("t: line .*comes twice", found.detail)
        return
    assert {row["value"]: row["valid_time"] for row in found} == {
        float(number): instant for number, (_, instant) in enumerate(stamps)
    }


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    b"t,v\n",
                    b"t;v\n",
                    b"2025-01-01T00:00Z",
                    b"01.02.2025 24:00",
                    b",",
                    b";",
                    b"\n",
                    b'"',
                    b"1.234,5",
                    b"n/e",
                ]
            ),
            st.sampled_from(
                [b"\xff\xfe", b"\xef\xbb\xbf", b"\x1f\x8b", b"PK\x03\x04", b"\0", b"\r", b"1e309", b"NaN", b"-0"]
            ),
            st.binary(max_size=6),
        ),
        max_size=30,
    ).map(b"".join),
    st.fixed_dictionaries(
        {},
        optional={
            "time_format": st.sampled_from(["%d.%m.%Y %H:%M", "unix-s", "excel"]),
            "time_zone": st.sampled_from(ZONES),
            "decimal": st.just(","),
            "encoding": st.sampled_from(["latin-1", "utf-16", "cp1252"]),
            "skip_lines": st.integers(1, 3),
            "no_header": st.just(True),
            "hour_ending": st.just(True),
            "duplicates": st.just("drop"),
            "ignore_others": st.just(True),
            "null": st.just(["n/e", ""]),
        },
    ),
)
def test_whatever_bytes_a_file_holds_it_is_read_or_refused(
    folder: Path, content: bytes, options: dict[str, Any]
) -> None:
    for said in (S, {"valid_time": "1", "value": "2", "series": "s"}, {"valid_time": "t", "wide": True}):
        if "wide" in said and "ignore_others" in options:
            continue
        found = outcome(folder, content, **said, **options)
        assert isinstance(found, list) or (found.code in ("invalid_request", "too_large") and found.detail)
