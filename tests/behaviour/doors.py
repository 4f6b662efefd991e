"""The same small interface over each door of the service, so that one suite of behaviours tests them all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pyarrow as pa

from tests.behaviour.oracle import Row
from timedb.contract.columns import COLUMN_TYPES
from timedb.contract.wire import (
    CreateSeries,
    GetRun,
    ReadCommand,
    ReadTicket,
    RestoreRun,
    UpdateValues,
    UploadCommand,
    WithdrawRun,
    parse_object,
)
from timedb.storage import Tenant

if TYPE_CHECKING:
    from timedb.client import Client

ARROW = "application/vnd.apache.arrow.stream"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STORED = [name for name in COLUMN_TYPES if name != "revision"]
UPLOAD_SCHEMA = pa.schema(
    [
        ("series_id", pa.string()),
        ("valid_time", pa.timestamp("us", "UTC")),
        ("valid_time_end", pa.timestamp("us", "UTC")),
        ("known_time", pa.timestamp("us", "UTC")),
        ("value", pa.float64()),
        ("annotation", pa.string()),
        ("tags", pa.list_(pa.string())),
    ]
)


class Door(Protocol):
    """What every door can do. Times are integer microseconds, as in the oracle."""

    def create_series(self, name: str) -> str: ...
    def upload(self, rows: list[Row], *, run_id: str, known_time: int, **options: Any) -> int: ...
    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table: ...
    def update_values(self, updates: list[dict[str, Any]]) -> dict[str, Any]: ...
    def withdraw_run(self, run_id: str, reason: str | None) -> int: ...
    def restore_run(self, run_id: str, reason: str | None) -> tuple[int, int]: ...
    def get_run(self, run_id: str) -> dict[str, Any]: ...
    def compact(self) -> None: ...


def instant(micros: int) -> datetime:
    """The UTC datetime of integer microseconds."""
    return EPOCH + timedelta(microseconds=micros)


def iso(micros: int | None) -> str | None:
    """RFC 3339 text of integer microseconds."""
    return None if micros is None else instant(micros).isoformat()


def upload_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as the Arrow table of an upload."""
    rows = list(rows)
    return pa.table({name: [getattr(row, name) for row in rows] for name in UPLOAD_SCHEMA.names}, schema=UPLOAD_SCHEMA)


def json_number(value: float | None) -> float | str | None:
    """A number as JSON bodies carry it: NaN and the infinities are text."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read_fields(view: str, all_versions: bool, filters: dict[str, Any]) -> dict[str, Any]:
    """A read's wire fields: everything that is stored of a row is asked for, times become text."""
    times = ("start_valid", "end_valid", "start_known", "end_known", "as_of")
    fields = {name: iso(value) if name in times else value for name, value in filters.items()}
    columns = {} if "pivot" in filters else {"columns": STORED}
    return {"view": view, "all_versions": all_versions, **columns, **fields}


def counts(restored: dict[str, Any]) -> tuple[int, int]:
    """The answer of a restoration: rows that stand again, single retractions that stay."""
    return restored["restored"], restored["left_retracted"]


