"""Lakes for tests: small settings, uploads and reads in one call, and rows that can be compared."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import polars as pl
import pyarrow as pa

from tests.behaviour.oracle import float_bits
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.times import from_micros, to_micros
from timedb.contract.wire import ReadTicket, UploadCommand, parse_object
from timedb.storage import Lake, Tenant
from timedb.storage.commit.writes import CommitContext

R = TypeVar("R")

MICROS = pa.timestamp("us", "UTC")
UPLOAD_SCHEMA = pa.schema(
    [
        ("series_key", pa.string()),
        ("valid_time", MICROS),
        ("valid_time_end", MICROS),
        ("known_time", MICROS),
        ("value", pa.float64()),
        ("annotation", pa.string()),
        ("tags", pa.list_(pa.string())),
    ]
)
AUDIT = [
    "series_key",
    "valid_time",
    "valid_time_end",
    "known_time",
    "change_time",
    "run_id",
    "value",
    "annotation",
    "tags",
    "changed_by",
    "retracted",
]
DAY = datetime(2025, 1, 1, tzinfo=UTC)
SERIES = ("south", "a", "east")  # the first two share a bucket

# So small that a handful of rows is cut into chunks, grouped, staged as bulk, and compacted into several files.
TINY: dict[str, Any] = {
    "upload_chunk_rows": 16,
    "bulk_rows": 12,
    "group_rows": 60,
    "read_slice_rows": 20,
    "mixed_files": 3,
    "move_rows": 40,
    "compact_fresh_files": 2,
    "compact_fresh_rows": 40,
    "compact_input_rows": 30,
    "compact_file_rows": 24,
    "checkpoint_commits": 5,
    "maintenance_seconds": 10_000.0,
    "records_seconds": 10_000.0,
}


class Sent(NamedTuple):
    """A row as a client sends it; times are integer microseconds."""

    series: str
    valid_time: int
    valid_time_end: int | None
    known_time: int | None
    value: float | None
    annotation: str | None = None
    tags: tuple[str, ...] | None = None


class Stored(NamedTuple):
    """One version of one revision; times are integer microseconds, the value is its bits."""

    series: str
    valid_time: int
    valid_time_end: int | None
    known_time: int
    change_time: int
    run_id: str
    value: int | None
    annotation: str | None
    tags: tuple[str, ...] | None
    changed_by: str | None
    retracted: bool

    @property
    def point(self) -> tuple[str, int, int | None]:
        """What the value is about."""
        return self[:3]

    @property
    def revision(self) -> tuple[str, int, int | None, int, str]:
        """The revision key."""
        return (*self[:4], self.run_id)

    def unstamped(self) -> Stored:
        """The row without its change_time, which nobody can foretell."""
        return self._replace(change_time=0)


def tiny_settings(**overrides: Any) -> ServerSettings:
    """Settings under which everything happens with few rows, and nothing by itself."""
    return _frozen(tuple(overrides.items()))


@cache
def _frozen(overrides: tuple[tuple[str, Any], ...]) -> ServerSettings:
    given = dict(overrides)
    immediate = {name: given.pop(name) for name in list(given) if name.endswith("retention_hours")}
    # No service may be told to keep nothing for its readers; these tests are their only reader.
    if immediate and "max_call_seconds" not in given:
        immediate["max_call_seconds"] = 0.0
    return load_settings(ServerSettings, **{**TINY, **given}).model_copy(update=immediate)


def open_tenant(lake: Lake) -> Tenant:
    """The tenant of a lake without users."""
    return lake.tenant(OPEN_TENANT_ID)


@contextmanager
def held_lane(tenant: Tenant) -> Iterator[None]:
    """Nothing is committed meanwhile: the lane is busy with a replacement of files that is given up in the end."""
    begun, over = threading.Event(), threading.Event()

    class Long:
        def prepare(self, _: CommitContext) -> None:
            begun.set()
            over.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(tenant.lane.replace_files, Long())
        begun.wait()
        try:
            yield
        finally:
            over.set()


def while_held(tenant: Tenant, *writes: Callable[[], Any]) -> list[Any]:
    """What writes come to that all stand in the lane, one behind the other, before the first has its turn."""
    with ThreadPoolExecutor(len(writes)) as pool, held_lane(tenant):
        waiting = []
        for write in writes:
            waiting.append(pool.submit(write))
            while tenant.lane.queued < len(waiting) and not waiting[-1].done():
                time.sleep(0.01)
    return [each.result() for each in waiting]


def by_itself() -> bool:
    """Whether this thread does what nobody asked for just now: for other lakes, too, that this process serves."""
    return threading.current_thread().name.startswith(("timedb-upkeep", "timedb-records", "timedb-lease"))


def tenant_folder(lake_folder: Path) -> Path:
    """Where that tenant's tables lie."""
    return lake_folder / "tenants" / OPEN_TENANT_ID


