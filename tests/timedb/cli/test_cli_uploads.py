"""``timedb upload``: what a file says is taken whole, or refused with the place, the cell and the option that helps."""

from __future__ import annotations

import gzip
import io
import json
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import timedb as td
from tests.timedb.cli.test_cli import ask, timedb
from tests.timedb.conftest import T0, frame
from timedb.cli.exit_codes import EXIT_CODES
from timedb.client import Client
from timedb.files import csv_tables
from timedb.files.csv_tables import CsvForm, CsvSource
from timedb.files.table_files import Reading, open_table

__all__ = ["ask"]

NOWHERE = "grpc://127.0.0.1:1"
ONE = "valid_time,value\n2025-01-01T00:00Z,1\n"


def refused(path: Path, content: str | bytes, *flags: str) -> str:
    """Upload a file that must be refused before anybody is spoken to; what was said."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = timedb("upload", str(path), *flags, TIMEDB_FLIGHT_URL=NOWHERE)
    assert done.returncode == EXIT_CODES[td.InvalidRequest], done.stderr
    assert re.fullmatch("error: invalid_request: .+\n", done.stderr)
    return done.stderr


@pytest.mark.parametrize(
    ("extra", "option"),
    [
        ("issue_time", "--known-time issue_time"),
        ("Published At", "--known-time 'Published At'"),
        ("known_tme", "--known-time known_tme"),
        ("end", "--valid-time-end end"),
        ("site", "--label site=site"),
        ("run_id", "--run-id"),
        ("series_unit", "--unit"),
        ("retracted", "what the server makes"),
        ("anotation", "did you mean annotation"),
    ],
)
def test_a_column_that_nothing_takes_is_refused_with_the_option_that_would(
    tmp_path: Path, extra: str, option: str
) -> None:
    content = f"valid_time,value,{extra}\n2025-01-01T00:00Z,1,x\n"
    said = refused(tmp_path / "a.csv", content, "--series", "s")
    assert option in said
    assert "--ignore " in said


def test_ignored_columns_are_left_out_and_labels_are_kept(ask: Any, client: Client, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("valid_time,value,place,remark,note\n2025-01-01T00:00Z,1,north,x,y\n2025-01-01T00:00Z,2,,x,y\n")
    flags = ("--ignore", "remark", "--ignore", "note", "--label", "site=place", "--label-value", "model=m1")
    ask("upload", str(path), "--series", name, *flags)
    found = {tuple(sorted(each["labels"].items())): each["series_id"] for each in client.list_series(name=name)}
    assert found.keys() == {(("model", "m1"), ("site", "north")), (("model", "m1"),)}
    north = client.read(series_ids=found[("model", "m1"), ("site", "north")])
    assert north["value"].to_list() == [1.0]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--ignore", "valu"], "--ignore: the file has no column 'valu'; did you mean value?"),
        (["--value", "mw"], "--value: the file has no column 'mw'"),
        (["--ignore", "value", "--value", "value"], "--ignore: 'value' is what --value takes"),
        (["--series-column", "value"], "--series, --series-column"),
        (["--label", "site"], "--label: 'site' is not KEY=COLUMN"),
        (["--label-value", "a=1", "--label-value", "a=2"], "--label-value: 'a' comes twice"),
        (["--known-time", "valid_tim"], "--known-time: 'valid_tim' .* did you mean valid_time"),
        (["--known-time", "2025-01-01T00:00"], "--known-time: '2025-01-01T00:00' has no time zone"),
        (["--known-time", "2025-13-01T00:00Z"], "--known-time: .* is not an existing date"),
        (["--time-zone", "Mars/Base"], "--time-zone: 'Mars/Base' is not a time zone"),
        (["--delimiter", "ab"], "--delimiter: 'ab' is not one character"),
        (["--decimal", ";"], "--decimal: ';' is neither"),
        (["--thousands", "5"], "--thousands: '5'"),
    ],
)
def test_an_option_that_does_not_fit_is_called_by_its_name(tmp_path: Path, flags: list[str], reason: str) -> None:
    assert re.search(f": {reason}", refused(tmp_path / "a.csv", ONE, "--series", "s", *flags))


def test_an_option_goes_before_a_column_and_it_is_said(
    ask: Any, service: Any, client: Client, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("valid_time,value,known_time,hour\n2025-01-01,1,2024-12-31,2024-01-01\n")
    flags = ("--series", name, "--known-time", "2024-12-30", "--time-zone", "UTC", "--valid-time", "hour")
    done = timedb("upload", str(path), *flags, TIMEDB_FLIGHT_URL=service.flight_url)
    assert done.stderr.splitlines() == [
        "not the file's column valid_time, but what --valid-time says",
        "not the file's column known_time, but what --known-time says",
    ]
    (row,) = client.read(series_keys=name, view="overlapping", columns=["valid_time", "known_time"]).rows()
    assert row == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 12, 30, tzinfo=UTC))


def test_one_column_serves_twice(ask: Any, client: Client, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for header in ("t", "valid_time"):
        path.write_text(f"{header},value\n2025-01-01T00:00Z,1\n")
        ask("upload", str(path), "--series", name, "--valid-time", header, "--known-time", header)
    path.write_text(ONE)
    ask("upload", str(path), "--series", f"{name}-b", "--known-time", "valid_time")
    for each in (name, f"{name}-b"):
        row = client.read(series_keys=each, view="overlapping", columns=["valid_time", "known_time"]).rows()[0]
        assert row == (T0, T0)


def test_values_that_nobody_said_were_known_are_said_to_be_known_now(service: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(ONE)
    said = [
        timedb("upload", str(path), "--series", name, *flags, TIMEDB_FLIGHT_URL=service.flight_url).stderr
        for flags in ([], ["--known-time", "valid_time"])
    ]
    assert said[0].startswith("known_time: now")
    assert said[1] == ""


GERMAN = "Zeit;Wert\n2025-01-01 00:00;1.234,56\n2025-01-01 00:15;-0,50\n2025-01-01 00:30;n/e\n"
GERMAN_FLAGS = ("--valid-time", "Zeit", "--value", "Wert", "--time-zone", "Europe/Berlin")


def test_a_file_of_a_german_spreadsheet_is_refused_step_by_step_and_loaded_when_told(
    ask: Any, client: Client, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    flags = ["--series", name, *GERMAN_FLAGS]
    assert "--delimiter ';'" in refused(path, GERMAN, "--series", name)
    flags += ["--delimiter", ";"]
    assert "Wert: line 2: '1.234,56' is not a number; --decimal , --thousands ." in refused(path, GERMAN, *flags)
    flags += ["--decimal", ","]
    assert "Wert: line 2: '1.234,56' has a point" in refused(path, GERMAN, *flags)
    flags += ["--thousands", "."]
    assert "Wert: line 4: 'n/e' is not a number; --null n/e" in refused(path, GERMAN, *flags)
    flags += ["--null", "n/e"]
    path.write_bytes(b"\xef\xbb\xbf" + GERMAN.encode())
    ask("upload", str(path), *flags)
    rows = client.read(series_keys=name, ordered=True).rows()
    hour = timedelta(hours=1)
    assert [(time, value) for _, time, value in rows] == [
        (T0 - hour, 1234.56),
        (T0 - hour + timedelta(minutes=15), -0.5),
        (T0 - hour + timedelta(minutes=30), None),
    ]


@pytest.mark.parametrize("text", ["1,23", "1,2345", "1.234.567", "12,34,567", "1.2,345"])
def test_groups_of_digits_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    flags = ("--series", "s", "--delimiter", ";", "--thousands", ",")
    assert "is not a number" in refused(tmp_path / "a.csv", f"valid_time;value\n2025-01-01T00:00Z;{text}\n", *flags)


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        ("1735689600000", "is not an RFC 3339 time"),
        ("1735689600", "is not an RFC 3339 time"),
        ("45658.5", "is not an RFC 3339 time"),
        ("20250101 0100", "is not an RFC 3339 time"),
        ("2025010101", "is not an RFC 3339 time"),
        ("01.01.2025 00:00", "is not an RFC 3339 time"),
        ("2025-01-01T24:01:00Z", "is not an existing date"),
        ("2025-03-30 02:30", "does not exist in Europe/Paris"),
        ("2025-10-26 02:30", "comes twice in Europe/Paris"),
    ],
)
def test_odd_clocks_are_refused_by_line_and_text(tmp_path: Path, time: str, reason: str) -> None:
    content = f"valid_time,value\n2025-01-01,1\n\n{time},2\n"
    said = refused(tmp_path / "a.csv", content, "--series", "s", "--time-zone", "Europe/Paris")
    assert f"valid_time: line 4: '{time}" in said
    assert reason in said


@pytest.mark.parametrize("text", ["n/e", "N/A", "-", "NULL", "1e309", "0x10", "1_000"])
def test_a_word_for_nothing_is_refused_by_line_and_text(tmp_path: Path, text: str) -> None:
    content = f'valid_time,value,annotation\n2025-01-01T00:00Z,1,"two\nlines"\n2025-01-01T01:00Z,{text},\n'
    assert re.search(f"value: line 4: '?{re.escape(text)}'? is ", refused(tmp_path / "a.csv", content, "--series", "s"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + bytes(40), "is an Excel workbook"),
        (b"\xd0\xcf\x11\xe0" + bytes(40), "is an Excel workbook of the old kind"),
        (b"<html></html>", "is HTML or XML"),
        (ONE.encode("utf-16-le"), "is not UTF-8 text"),
        (
            "valid_time,value,annotation\n2025-01-01T00:00Z,1,Größe\n".encode("latin-1"),
            "line 2: 'Gr\\xf6\\xdfe' is not",
        ),
        (gzip.compress(ONE.encode(), mtime=0)[:-12], "a.csv: "),
        (b"valid_time,value\n2025-01-01T00:00Z\n", "line 2: '2025-01-01T00:00Z' has 1 cells where"),
        (b'valid_time,value\n"2025-01-01T00:00Z,1\n', "line 2: "),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in refused(tmp_path / "a.csv", content, "--series", "s")


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        ("ndjson", '{"valid_time": "2025-01-01T00:00Z", "value": 1}\n\nnonsense\n', "line 3 is not JSON: 'nonsense'"),
        ("ndjson", '{"valid_time": "2025-01-01T00:00Z", "value": "1"}\n', "value: line 1: '1' is not a number"),
        ("ndjson", '{"valid_time": 17, "value": 1}\n', "valid_time: line 1: 17 is not a text"),
        ("ndjson", "[1]\n", "line 1: [1] is not a JSON object"),
        ("json", '{"valid_time": "2025-01-01T00:00Z"}', "is not a JSON array of objects"),
        ("json", '[{"valid_time": "noon", "value": 1}]', "valid_time: row 1: 'noon' is not"),
        ("json", "[]", "--valid-time: the file has no column"),
        ("json", '[{"valid_time": "2025-01-01T00:00Z", "value": 1, "vale": 2}]', "column vale: nothing would take"),
    ],
)
def test_json_that_does_not_fit_is_refused_by_place(tmp_path: Path, suffix: str, content: str, reason: str) -> None:
    assert reason in refused(tmp_path / f"a.{suffix}", content, "--series", "s")


def test_rows_of_csv_are_cut_where_they_end_whatever_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b'a,b\r\n1,"x\r\ny"\r\n\r\n2,"q""\n"\r\n3,z"z\r\n"4, 4",\r\n5,"",'[:-1]
    whole = [("1", "x\r\ny"), ("2", 'q"\n'), ("3", 'z"z'), ("4, 4", None), ("5", "")]
    for size in range(8, len(content) + 2):
        monkeypatch.setattr(csv_tables, "_BLOCK_BYTES", size)
        table = CsvSource(pa.BufferReader(content), "f", CsvForm())
        pieces = list(table.pieces(["a", "b"]))
        assert [tuple(row.values()) for piece in pieces for row in piece.batch.to_pylist()] == whole
        places = [piece.place(row) for piece in pieces for row in range(piece.batch.num_rows)]
        assert places == ["line 2", "line 5", "line 7", "line 8", "line 9"]


def test_a_file_is_read_on_the_thread_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    # One of Arrow's own threads that is still reading when the interpreter ends after an error aborts the process.
    seen: set[int] = set()

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            seen.add(threading.get_ident())
            return super().read(size)

    monkeypatch.setattr(csv_tables, "_BLOCK_BYTES", 64)
    content = b"valid_time,value\n" + b"2025-01-01T00:00Z,1\n" * 1000
    table = open_table(Watched(content), "csv", what="f")
    reader = table.read({"valid_time": "valid_time", "value": "value"}, Reading())
    assert reader.read_all().num_rows == 1000
    assert seen == {threading.get_ident()}


def test_a_file_of_corrections_changes_what_it_says_once(ask: Any, client: Client, name: str, tmp_path: Path) -> None:
    client.upload(frame(name, [1.0, 2.0]), run_id=name)
    file = tmp_path / "checked.csv"
    file.write_text(
        f"series_key;valid_time;value;annotation;remark\n{name};2025-01-01T00:00:00Z;1,5;checked;x\n"
        f"{name};2025-01-01T01:00:00Z;2,0;;y\n"
    )
    typed = ("correct", str(file), "--decimal", ",", "--ignore", "remark", "--json")
    for _ in range(2):
        done = json.loads(ask(*typed))
        assert [done[each] for each in ("rows", "updated", "created", "skipped_no_ops")] == [2, 1, 0, 1]
    found = client.read(series_keys=name, all_versions=True).sort("valid_time", "change_time")
    assert found["value"].to_list() == [1.0, 1.5, 2.0]
    refused = timedb("correct", str(file), "--decimal", ",", TIMEDB_FLIGHT_URL=client._connection.url)
    assert refused.returncode == 2
    assert "remark: unknown column" in refused.stderr
    assert "--ignore leaves it out" in refused.stderr