class StorageDoor:
    """The storage package in this process, without a server."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant

    def create_series(self, name: str) -> str:
        created = self.tenant.create_series(CreateSeries(name=name, unit="MW"), created_by=None)
        return str(created["series_id"])

    def upload(self, rows: list[Row], *, run_id: str, known_time: int, **options: Any) -> int:
        command = UploadCommand(run_id=run_id, known_time=instant(known_time), **options)
        table = upload_table(rows)
        upload = self.tenant.begin_upload(command, table.schema, created_by=None)
        for batch in table.to_batches():
            upload.add(batch)
        return int(upload.commit(table.num_rows)["skipped"])

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table:
        ticket = parse_object(ReadTicket, read_fields(view, all_versions, filters))
        return self.tenant.plan_read(ticket).reader().read_all()

    def update_values(self, updates: list[dict[str, Any]]) -> dict[str, Any]:
        return self.tenant.update_values(parse_object(UpdateValues, {"updates": updates}), changed_by=None)

    def withdraw_run(self, run_id: str, reason: str | None) -> int:
        message = WithdrawRun(run_id=run_id, reason=reason)
        return int(self.tenant.withdraw_run(message, changed_by=None)["withdrawn"])

    def restore_run(self, run_id: str, reason: str | None) -> tuple[int, int]:
        return counts(self.tenant.restore_run(RestoreRun(run_id=run_id, reason=reason), changed_by=None))

    def get_run(self, run_id: str) -> dict[str, Any]:
        return self.tenant.get_run(GetRun(run_id=run_id))

    def compact(self) -> None:
        self.tenant.compact()


class FlightDoor:
    """Arrow Flight, through the Python client."""

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self.url = url

    def create_series(self, name: str) -> str:
        return self.client.create_series(name, unit="MW")

    def upload(self, rows: list[Row], *, run_id: str, known_time: int, **options: Any) -> int:
        command = UploadCommand(run_id=run_id, known_time=instant(known_time), **options)
        return int(self.client.send(command, upload_table(rows).to_reader())["skipped"])

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table:
        return self.client.stream(parse_object(ReadCommand, read_fields(view, all_versions, filters))).read_all()

    def update_values(self, updates: list[dict[str, Any]]) -> dict[str, Any]:
        return self.client.call("update_values", parse_object(UpdateValues, {"updates": updates}))

    def withdraw_run(self, run_id: str, reason: str | None) -> int:
        return self.client.withdraw_run(run_id, reason=reason)

    def restore_run(self, run_id: str, reason: str | None) -> tuple[int, int]:
        return counts(self.client.restore_run(run_id, reason=reason))

    def get_run(self, run_id: str) -> dict[str, Any]:
        return self.client.get_run(run_id)

    def compact(self) -> None:
        self.client.compact()


class AppendDoor(FlightDoor):
    """Arrow Flight, where uploads are runs of one stream."""

    def __init__(self, client: Client, url: str) -> None:
        super().__init__(client, url)
        self.writers: dict[tuple[object, ...], Any] = {}

    def upload(self, rows: list[Row], *, run_id: str, known_time: int, **options: Any) -> int:
        key = tuple(options.items())
        if key not in self.writers:
            self.writers[key] = self.client.writer(**options)
        receipt = self.writers[key].upload(upload_table(rows), run_id=run_id, known_time=instant(known_time))
        return int(receipt.result(60).skipped)

    def close(self) -> None:
        """End the streams."""
        for writer in self.writers.values():
            writer.close()


class TableDoor(FlightDoor):
    """Arrow Flight, where a correction is a table of one row; such a receipt counts, and names no row."""

    def update_values(self, updates: list[dict[str, Any]]) -> dict[str, Any]:
        counted = {"updated": 0, "skipped_no_ops": 0}
        for update in updates:
            receipt = self.client.correct(pa.table({name: _cell(name, said) for name, said in update.items()}))
            for name in counted:
                counted[name] += receipt[name]
        return {name: [None] * count for name, count in counted.items()}


def _cell(name: str, said: Any) -> pa.Array:
    """What JSON says in a field of a correction as a column of one row."""
    if name == "retracted":
        return pa.array([bool(said)])  # null clears it in JSON; a column cannot say that
    if name not in UPLOAD_SCHEMA.names:
        return pa.array([said], pa.string())
    kind = UPLOAD_SCHEMA.field(name).type
    if pa.types.is_timestamp(kind) and said is not None:
        said = datetime.fromisoformat(said)
    return pa.array([float(said) if isinstance(said, str) and name == "value" else said], kind)


class EveryDoor:
    """All doors of one service: each call goes through the next that can do it.

    Args:
        doors: Flight, append, REST and tables of corrections.
    """

    def __init__(self, flight: Door, append: Door, rest: Door, tables: Door) -> None:
        self._uploads = itertools.cycle([flight, rest, append])
        self._plain = itertools.cycle([append, flight])
        self._reads = itertools.cycle([flight, rest])
        self._corrections = itertools.cycle([rest, tables, flight])

    def create_series(self, name: str) -> str:
        return next(self._reads).create_series(name)

    def upload(self, rows: list[Row], *, run_id: str, known_time: int, **options: Any) -> int:
        doors = self._plain if options.get("skip_unchanged") else self._uploads  # of which REST says no count
        return next(doors).upload(rows, run_id=run_id, known_time=known_time, **options)

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table:
        return next(self._reads).read(view, all_versions=all_versions, **filters)

    def update_values(self, updates: list[dict[str, Any]]) -> dict[str, Any]:
        return next(self._corrections).update_values(updates)

    def withdraw_run(self, run_id: str, reason: str | None) -> int:
        return next(self._reads).withdraw_run(run_id, reason)

    def restore_run(self, run_id: str, reason: str | None) -> tuple[int, int]:
        return next(self._reads).restore_run(run_id, reason)

    def get_run(self, run_id: str) -> dict[str, Any]:
        return next(self._reads).get_run(run_id)

    def compact(self) -> None:
        next(self._reads).compact()


class RestDoor:
    """The REST gateway over HTTP; bodies are JSON, answers are Arrow streams so that no bit is lost on the way."""

    def __init__(self, http: httpx.Client, client: Client) -> None:
        self.http = http
        self.client = client

    def create_series(self, name: str) -> str:
        return str(self._send("POST", "/series", {"name": name, "unit": "MW"})["series_id"])

    def upload(self, rows: list[Row], *, run_id: str, known_time: int, **options: Any) -> int:
        assert not options.pop("skip_unchanged", False), "REST uploads write what they are given"
        values = [
            {
                "series_id": row.series_id,
                "valid_time": iso(row.valid_time),
                "valid_time_end": iso(row.valid_time_end),
                "known_time": iso(row.known_time),
                "value": json_number(row.value),
                "annotation": row.annotation,
                "tags": row.tags,
            }
            for row in rows
        ]
        body = {
            "run_id": run_id,
            "run_start_time": iso(known_time),
            "known_time": iso(known_time),
            "value_rows": values,
            **options,
        }
        self._send("POST", "/upload", body)
        return 0

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table:
        fields = read_fields(view, all_versions, filters)
        asked = {name: fields[name] for name in filters if name not in ("series_ids", "relative", "resample")}
        asked |= {"series_id": fields["series_ids"], **fields.get("relative", {}), **fields.get("resample", {})}
        said = {"columns": ",".join(asked.pop("columns"))} if "columns" in asked else {"intervals": True}
        parameters = {"mode": view, "all_versions": all_versions, **said, **asked}
        response = self.http.get("/values", params=parameters, headers={"Accept": ARROW})
        response.raise_for_status()
        return pa.ipc.open_stream(response.content).read_all()

    def update_values(self, updates: list[dict[str, Any]]) -> dict[str, Any]:
        return self._send("PUT", "/values", {"updates": updates})

    def withdraw_run(self, run_id: str, reason: str | None) -> int:
        return int(self._send("POST", f"/runs/{run_id}/withdraw", {"reason": reason})["withdrawn"])

    def restore_run(self, run_id: str, reason: str | None) -> tuple[int, int]:
        return counts(self._send("POST", f"/runs/{run_id}/restore", {"reason": reason}))

    def get_run(self, run_id: str) -> dict[str, Any]:
        return self._send("GET", f"/runs/{run_id}", None)

    def compact(self) -> None:
        self.client.compact()

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        response = self.http.request(method, path, json=body)
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer
