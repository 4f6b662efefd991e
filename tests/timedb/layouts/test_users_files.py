"""Files that users have, each with the right answer: repeated hours, hour endings, counted periods, odd clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.timedb.layouts.reading import micro_rows, rows_of
from timedb.contract.errors import InvalidRequest

S: dict[str, Any] = {"valid_time": "t", "value": "v", "series": "s"}
WARSAW = S | {"time_zone": "Europe/Warsaw"}
QUARTERS = ["02:00", "02:15", "02:30", "02:45"]
FIRST = ["2025-10-26T00:00Z", "2025-10-26T00:15Z", "2025-10-26T00:30Z", "2025-10-26T00:45Z"]
SECOND = [each.replace("T00", "T01") for each in FIRST]


def table(times: list[str], day: str = "2025-10-26") -> str:
    """A file with a value for each of some local times, numbered from 1."""
    return "t,v\n" + "".join(f"{day} {each},{number}\n" for number, each in enumerate(times, 1))


def refused(folder: Path, content: str | bytes, **options: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        rows_of(folder, content, **options)
    return caught.value.detail


def test_the_hour_that_comes_twice_woven_and_block_by_block(tmp_path: Path) -> None:
    woven = table(["01:45", *sorted(QUARTERS * 2), "03:00"])
    found = micro_rows(tmp_path, woven, **WARSAW)
    assert found == [
        ("2025-10-25T23:45Z", 1),
        *zip(FIRST, (2, 4, 6, 8), strict=True),
        *zip(SECOND, (3, 5, 7, 9), strict=True),
        ("2025-10-26T02:00Z", 10),
    ]
    blocks = micro_rows(tmp_path, table(["01:45", *QUARTERS, *QUARTERS, "03:00"]), **WARSAW)
    assert [time for time, _ in blocks] == [time for time, _ in found]
    assert [value for _, value in blocks] == list(range(1, 11))
    backwards = table(["01:45", *QUARTERS, *QUARTERS, "03:00"][::-1])
    assert [value for _, value in micro_rows(tmp_path, backwards, **WARSAW)] == list(range(10, 0, -1))


def test_a_file_that_begins_within_the_hour_is_known_by_where_the_clock_goes_back(tmp_path: Path) -> None:
    found = micro_rows(tmp_path, table(["02:30", "02:45", *QUARTERS, "03:00"]), **WARSAW)
    assert [time for time, _ in found] == [*FIRST[2:], *SECOND, "2025-10-26T02:00Z"]


@pytest.mark.parametrize(
    "times", [["01:45", "02:00", "03:00"], QUARTERS, ["02:00", "02:00", "02:15", "02:30", "02:30"], ["02:00"] * 3]
)
def test_an_hour_that_cannot_be_known_is_refused(tmp_path: Path, times: list[str]) -> None:
    said = refused(tmp_path, table(times), **WARSAW)
    assert "comes twice in Europe/Warsaw" in said
    assert "--ambiguous earlier" in said
    assert "t: line " in said
    once = table(["01:45", "02:00"])
    assert micro_rows(tmp_path, once, ambiguous="earlier", **WARSAW)[1] == ("2025-10-26T00:00Z", 2)
    assert micro_rows(tmp_path, once, ambiguous="later", **WARSAW)[1] == ("2025-10-26T01:00Z", 2)


def test_rows_of_several_series_are_sequences_of_their_own(tmp_path: Path) -> None:
    rows = [
        f"2025-10-26 {time},{zone},{value}"
        for value, time in enumerate(["01:00", "02:00", "02:00", "03:00"])
        for zone in "ab"
    ]
    found = rows_of(
        tmp_path,
        "t,zone,v\n" + "\n".join(rows),
        valid_time="t",
        value="v",
        series_column="zone",
        time_zone="Europe/Berlin",
    )
    hours = [datetime(2025, 10, 25, 23, tzinfo=UTC) + timedelta(hours=hour) for hour in range(4)]
    assert [(row["series_key"], row["valid_time"], row["value"]) for row in found] == [
        (zone, hour, value) for zone in "ab" for value, hour in enumerate(hours)
    ]


def test_vintages_that_each_have_the_hour_once_are_not_mixed_up(tmp_path: Path) -> None:
    rows = "t,known_time,v\n2025-10-26 02:00,2025-10-01T00:00Z,1\n2025-10-26 02:00,2025-10-02T00:00Z,2\n"
    assert "stands once" in refused(tmp_path, rows, **WARSAW)


HOUR_ENDING = (
    "DeliveryDate,HourEnding,NORTH,SOUTH,DSTFlag\n11/02/2025,01:00,10,20,N\n11/02/2025,02:00,11,21,N\n"
    "11/02/2025,02:00,12,22,Y\n11/02/2025,24:00,13,23,N\n"
)


@pytest.mark.parametrize(
    "wide", [{"wide": True, "ignore": ["DSTFlag"]}, {"wide_columns": "NORTH,SOUTH", "ignore_others": True}]
)
def test_date_hour_ending_and_a_column_a_zone(tmp_path: Path, wide: dict[str, Any]) -> None:
    found = rows_of(
        tmp_path,
        HOUR_ENDING,
        valid_time="DeliveryDate,HourEnding",
        time_format="%m/%d/%Y %H:%M",
        time_zone="America/Chicago",
        hour_ending=True,
        **wide,
    )
    hour = timedelta(hours=1)
    starts = [datetime(2025, 11, 2, 5, tzinfo=UTC) + each * hour for each in (0, 1, 2, 24)]
    assert [(row["series_key"], row["valid_time"], row["valid_time_end"], row["value"]) for row in found] == [
        (name, start, start + hour, base + number)
        for name, base in (("NORTH", 10), ("SOUTH", 20))
        for number, start in enumerate(starts)
    ]


@pytest.mark.parametrize(
    ("zone", "day", "times"),
    [
        ("Europe/Berlin", "2025-03-30", ["01:00", "03:00", "04:00"]),  # the instants at which hours end
        ("Europe/Berlin", "2025-03-30", ["01:00", "02:00", "04:00"]),  # hours by their ends
        ("Europe/Berlin", "2025-10-26", ["01:00", "02:00", "02:00", "03:00", "04:00"]),
        ("Europe/Berlin", "2025-10-26", ["01:00", "02:00", "03:00", "03:00", "04:00"]),
    ],
)
def test_stamps_that_end_their_hour_follow_each_other_without_a_gap(
    tmp_path: Path, zone: str, day: str, times: list[str]
) -> None:
    found = rows_of(tmp_path, table(times, day), hour_ending=True, time_zone=zone, **S)
    assert [row["value"] for row in found] == list(range(1, len(times) + 1))
    assert [row["valid_time_end"] for row in found[:-1]] == [row["valid_time"] for row in found[1:]]


@pytest.mark.parametrize(
    ("zone", "day", "period", "count"),
    [
        ("Europe/London", "2023-10-29", "30min", 50),
        ("Europe/London", "2023-03-26", "30min", 46),
        ("Europe/London", "2023-05-01", "30min", 48),
        ("Europe/Berlin", "2025-10-26", "15min", 100),
        ("Europe/Berlin", "2025-03-30", "1h", 23),
        ("Australia/Lord_Howe", "2025-04-06", "30min", 49),
    ],
)
def test_periods_are_counted_in_the_local_day(tmp_path: Path, zone: str, day: str, period: str, count: int) -> None:
    content = "day,sp,mw\n" + "".join(f"{day},{number},{number}\n" for number in range(1, count + 1))
    options = {
        "valid_time": "day",
        "value": "mw",
        "series": "s",
        "period_number": "sp",
        "period": period,
        "time_zone": zone,
    }
    found = rows_of(tmp_path, content, **options)
    assert len(found) == count
    assert [row["valid_time_end"] for row in found[:-1]] == [row["valid_time"] for row in found[1:]]
    assert [row["value"] for row in found] == list(range(1, count + 1))
    more = refused(tmp_path, content + f"{day},{count + 1},0\n", **options)
    assert f"sp: line {count + 2}: '{count + 1}' is none of the periods 1 to {count} that {day} has in {zone}" in more


GERMAN = "Zeit;Wert\n01.01.2025 00:00;1.234,56\n01.01.2025 00:15;-0,50\n"
TOLD = {
    "valid_time": "Zeit",
    "value": "Wert",
    "series": "s",
    "time_format": "%d.%m.%Y %H:%M",
    "time_zone": "Europe/Berlin",
    "decimal": ",",
    "thousands": ".",
}


@pytest.mark.parametrize("content", [GERMAN.encode(), b"\xef\xbb\xbf" + GERMAN.encode(), GERMAN.encode("utf-16")])
def test_a_german_file_is_read_when_told_and_refused_with_the_option_untold(tmp_path: Path, content: bytes) -> None:
    assert micro_rows(tmp_path, content, **TOLD) == [("2024-12-31T23:00Z", 1234.56), ("2024-12-31T23:15Z", -0.5)]
    assert micro_rows(tmp_path, content, delimiter=";", **TOLD)[0][1] == 1234.56
    for left_out, remedy in [
        ("time_format", "--time-format '%d.%m.%Y %H:%M' or --time-format '%m.%d.%Y %H:%M'"),
        ("time_zone", "--time-zone"),
        ("decimal", "--decimal"),
        ("thousands", "has a point"),
        ("series", "--series"),
        ("value", "--value"),
    ]:
        said = refused(tmp_path, content, **{name: value for name, value in TOLD.items() if name != left_out})
        assert remedy in said


def test_latin_1_quoted_thousands_no_header_and_a_preamble(tmp_path: Path) -> None:
    latin = "t;Größe\n2025-01-01T00:00Z;5\n".encode("latin-1")
    assert "--encoding latin-1" in refused(tmp_path, latin, valid_time="t", value="Größe", series="s")
    read = micro_rows(tmp_path, latin, valid_time="t", value="Größe", series="s", encoding="latin-1")
    assert read == [("2025-01-01T00:00Z", 5)]
    quoted = 't,v\n2025-01-01T00:00Z,"1,234.5"\n'
    assert "--thousands ," in refused(tmp_path, quoted, **S)
    assert micro_rows(tmp_path, quoted, thousands=",", **S) == [("2025-01-01T00:00Z", 1234.5)]
    bare = "2025-01-01T00:00Z,5\n2025-01-01T01:00Z,6\n"
    assert "--no-header" in refused(tmp_path, bare, series="s")
    assert len(micro_rows(tmp_path, bare, no_header=True, valid_time="1", value="2", series="s")) == 2
    preamble = "Load\n\nsource: x, y\n# all in MW\nt,v\n2025-01-01T00:00Z,x\n"
    assert "line 5 looks like its line of names: --skip-lines 4" in refused(tmp_path, preamble, **S)
    assert "v: line 6: 'x' is not a number; --null x" in refused(tmp_path, preamble, skip_lines=4, **S)


def test_a_number_that_may_be_one_of_two_is_refused(tmp_path: Path) -> None:
    doubtful = "t;v\n2025-01-01T00:00Z;1.234\n2025-01-01T01:00Z;12\n"
    said = refused(tmp_path, doubtful, **S)
    assert "v: line 2: '1.234' may be 1.234 or 1234: --decimal . says the one, --decimal , --thousands ." in said
    assert micro_rows(tmp_path, doubtful, decimal=".", **S)[0][1] == 1.234
    assert micro_rows(tmp_path, doubtful, decimal=",", thousands=".", **S)[0][1] == 1234
    clear = doubtful + "2025-01-01T02:00Z;0.5\n"
    assert [value for _, value in micro_rows(tmp_path, clear, **S)] == [1.234, 12, 0.5]


@pytest.mark.parametrize("word", ["n/e", "N/A", "-", "NULL"])
def test_words_for_nothing_are_refused_unless_they_are_listed(tmp_path: Path, word: str) -> None:
    content = f"t,v\n2025-01-01T00:00Z,{word}\n2025-01-01T01:00Z,\n2025-01-01T02:00Z,NaN\n"
    assert f"v: line 2: '{word}' is not a number; --null {word}" in refused(tmp_path, content, **S)
    values = [value for _, value in micro_rows(tmp_path, content, null=[word], **S)]
    assert values[:2] == [None, None]
    assert str(values[2]) == "nan"


def test_the_same_row_twice_is_dropped_when_told_and_contradictions_never_are(tmp_path: Path) -> None:
    twice = "t,v\n2025-01-01T00:00Z,5\n2025-01-01T00:00Z,5\n2025-01-01T01:00Z,6\n"
    said = refused(tmp_path, twice, **S)
    assert "line 2 and line 3" in said
    assert "--duplicates drop" in said
    assert [value for _, value in micro_rows(tmp_path, twice, duplicates="drop", **S)] == [5, 6]
    other = twice.replace("00:00Z,5\n2025-01-01T01", "00:00Z,7\n2025-01-01T01")
    said = refused(tmp_path, other, duplicates="drop", **S)
    assert (
        "line 2 and line 3: 's' has 2025-01-01T00:00:00.000000+00:00 twice, and they contradict each other: 5.0 and 7.0"
        in said
    )


@pytest.mark.parametrize(
    ("text", "form", "meant"),
    [
        ("1735689600000", "unix-ms", "2025-01-01T00:00Z"),
        ("1735689600", "unix-s", "2025-01-01T00:00Z"),
        ("1735689600.5", "unix-s", "2025-01-01T00:00Z"),
        ("1735689600000000", "unix-us", "2025-01-01T00:00Z"),
        ("45658.5", "excel", "2025-01-01T12:00Z"),
        ("45658.0104166667", "excel", "2025-01-01T00:15Z"),
        ("20250101 0100", "%Y%m%d %H%M", "2025-01-01T01:00Z"),
        ("2025010101", "%Y%m%d%H", "2025-01-01T01:00Z"),
        ("01/02/2025 24:00", "%d/%m/%Y %H:%M", "2025-02-02T00:00Z"),
        ("2025-01-01T24:00:00Z", None, "2025-01-02T00:00Z"),
        ("3-Jan-25 12:05 AM", "%d-%b-%y %I:%M %p", "2025-01-03T00:05Z"),
        ("2025-001", "%Y-%j", "2025-01-01T00:00Z"),
    ],
)
def test_odd_clocks_are_read_as_they_are_stated_and_never_otherwise(
    tmp_path: Path, text: str, form: str | None, meant: str
) -> None:
    content = f"t,v\n{text},1\n"
    assert micro_rows(tmp_path, content, time_format=form, time_zone="UTC", **S) == [(meant, 1)]
    if form is not None:
        said = refused(tmp_path, content, time_zone="UTC", **S)
        assert f"t: line 2: '{text}' is not an RFC 3339 time" in said
        assert ("day or month first" in said) == text.startswith("01/02")
        assert (
            form.startswith(("%d-%b", "%Y-%j"))
            or f"--time-format {form if ' ' not in form else chr(39) + form}" in said
        )
    for other in ("%d.%m.%Y", "unix-us" if "." in text or "-" in text else "%H:%M %d.%m.%Y"):
        assert "t: line 2: " in refused(tmp_path, content.replace("Z", "X"), time_format=other, time_zone="UTC", **S)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("%H:%M", "does not say year, month and day"),
        ("%Y-%m-%d %Q", "has %Q"),
        ("%Y-%m-%d %Y", "has %Y twice"),
        ("nonsense", "does not say"),
    ],
)
def test_a_format_that_is_none_is_refused(tmp_path: Path, form: str, reason: str) -> None:
    assert f"--time-format: '{form}' {reason}" in refused(tmp_path, "t,v\n1,1\n", time_format=form, **S)


def test_when_values_became_known(tmp_path: Path) -> None:
    content = "t,v\n2025-01-01T00:00Z,1\n"
    quarter = timedelta(minutes=15)
    start = datetime(2025, 1, 1, tzinfo=UTC)
    assert rows_of(tmp_path, content, known_after="15min", **S)[0]["known_time"] == start + quarter
    ended = rows_of(tmp_path, content, known_after="15min", period="1h", **S)[0]
    assert (ended["valid_time_end"], ended["known_time"]) == (start + 4 * quarter, start + 5 * quarter)
    assert rows_of(tmp_path, content, known_time="t", **S)[0]["known_time"] == start
    for beside in ({"known_time": "t"}, {"known_time_from_name": "x"}):
        assert "--known-after" in refused(tmp_path, content, known_after="1h", **beside, **S)


@pytest.mark.parametrize(
    ("name", "pattern", "zone", "known"),
    [
        ("load_20250102_0530.csv", r"_(\d{8})_(\d{4})", "Europe/Berlin", "2025-01-02T04:30:00.000000+00:00"),
        ("load_20250102.csv", r"\d{8}", None, "2025-01-02T00:00:00.000000+00:00"),
        ("load-2025-01-02T05:30Z.csv", r"load-(.*)\.csv", None, "2025-01-02T05:30:00.000000+00:00"),
    ],
)
def test_the_known_time_in_a_file_s_name(tmp_path: Path, name: str, pattern: str, zone: str | None, known: str) -> None:
    from timedb.layouts.layout import Layout
    from timedb.layouts.prepared import prepare

    (tmp_path / name).write_text("t,v\n2025-01-01T00:00Z,1\n")
    with prepare(tmp_path / name, Layout.of(S | {"known_time_from_name": pattern, "time_zone": zone})) as prepared:
        assert prepared.known_at == known
    for wrong in ("nothing", "load"):
        with pytest.raises(InvalidRequest, match="--known-time-from-name"):
            prepare(tmp_path / name, Layout.of(S | {"known_time_from_name": wrong})).__enter__()


def test_start_and_end_in_one_cell(tmp_path: Path) -> None:
    content = "MTU;P\n26.10.2025 02:00 - 26.10.2025 02:00;1\n26.10.2025 02:00 - 26.10.2025 03:00;2\n"
    both = {"valid_time": "MTU", "valid_time_end": "MTU", "value": "P", "series": "s", "time_format": "%d.%m.%Y %H:%M"}
    found = rows_of(tmp_path, content, time_zone="Europe/Paris", **both)
    assert [(f"{row['valid_time']:%H}", f"{row['valid_time_end']:%H}", row["value"]) for row in found] == [
        ("00", "01", 1),
        ("01", "02", 2),
    ]
    del both["valid_time_end"]
    assert "reads START - END" in refused(tmp_path, content, time_zone="Europe/Paris", **both)


@pytest.mark.parametrize(
    ("text", "label"), [("0.10", "0.1"), ("1e-1", "0.1"), (".5", "0.5"), ("0.025", "0.025"), ("1e-7", "0.0000001")]
)
def test_a_quantile_has_one_spelling(tmp_path: Path, text: str, label: str) -> None:
    (row,) = rows_of(tmp_path, f"t,v,q\n2025-01-01T00:00Z,1,{text}\n", quantile="q", **S)
    assert row["labels"] == f'{{"quantile": "{label}"}}'
    for wrong in ("0", "1", "1.5", "ten"):
        said = refused(tmp_path, f"t,v,q\n2025-01-01T00:00Z,1,{wrong}\n", quantile="q", **S)
        assert f"q: line 2: '{wrong}' is not a number in (0, 1)" in said


@pytest.mark.parametrize("written", ["{} ({})", "{} {}"])
def test_the_name_of_the_clock_beside_a_time_tells_which_it_is(tmp_path: Path, written: str) -> None:
    def cells(*pairs: tuple[str, str]) -> str:
        return table([written.format(time, name) if name else time for time, name in pairs])

    # Alone, out of order, and beside times that need no name.
    found = micro_rows(tmp_path, cells(("02:30", "CET"), ("01:45", ""), ("02:30", "CEST"), ("03:00", "")), **WARSAW)
    assert found == [
        ("2025-10-25T23:45Z", 2),
        ("2025-10-26T00:30Z", 3),
        ("2025-10-26T01:30Z", 1),
        ("2025-10-26T02:00Z", 4),
    ]
    spring = table([written.format("12:00", "CEST")], "2025-07-01")
    assert micro_rows(tmp_path, spring, **WARSAW) == [("2025-07-01T10:00Z", 1)]
    assert micro_rows(tmp_path, table([written.format("12:00", "UTC")]), **S) == [("2025-10-26T12:00Z", 1)]
    wrong = table([written.format("12:00", "CET")], "2025-07-01")
    assert "t: line 2: '2025-07-01 12:00" in refused(tmp_path, wrong, **WARSAW)
    assert "is no time that a clock of Europe/Warsaw calls CET" in refused(tmp_path, wrong, **WARSAW)
    assert "has no time zone; say which with --time-zone" in refused(tmp_path, wrong, **S)
    skipped = table([written.format("02:30", "CET")], "2025-03-30")
    assert "calls CET" in refused(tmp_path, skipped, **WARSAW)


def test_a_column_of_flags_tells_the_hour_that_comes_twice(tmp_path: Path) -> None:
    flagged = S | {"time_zone": "America/Chicago", "repeated_hour": "f", "time_format": "%m/%d/%Y %H:%M"}
    rows = "t,f,v\n11/02/2025 01:00,Y,3\n11/02/2025 01:00,n,2\n11/02/2025 00:00,,1\n11/02/2025 02:00,false,4\n"
    hours = [f"2025-11-02T0{hour}:00Z" for hour in (5, 6, 7, 8)]
    assert micro_rows(tmp_path, rows, **flagged) == list(zip(hours, (1, 2, 3, 4), strict=True))
    # Stamps that end their hour: those that name it, 02:00 twice, and those that are the end, 01:00 twice.
    named = "t,f,v\n11/02/2025 02:00,Y,3\n11/02/2025 02:00,N,2\n11/02/2025 01:00,N,1\n11/02/2025 03:00,N,4\n"
    assert micro_rows(tmp_path, named, hour_ending=True, **flagged) == list(zip(hours, (1, 2, 3, 4), strict=True))
    ends = "t,f,v\n11/02/2025 01:00,Y,2\n11/02/2025 01:00,N,1\n11/02/2025 02:00,N,3\n"
    assert micro_rows(tmp_path, ends, hour_ending=True, **flagged) == list(zip(hours, (1, 2, 3), strict=False))
    once = "t,f,v\n11/02/2025 02:00,N,2\n"
    assert micro_rows(tmp_path, once, hour_ending=True, **flagged) == [("2025-11-02T06:00Z", 2)]
    marked = refused(tmp_path, "t,f,v\n11/02/2025 05:00,Y,1\n", **flagged)
    assert "t: line 2: '11/02/2025 05:00' is marked as the second time, and comes once in America/Chicago" in marked
    assert "f: line 2: 'maybe' is neither Y nor N" in refused(tmp_path, rows.replace("Y", "maybe"), **flagged)
    untold = {name: value for name, value in flagged.items() if name != "repeated_hour"}
    assert "--repeated-hour 'Repeated Hour Flag'" in refused(
        tmp_path, rows.replace("f", "Repeated Hour Flag"), **untold
    )
    assert "--ambiguous, --repeated-hour" in refused(tmp_path, rows, ambiguous="later", **flagged)


def test_a_table_within_json_is_found_by_its_key(tmp_path: Path) -> None:
    columns = '"a": {"t": ["2025-01-01", "2025-01-02"], "v": [1, null]}'
    records = '"b": [{"t": "2025-01-03", "v": 3}]'
    found = [("2025-01-01T00:00Z", 1.0), ("2025-01-02T00:00Z", None)]
    assert micro_rows(tmp_path, f'{{"n": 1, {columns}}}', name="a.json", **S) == found
    both = f"{{{columns}, {records}}}"
    assert micro_rows(tmp_path, both, name="a.json", sheet="b", **S) == [("2025-01-03T00:00Z", 3.0)]
    for content, options, said in [
        (both, {}, "its tables are a, b: --sheet says which"),
        (both, {"sheet": "c"}, "--sheet: a.json has no table 'c'"),
        ('{"a": {"t": [1], "v": [1, 2]}}', {}, "a: 'v' has 2 values, and 't' 1"),
        ("[]", {"sheet": "a"}, "--sheet: a.json is an array of rows"),
        ('{"n": 1}', {}, "is not a JSON array of objects"),
    ]:
        assert said in refused(tmp_path, content, name="a.json", **options, **S)


def test_a_preamble_is_seen_whatever_tells_cells_apart(tmp_path: Path) -> None:
    said = refused(tmp_path, "Meter;DE1\nDays;1 - 2\n\nt;v;w\n2025-01-01;1,5;a\n2025-01-02;2,5;b\n", **S)
    assert "line 4 looks like its line of names: --skip-lines 3 leaves out what stands before it" in said
    assert "--delimiter" not in said
    assert "--delimiter ';' tells its cells apart" in refused(tmp_path, "x;y\n2025-01-01;1\n2025-01-02\n", **S)
