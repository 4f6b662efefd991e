"""A read on many machines: resolved once, each bucket computed wherever there is room.

A series lies in one bucket and no view needs two of them, so the parts of a read have nothing to tell each other. A
part carries all that it was resolved to, the names of its files included; who computes it opens those and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from timedb.contract.errors import Damaged, Internal, InvalidRequest, NotFound
from timedb.contract.wire import ReadTicket
from timedb.storage.boundary import translating_errors
from timedb.storage.catalog.catalog import KnownSeries
from timedb.storage.delta.log import Snapshot
from timedb.storage.direct.scan import DirectTenant, State, find_tenant, open_folder
from timedb.storage.rows.scan import shares_bucket

if TYPE_CHECKING:
    from dask.delayed import Delayed
    from distributed import Client

__all__ = ["Part", "SplitRead", "split_read"]


@dataclass(frozen=True)
class Part:
    """One bucket's share of a read. It can be pickled, and read where the lake can be reached under the same address.

    Attributes:
        folder: The tenant's folder.
        tenant_id: The tenant.
        ticket: The read, its series by id.
        state: The version of the tables that all parts see; of it what lies in the bucket.
    """

    folder: str
    tenant_id: str
    ticket: ReadTicket
    state: State

    @property
    def bucket(self) -> str | None:
        """The bucket; None where a read finds no file at all."""
        return self.ticket.bucket

    @translating_errors()
    def read_arrow(self) -> pa.Table:
        """The rows, with the columns and types of ``Client.read_arrow``.

        Raises:
            NotFound: maintenance has removed files since the read was split.
            Internal: the lake could not be read.
        """
        tenant = DirectTenant(open_folder(self.folder), self.tenant_id)
        try:
            return tenant.plan(self.ticket, self.state).reader().read_all()
        except (Damaged, Internal):
            values, version = tenant.store.below("values"), self.state.values.version
            if all(values.exists(path) for path in self.state.values.files):
                raise
            raise NotFound(
                f"table_version: files of version {version} of the values are gone, since maintenance keeps them for a "
                "time only; split the read anew"
            ) from None

    def read(self) -> pl.DataFrame:
        """The rows, with the columns and types of ``Client.read``. The errors are those of :meth:`read_arrow`."""
        return pl.DataFrame(self.read_arrow())


@dataclass(frozen=True)
class SplitRead:
    """A read in parts, resolved on one version of the tables.

    Attributes:
        parts: The parts; together they are the answer, and no row is in two of them.
        schema: The schema of the answer, with its ``token``.
        table_version: The version of the values table.
        as_of: The change_time that the read is resolved to, UTC.
    """

    parts: list[Part]
    schema: pa.Schema
    table_version: int
    as_of: datetime

    def delayed(self) -> list[Delayed]:
        """Each part as a Dask task that gives a Polars frame, for a graph of the caller's own."""
        from dask.delayed import delayed

        # A part is passed as it is: Dask would take a dataclass apart, looking for tasks in it.
        return [delayed(part.read, pure=False, traverse=False)() for part in self.parts]

    def gather(self, client: Client) -> pa.Table:
        """The whole answer, computed by a Dask cluster.

        Args:
            client: A client of the cluster, whose workers can reach the lake under the same address.

        Raises:
            NotFound, Internal: see :meth:`Part.read_arrow`.
        """
        futures = [client.submit(part.read_arrow, pure=False) for part in self.parts]
        return pa.concat_tables(client.gather(futures)).replace_schema_metadata(self.schema.metadata)


@translating_errors()
def split_read(path: str, tenant: str | None, ticket: ReadTicket) -> SplitRead:
    """Resolve a read on the newest version of the tables, and cut it into its buckets.

    Args:
        path: See ``timedb.storage.direct.scan.find_tenant``.
        tenant: See ``timedb.storage.direct.scan.find_tenant``.
        ticket: Any read but one whose order or limit needs all rows in one place.

    Raises:
        NotFound: there is no such lake, tenant or series.
        InvalidRequest: names the field that does not fit.
    """
    if ticket.limit is not None:
        raise InvalidRequest(f"limit: {ticket.limit} needs all rows in one place; a read in parts has none")
    if ticket.pivot is not None:
        raise InvalidRequest(f"pivot: {ticket.pivot} brings series of all parts together; pivot the rows of the parts")
    if ticket.is_ordered and ticket.order_by != "series":
        raise InvalidRequest(f"order_by: {ticket.order_by} needs all rows in one place; parts can be ordered by series")
    found = find_tenant(path, tenant)
    state = found.state()
    plan = found.plan(ticket, state)
    parts = [
        Part(
            found.store.url(),
            found.tenant_id,
            _by_id(part.ticket, plan.series_ids),
            State(_files_of(state.values, part.ticket.bucket), _series_of(state.series, part.ticket.bucket)),
        )
        for part in plan.parts
    ]
    return SplitRead(parts, plan.schema, plan.table_version, plan.as_of)


def _by_id(ticket: ReadTicket, series_ids: Collection[str] | None) -> ReadTicket:
    """The same with its series by id: a name may come to mean another one, and labels those made meanwhile."""
    if series_ids is None:
        return ticket
    own = sorted(series_id for series_id in series_ids if ticket.bucket and series_id.startswith(ticket.bucket))
    return ticket.model_copy(update={"series_ids": own, "series_keys": None, "labels": None})


def _files_of(snapshot: Snapshot, bucket: str | None) -> Snapshot:
    files = {path: file for path, file in snapshot.files.items() if bucket and shares_bucket(file, bucket)}
    return replace(snapshot, files=files)


def _series_of(known: KnownSeries, bucket: str | None) -> KnownSeries:
    by_id = {series_id: one for series_id, one in known.by_id.items() if series_id.startswith(bucket or "-")}
    return KnownSeries(replace(known.snapshot, files={}), by_id, {})
