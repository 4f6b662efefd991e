"""Each way in and each way out of a service, for the test of all their pairs.

Ways in take an :class:`Item` a row, ways out give it back; a row is found by the name of its series and its valid_time.
"""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import polars as pl
import pyarrow as pa
from pyarrow import flight, parquet

import timedb as td
from tests.behaviour.doors import instant, json_number
from tests.flight_server import sql_client
from tests.timedb.cli.test_cli import timedb
from timedb.contract.times import parse_time, to_micros
from timedb.contract.wire import ReadTicket, UploadCommand

if TYPE_CHECKING:
    from timedb.client import Client

COLUMNS = ["series_key", "valid_time", "valid_time_end", "known_time", "change_time", "value", "annotation", "tags"]
MICROS = pa.timestamp("us", "UTC")
KNOWN = 1_735_689_600_000_000
NAN_BITS = 0x7FF8000000000000


@dataclass(frozen=True)
class Item:
    """A row that goes in. Times are microseconds since 1970."""

    name: str
    valid_time: int
    value: float | None = 1.0
    valid_time_end: int | None = None
    known_time: int = KNOWN
    annotation: str | None = None
    tags: list[str] | None = field(default=None)


@dataclass
class Doors:
    """What the ways need."""

    client: Client
    flight_url: str
    http: httpx.Client
    lake: Path
    folder: Path

    def cli(self, *arguments: str) -> str:
        """What a command prints."""
        done = timedb(*arguments, TIMEDB_FLIGHT_URL=self.flight_url)
        assert done.returncode == 0, done.stderr
        return done.stdout


def arrow_table(items: Iterable[Item], known: pa.DataType = MICROS) -> pa.Table:
    """The items as an upload's columns."""
    items = list(items)
    kinds = {"series_key": pa.string(), "value": pa.float64(), "annotation": pa.string(), "tags": pa.list_(pa.string())}
    columns = {
        name: pa.array([getattr(each, name if name != "series_key" else "name") for each in items], kind)
        for name, kind in kinds.items()
    }
    for name in ("valid_time", "valid_time_end", "known_time"):
        columns[name] = pa.array([getattr(each, name) for each in items], pa.int64()).cast(MICROS)
    columns["known_time"] = columns["known_time"].cast(known)
    return pa.table(columns)


def json_rows(items: Iterable[Item]) -> list[dict[str, Any]]:
    """The items as REST's JSON has them; their times have other offsets than UTC."""
    rows = []
    for item in items:
        times = {name: getattr(item, name) for name in ("valid_time", "valid_time_end", "known_time")}
        texts = {name: None if time is None else _text(time) for name, time in times.items()}
        rows.append(
            {
                "value_key": item.name,
                "value": json_number(item.value),
                "annotation": item.annotation,
                "tags": item.tags,
                **texts,
            }
        )
    return rows


def csv_text(items: Iterable[Item]) -> bytes:
    """The items as CSV: null is empty, an empty text ``""``, tags a JSON array."""
    names = ["series_key", "valid_time", "valid_time_end", "known_time", "value", "annotation", "tags"]
    lines = [",".join(names)]
    for row in json_rows(items):
        row["series_key"] = row.pop("value_key")
        row["tags"] = None if row["tags"] is None else json.dumps(row["tags"])
        row["value"] = None if row["value"] is None else str(row["value"])
        lines.append(
            ",".join(
                ""
                if row[name] is None
                else '"' + row[name].replace('"', '""') + '"'
                if name in ("series_key", "annotation", "tags")
                else row[name]
                for name in names
            )
        )
    return "\n".join(lines).encode() + b"\n"


def _text(micros: int) -> str:
    """A time as text, with the offset of India where the year allows it."""
    time = instant(micros)
    zone = timezone(timedelta(hours=5, minutes=30)) if 1 < time.year < 9999 else UTC
    return time.astimezone(zone).isoformat()


# Ways in


def sent_by_flight(doors: Doors, table: pa.Table, **fields: Any) -> None:
    """Send a table as an upload of bare Flight."""
    command = UploadCommand(rows=table.num_rows, **fields).to_bytes()
    with flight.FlightClient(doors.flight_url) as client:
        writer, reader = client.do_put(flight.FlightDescriptor.for_command(command), table.schema)
        writer.write_table(table)
        writer.done_writing()
        while reader.read() is not None:
            pass
        writer.close()


