"""Reads without a server, of a lake or of one tenant's folder that may be read and nothing else.

The read is resolved as a server resolves it, on one snapshot; the rows come as a Polars query that is not run yet.
Nothing here writes, not even a file beside.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

import polars as pl
from obstore.exceptions import BaseError

from timedb.contract.errors import InvalidRequest, NotFound
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.settings import local_path
from timedb.contract.wire import ReadTicket, quoted
from timedb.storage.boundary import translating_errors
from timedb.storage.catalog.catalog import KnownSeries, StoredCatalog
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.catalog.unit_changes import in_step
from timedb.storage.delta.log import DeltaLog, Snapshot
from timedb.storage.delta.object_store import ObjectStore
from timedb.storage.delta.store import LocalStore, Store
from timedb.storage.delta.table import Promised, Table
from timedb.storage.read.latest import LastRows
from timedb.storage.read.planning import ReadLimits, plan_read
from timedb.storage.read.reading import ReadPlan
from timedb.storage.read.runs_seen import RunsSeen
from timedb.storage.rows import views
from timedb.storage.rows.scan import is_mixed, scan
from timedb.storage.tables.inventory import Inventory
from timedb.storage.tables.layout import FORMAT_VERSION, MARKER, tenant_folder
from timedb.storage.tables.schemas import PARTITIONS, READ_HELD, RUNS, SERIES, UPDATES, VALUES, VALUES_DATA

__all__ = ["DirectTenant", "State", "find_tenant", "open_folder", "scan_lake"]

_MADE = Promised("", 0)  # a tenant's folder has the tables, whoever made it
_NAMES = {"series_key": "name", "series_unit": "unit"}


class ReadOnlyFolder(LocalStore):
    """A local folder of somebody else: what is read there need not be made durable first."""

    def below(self, path: str) -> ReadOnlyFolder:
        """The store of a folder inside this one."""
        return ReadOnlyFolder(self.root / path)

    def check(self, path: str) -> None:
        """Do nothing: what is scanned lazily is not read whole before."""

    def sync(self, path: str) -> None:
        """Do nothing: whoever reads makes nothing durable."""


class FixedCatalog(StoredCatalog):
    """The series at one version."""

    def __init__(self, table: Table, tenant_id: str, known: KnownSeries) -> None:
        super().__init__(table, tenant_id)
        self._fixed = known

    def known(self) -> KnownSeries:
        return self._fixed


@dataclass(frozen=True)
class State:
    """What a read sees of a tenant's tables, whatever is written meanwhile."""

    values: Snapshot
    series: KnownSeries


@dataclass(frozen=True)
class DirectTenant:
    """A tenant's tables, to be read."""

    store: Store
    """Its folder."""
    tenant_id: str

    def state(self) -> State:
        """The values and the series at the newest versions that the folder has now."""
        promised = Inventory(self.store).promised
        known = promised.get("values", _MADE), promised.get("series", _MADE)
        values = Table(self.store.below("values"), VALUES, PARTITIONS, promised=known[0])
        catalog = StoredCatalog(Table(self.store.below("series"), SERIES, promised=known[1]), self.tenant_id)
        return State(*in_step(values, catalog))

    def plan(self, ticket: ReadTicket, state: State) -> ReadPlan:
        """Resolve a read on what there is at a state.

        Raises:
            InvalidRequest, NotFound: see ``timedb.storage.read.planning.plan_read``.
        """
        values = self.store.below("values")
        return plan_read(
            ticket,
            table=Table(values, VALUES, PARTITIONS),
            catalog=FixedCatalog(Table(self.store.below("series"), SERIES), self.tenant_id, state.series),
            bucket_digits=_bucket_digits(state.values, ticket.bucket),
            runs=RunsSeen(self._runs),
            last_rows=LastRows(values),
            limits=ReadLimits(),
            snapshot=state.values,
        )

    def _runs(self, snapshot: Snapshot) -> pl.LazyFrame:
        """The runs of a snapshot: those of the runs table, and those that only the log of the values has yet."""
        promised = Inventory(self.store).promised
        tables = {
            name: Table(self.store.below(name), schema, promised=promised.get(name))
            for name, schema in (("runs", RUNS), ("updates", UPDATES))
        }
        ledger = Ledger(Table(self.store.below("values"), VALUES, PARTITIONS), tables["runs"], tables["updates"])
        ledger.catch_up(snapshot)
        return ledger.runs.scan()