def hour(number: int) -> int:
    """Microseconds of some hour of 2025."""
    return to_micros(DAY + timedelta(hours=number))


def some_rows(
    count: int, *, series: Sequence[str] = SERIES, known: int = 0, value: float = 0.0, first: int = 0
) -> list[Sent]:
    """Rows of several series, one an hour each."""
    return [
        Sent(series[index % len(series)], hour(first + index // len(series)), None, hour(known), value + index)
        for index in range(count)
    ]


def upload_table(rows: Iterable[Sent]) -> pa.Table:
    """Rows as the Arrow table of an upload."""
    rows = list(rows)
    columns = [[row[index] for row in rows] for index in range(len(UPLOAD_SCHEMA))]
    return pa.table(
        [pa.array(cells, kind) for cells, kind in zip(columns, UPLOAD_SCHEMA.types, strict=True)], schema=UPLOAD_SCHEMA
    )


def upload(
    tenant: Tenant,
    content: Iterable[Sent] | pa.Table,
    run_id: str | None = None,
    /,
    *,
    batch_rows: int = 1000,
    **fields: Any,
) -> dict[str, Any]:
    """Upload a run as a server does: begin, add, commit, and abort where that fails."""
    table = content if isinstance(content, pa.Table) else upload_table(content)
    given = {**fields, **({} if run_id is None else {"run_id": run_id})}
    upload = tenant.begin_upload(parse_object(UploadCommand, given), table.schema, created_by=None)
    try:
        for batch in table.to_batches(max_chunksize=batch_rows):
            upload.add(batch)
        return upload.commit(table.num_rows)
    except BaseException:
        upload.abort()
        raise


def read_table(tenant: Tenant, **fields: Any) -> pa.Table:
    """A read's answer."""
    return tenant.plan_read(parse_object(ReadTicket, fields)).reader().read_all()


def read(tenant: Tenant, view: str = "overlapping", *, all_versions: bool = True, **fields: Any) -> list[Stored]:
    """A read's answer as rows, with all that is stored; by default every version of everything."""
    table = read_table(tenant, view=view, all_versions=all_versions, columns=AUDIT, **_instants(fields))
    return stored_rows(table)


def stored_rows(table: pa.Table) -> list[Stored]:
    """The rows of a table with the columns :data:`AUDIT`."""
    columns: list[list[Any]] = []
    for name in AUDIT:
        column = table.column(name)
        columns.append((column.cast(pa.int64()) if name.endswith(("_time", "_time_end")) else column).to_pylist())
    return [_stored(cells) for cells in zip(*columns, strict=True)]


def scan_delta(folder: Path) -> list[Stored]:
    """What a direct reader of the values table sees: every version of everything."""
    tables = tenant_folder(folder)
    names = pl.scan_delta(str(tables / "series")).select("series_id", series_key="name").unique()
    rows = pl.scan_delta(str(tables / "values")).join(names, on="series_id", how="left")
    return stored_rows(rows.select(AUDIT).collect(engine="in-memory").to_arrow())


def scan_table(folder: Path, name: str) -> pl.DataFrame:
    """What a direct reader sees of another table of the tenant."""
    return pl.scan_delta(str(tenant_folder(folder) / name)).collect(engine="in-memory")


def shuffled(rows: Sequence[R], seed: int = 1) -> list[R]:
    """The same rows in another order."""
    return random.Random(seed).sample(list(rows), len(rows))


def difference(expected: Iterable[Stored], found: Iterable[Stored]) -> tuple[Counter[Stored], Counter[Stored]]:
    """(rows that are missing, rows that are too many), change_times left aside."""
    wanted, seen = unstamped(expected), unstamped(found)
    return wanted - seen, seen - wanted


def unstamped(rows: Iterable[Stored]) -> Counter[Stored]:
    """Rows to be compared whatever their change_times."""
    return Counter(row.unstamped() for row in rows)


def _stored(cells: Sequence[Any]) -> Stored:
    row = Stored(*cells)
    tags = None if row.tags is None else tuple(row.tags)
    return row._replace(value=float_bits(cells[6]), tags=tags, retracted=bool(row.retracted))


def _instants(fields: dict[str, Any]) -> dict[str, Any]:
    times = {"start_valid", "end_valid", "start_known", "end_known", "as_of"}
    return {
        name: from_micros(cell) if name in times and isinstance(cell, int) else cell for name, cell in fields.items()
    }