def in_by_flight(doors: Doors, items: list[Item]) -> None:
    sent_by_flight(doors, arrow_table(items))


def in_by_polars(doors: Doors, items: list[Item]) -> None:
    doors.client.upload(pl.DataFrame(arrow_table(items)))


def in_by_nanoseconds(doors: Doors, items: list[Item]) -> None:
    doors.client.upload(arrow_table(items, pa.timestamp("ns", "America/New_York")))


def in_by_rest_json(doors: Doors, items: list[Item]) -> None:
    posted(
        doors, "application/json", json.dumps({"run_start_time": "2025-01-01", "value_rows": json_rows(items)}).encode()
    )


def in_by_rest_ndjson(doors: Doors, items: list[Item]) -> None:
    posted(doors, "application/x-ndjson", "".join(json.dumps(row) + "\n" for row in json_rows(items)).encode())


def in_by_rest_csv(doors: Doors, items: list[Item]) -> None:
    posted(doors, "text/csv", csv_text(items))


def in_by_rest_parquet(doors: Doors, items: list[Item]) -> None:
    posted(doors, "application/vnd.apache.parquet", parquet_bytes(arrow_table(items)))


def in_by_rest_arrow(doors: Doors, items: list[Item]) -> None:
    posted(doors, "application/vnd.apache.arrow.stream", arrow_bytes(arrow_table(items)))


def in_by_file(doors: Doors, suffix: str, data: bytes) -> None:
    path = doors.folder / f"upload.{suffix}"
    path.write_bytes(data)
    doors.cli("upload", str(path))


def in_by_cli_csv(doors: Doors, items: list[Item]) -> None:
    in_by_file(doors, "csv", csv_text(items))


def in_by_cli_parquet(doors: Doors, items: list[Item]) -> None:
    in_by_file(doors, "parquet", parquet_bytes(arrow_table(items)))


def in_by_cli_arrow(doors: Doors, items: list[Item]) -> None:
    in_by_file(doors, "arrow", arrow_bytes(arrow_table(items)))


def in_by_correction(doors: Doors, items: list[Item]) -> None:
    doors.client.update_values([correction(doors, item, instant) for item in uncorrected(doors, items)])


def in_by_rest_correction(doors: Doors, items: list[Item]) -> None:
    updates = [correction(doors, item, _text) for item in uncorrected(doors, items)]
    for update in updates:
        update["value"] = json_number(update["value"])
    answer = doors.http.put("/values", json={"updates": updates})
    assert answer.status_code == 200, answer.text


def uncorrected(doors: Doors, items: list[Item]) -> list[Item]:
    """Uploads the items with other values, annotations and tags, to be corrected."""
    table = arrow_table(items).drop_columns(["value", "annotation", "tags"])
    rows = table.num_rows
    doors.client.upload(
        table.append_column("value", pa.array([12345.0] * rows))
        .append_column("annotation", pa.array(["to be corrected"] * rows))
        .append_column("tags", pa.array([["wrong"]] * rows))
    )
    return items


def correction(doors: Doors, item: Item, time: Callable[[int], Any]) -> dict[str, Any]:
    """The correction that makes a row what the item says."""
    (series,) = doors.client.list_series(name=item.name)
    end = None if item.valid_time_end is None else time(item.valid_time_end)
    return {
        "series_id": series["series_id"],
        "valid_time": time(item.valid_time),
        "valid_time_end": end,
        "value": item.value,
        "annotation": item.annotation,
        "tags": item.tags,
    }


def posted(doors: Doors, media_type: str, body: bytes) -> None:
    """Upload a body over REST."""
    answer = doors.http.post("/upload", content=body, headers={"Content-Type": media_type})
    if answer.status_code != 200:
        raise td.InvalidRequest(answer.json()["detail"])


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


def arrow_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


WAYS_IN: dict[str, Callable[[Doors, list[Item]], None]] = {
    name.removeprefix("in_by_"): way
    for name, way in list(globals().items())
    if name.startswith("in_by_") and name != "in_by_file"
}

# Ways out: rows as dicts of Python values, times as datetimes or text.