def find_tenant(path: str, tenant: str | None = None) -> DirectTenant:
    """A tenant's folder, found from the lake's or given itself.

    Args:
        path: A lake, or the folder of one tenant in it: a local folder, or an address of an object store.
        tenant: The tenant of a lake (UUID text); None: the one of a lake without users.

    Raises:
        NotFound: there is no lake, or no such tenant in it.
        InvalidRequest: the address cannot be read, is that of another tenant or of a lake of a newer format.
    """
    store = open_folder(path)
    try:
        marker = store.read(MARKER) if store.exists(MARKER) else None
        if marker is not None:
            _check_format(marker, path)
            tenant_id = _uuid(OPEN_TENANT_ID if tenant is None else tenant)
            store = store.below(tenant_folder(tenant_id))
        else:
            tenant_id = _folder_name(store)
            if tenant is not None and _uuid(tenant) != tenant_id:
                raise NotFound(f"tenant: there is no lake at {quoted(path)}, and it is no folder of {quoted(tenant)}")
        if not DeltaLog(store.below("values")).exists():
            if marker is None:
                raise NotFound(f"path: there is no lake at {quoted(path)}, and no tenant's folder")
            raise NotFound(f"tenant: there is no tenant {quoted(tenant_id)} in {quoted(path)}")
    except OSError as error:
        raise InvalidRequest(f"path: {quoted(path)} cannot be read: {error.strerror or error}") from None
    return DirectTenant(store, tenant_id)


def open_folder(path: str) -> Store:
    """A folder or an address of an object store, to be read.

    Raises:
        InvalidRequest: it is neither.
    """
    folder = local_path(path)
    if folder is not None:
        return ReadOnlyFolder(folder)
    try:
        return ObjectStore(path, Path(os.devnull))  # nothing is ever staged
    except (BaseError, ValueError):
        raise InvalidRequest(f"path: {quoted(path)} is no folder and no address of an object store") from None


def _check_format(marker: bytes, path: str) -> None:
    try:
        version = int(json.loads(marker)["format_version"])
    except (ValueError, KeyError, TypeError):
        raise InvalidRequest(f"path: {quoted(path)} has a {MARKER} that is none of a lake") from None
    if version > FORMAT_VERSION:
        raise InvalidRequest(f"path: {quoted(path)} has format version {version}, this reader knows {FORMAT_VERSION}")


def _uuid(tenant: str) -> str:
    try:
        return str(UUID(tenant))
    except (ValueError, AttributeError, TypeError):
        raise InvalidRequest(f"tenant: {quoted(tenant)} is not a UUID") from None


def _folder_name(store: Store) -> str:
    return store.url().rpartition("/")[2]


def _bucket_digits(snapshot: Snapshot, bucket: str | None) -> int:
    """How many digits of a series_id name its bucket: as many as one has, and any number where all rows are mixed."""
    if bucket is not None:
        return len(bucket)
    names = (file.partition["series_bucket"] for file in snapshot.files.values() if not is_mixed(file))
    return next(map(len, names), 1)


@translating_errors()
def scan_lake(path: str, tenant: str | None, ticket: ReadTicket) -> pl.LazyFrame:
    """The rows of a flat, overlapping or latest read as a query that is not run yet.

    One snapshot is taken now. Each bucket is a query of its own over just the files that can matter.

    Args:
        path: See :func:`find_tenant`.
        tenant: See :func:`find_tenant`.
        ticket: View, series, ranges, cut-offs and columns; no columns are all that are stored.

    Raises:
        NotFound: there is no such lake, tenant or series.
        InvalidRequest: names the field that does not fit.
    """
    found = find_tenant(path, tenant)
    columns = ticket.columns
    if columns is None:
        first, *others = VALUES_DATA.names
        columns = [first, *(["series_key"] if ticket.names else []), *others]
    plan = found.plan(ticket.model_copy(update={"columns": columns}), found.state())
    values = found.store.below("values")
    pieces = [bucket.answer(partial(bucket.scan, values), VALUES_DATA.names) for bucket in plan.buckets]
    if ticket.last is not None:
        pieces = [views.last_points(piece, ticket.last) for piece in pieces]
    names = READ_HELD.names if ticket.numbers_revisions else VALUES_DATA.names
    rows = pl.concat([piece.select(names) for piece in pieces]) if pieces else _no_rows(values)
    if "value_id" in columns:
        rows = rows.with_columns(value_id=views.value_id())
    if any(name in columns for name in _NAMES):
        rows = rows.join(_names(plan), on="series_id", how="left")
    return rows.select(columns)


def _no_rows(values: Store) -> pl.LazyFrame:
    return scan(values, []).with_columns(revision=pl.lit(None, pl.Int32))


def _names(plan: ReadPlan) -> pl.LazyFrame:
    series = plan.series.values()
    columns = {name: [getattr(one, attribute) for one in series] for name, attribute in _NAMES.items()}
    schema = dict.fromkeys(("series_id", *_NAMES), pl.String)
    return pl.LazyFrame({"series_id": [one.series_id for one in series], **columns}, schema=schema)