def out_by_flight(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    ticket = ReadTicket(series_ids=ids, columns=COLUMNS)
    with flight.FlightClient(doors.flight_url) as client:
        return rows_of(client.do_get(flight.Ticket(ticket.to_bytes())).read_all())


def out_by_polars(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    return doors.client.read(series_ids=ids, columns=COLUMNS).to_dicts()


def out_by_sql(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    named = ", ".join(f"'{each}'" for each in ids)
    with sql_client.connected(doors.flight_url) as connection:
        return rows_of(
            sql_client.ask(connection, f"SELECT {', '.join(COLUMNS)} FROM flat WHERE series_id IN ({named})")
        )


def out_by_scan(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    return td.scan_lake(doors.lake, series_ids=ids, columns=COLUMNS).collect().to_dicts()


def answer_of(doors: Doors, ids: list[str], form: str) -> bytes:
    parameters: dict[str, Any] = {
        "series_id": ids,
        "mode": "overlapping",
        "all_versions": True,
        "intervals": True,
        "format": form,
        "non_finite": "text",
    }
    answer = doors.http.get("/values", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.content


def out_by_rest_json(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(answer_of(doors, ids, "json"))["data"]
    return rows


def out_by_rest_ndjson(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    return ndjson_rows(answer_of(doors, ids, "ndjson"))


def out_by_rest_csv(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    return csv_rows(answer_of(doors, ids, "csv"))


def out_by_rest_parquet(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    return rows_of(parquet.read_table(io.BytesIO(answer_of(doors, ids, "parquet"))))


def out_by_rest_arrow(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    return rows_of(pa.ipc.open_stream(answer_of(doors, ids, "arrow")).read_all())


def read_by_cli(doors: Doors, ids: list[str], form: str) -> bytes:
    path = doors.folder / f"read.{form}"
    series = [option for each in ids for option in ("--series-id", each)]
    path.unlink(missing_ok=True)
    doors.cli("read", *series, "--columns", ",".join(COLUMNS), "--format", form, "-o", str(path))
    return path.read_bytes()


def out_by_cli_json(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(read_by_cli(doors, ids, "json"))
    return rows


def out_by_cli_ndjson(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    return ndjson_rows(read_by_cli(doors, ids, "ndjson"))


def out_by_cli_csv(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    return csv_rows(read_by_cli(doors, ids, "csv"))


def out_by_cli_parquet(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    return rows_of(parquet.read_table(io.BytesIO(read_by_cli(doors, ids, "parquet"))))


def out_by_cli_arrow(doors: Doors, ids: list[str]) -> list[dict[str, Any]]:
    data = read_by_cli(doors, ids, "arrow")
    opened = pa.ipc.open_file(data) if data.startswith(b"ARROW1") else pa.ipc.open_stream(data)
    return rows_of(opened.read_all())


WAYS_OUT: dict[str, Callable[[Doors, list[str]], list[dict[str, Any]]]] = {
    name.removeprefix("out_by_"): way for name, way in list(globals().items()) if name.startswith("out_by_")
}


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def ndjson_rows(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.decode().split("\n") if line]


def csv_rows(data: bytes) -> list[dict[str, Any]]:
    """Rows of CSV; no field is null where it is empty, as Python's reader does not tell ``""`` from nothing."""
    rows = []
    for row in csv.DictReader(io.StringIO(data.decode(), newline="")):
        found: dict[str, Any] = {name: text or None for name, text in row.items()}
        found["tags"] = json.loads(found["tags"]) if found["tags"] else None
        found["value"] = None if found["value"] is None else float(found["value"])
        rows.append(found)
    return rows


Meaning = tuple[int | None, int, int | None, str | None, tuple[str, ...] | None]


def meanings(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, int], Meaning]:
    """By series and valid_time what a row says: end, known_time, bits of the value, annotation, tags."""
    found: dict[tuple[str, int], tuple[int, Meaning]] = {}
    for row in rows:
        key = row["series_key"], micros_of(row["valid_time"])
        changed = micros_of(row["change_time"])
        if key not in found or found[key][0] < changed:
            end = None if row["valid_time_end"] is None else micros_of(row["valid_time_end"])
            tags = None if row["tags"] is None else tuple(row["tags"])
            meaning = end, micros_of(row["known_time"]), bits(row["value"]), row["annotation"], tags
            found[key] = changed, meaning
    return {key: meaning for key, (_, meaning) in found.items()}


def micros_of(time: datetime | str) -> int:
    return to_micros(parse_time(time) if isinstance(time, str) else time)


def bits(value: float | str | None) -> int | None:
    """The bits of a float; all NaN are one."""
    if value is None:
        return None
    number = float(value)
    return NAN_BITS if number != number else int(struct.unpack("<q", struct.pack("<d", number))[0])
