"""Reads past the service: of a lake, or of one tenant's folder, that may be read and nothing else."""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing import Unpack
    from uuid import UUID

    import duckdb
    import polars as pl

    from timedb.contract.read_options import ScannedRows, Selection
    from timedb.storage.direct.cluster import SplitRead

__all__ = ["duckdb_macros", "load_duckdb_delta", "scan_lake", "spark_functions", "split_read"]


def scan_lake(
    path: str | PathLike[str],
    tenant: str | UUID | None = None,
    view: Literal["flat", "overlapping", "latest", "first"] = "flat",
    **selection: Unpack[ScannedRows],
) -> pl.LazyFrame:
    """A view of a lake as a Polars query, without a server.

    It sees the lake as it is now, whenever it is collected. What is filtered afterwards is filtered after the winners
    were picked; bounds of known_time and ``as_of`` that shall come before are arguments.

    Args:
        path: The lake, or the folder of one tenant in it: a local folder, or ``s3://``, ``az://``, ``gs://``.
        tenant: The tenant (UUID); left out: the one of a lake without users.
        view: ``flat``: per valid time the value known last. ``overlapping``: every revision. ``latest``: of the flat
            view the last value of each series. ``first``: per valid time the value known first, as it stands.
        **selection: Of ``timedb.client.Selection`` those that a scan can do: series, labels, ranges, ``as_of``,
            ``run_ids``, ``workflow_id``, ``all_versions``, ``relative``, ``lead_time``, ``corrections``,
            ``newest_run``, ``last``, ``names``, and ``columns``: any that a read can return; left out: all that are
            stored, identifiers as text.

    Raises:
        NotFound: there is no such lake, tenant or series.
        InvalidRequest: names the argument that does not fit.

    Examples:
        >>> td.scan_lake(lake, series_keys="load").collect()["value"].sum()
        23.0
    """
    from timedb.client.selection import fields_of, message_of
    from timedb.contract.errors import InvalidRequest
    from timedb.contract.read_options import ScannedRows as Scanned
    from timedb.contract.wire import ReadTicket, quoted
    from timedb.storage.direct.scan import scan_lake as scan

    if view not in ("flat", "overlapping", "latest", "first"):
        raise InvalidRequest(f"view: {quoted(view)} is not flat, overlapping, latest or first")
    if others := sorted(selection.keys() - Scanned.__annotations__.keys()):
        raise TypeError(f"scan_lake() got an unexpected keyword argument {others[0]!r}")
    fields = fields_of(selection) | {"view": view}
    return scan(_address(path), _text(tenant), message_of(ReadTicket, fields))


def split_read(
    path: str | PathLike[str], tenant: str | UUID | None = None, **selection: Unpack[Selection]
) -> SplitRead:
    """A read in parts that a cluster can compute, without a server.

    Args:
        path: As of :func:`scan_lake`; an address that every machine of the cluster can reach.
        tenant: As of :func:`scan_lake`.
        **selection: See ``timedb.client.Selection``; but no ``limit``, and no order but by series.

    Raises:
        NotFound: there is no such lake, tenant or series.
        InvalidRequest: names the argument that does not fit.

    Examples:
        >>> read = td.split_read(lake, series_keys="load")
        >>> len(read.parts)
        1
    """
    from timedb.client.selection import fields_of, message_of
    from timedb.contract.wire import ReadTicket
    from timedb.storage.direct.cluster import split_read as split

    return split(_address(path), _text(tenant), message_of(ReadTicket, fields_of(selection)))


def duckdb_macros(path: str | PathLike[str], tenant: str | UUID | None = None, *, prefix: str = "timedb") -> str:
    """SQL that makes the views as table macros in a DuckDB connection; see docs/direct-reads.md.

    It begins with what :func:`load_duckdb_delta` does, where the package is installed and fits.

    Args:
        path: As of :func:`scan_lake`.
        tenant: As of :func:`scan_lake`.
        prefix: How the names of the macros begin.

    Raises:
        NotFound: there is no such lake or tenant.
        InvalidRequest: names the argument that does not fit.

    Examples:
        >>> connection = duckdb.connect()
        >>> views = connection.execute(td.duckdb_macros(lake))
        >>> connection.sql("SELECT value FROM timedb_flat() ORDER BY value DESC LIMIT 1").fetchall()
        [(13.0,)]
    """
    from timedb.storage.direct.sql_views import duckdb_macros as macros

    return macros(_address(path), _text(tenant), prefix=prefix)


def load_duckdb_delta(connection: duckdb.DuckDBPyConnection) -> None:
    """Load DuckDB's Delta extension into a connection, out of the package ``duckdb-extension-delta``.

    The extra ``duckdb`` (``pip install '.[duckdb]'`` in a checkout) installs the package and the DuckDB that it fits.
    Nothing is downloaded, as DuckDB's own ``LOAD delta`` would. Without the package it takes what ``INSTALL delta``
    has left.

    Args:
        connection: Of DuckDB. Where the extension is loaded already nothing happens.

    Raises:
        NotFound: there is no extension for this version of DuckDB; the text says what to install.

    Example::

        con = duckdb.connect()
        td.load_duckdb_delta(con)
        con.execute("SELECT count(*) FROM delta_scan(?)", [f"timedb-data/tenants/{tenant_id}/values"])
    """
    from timedb.storage.direct.duckdb_extension import load_delta

    load_delta(connection)


def spark_functions(path: str | PathLike[str], tenant: str | UUID | None = None, *, prefix: str = "timedb") -> str:
    """SQL that makes the views as temporary functions in a Spark session; see docs/direct-reads.md.

    The arguments and errors are those of :func:`duckdb_macros`.

    Examples:
        >>> "timedb_flat" in td.spark_functions(lake)
        True
    """
    from timedb.storage.direct.sql_views import spark_functions as functions

    return functions(_address(path), _text(tenant), prefix=prefix)


def _address(path: object) -> str:
    from timedb.contract.errors import InvalidRequest
    from timedb.contract.wire import quoted

    text = fspath(path) if isinstance(path, str | PathLike) else None
    if not isinstance(text, str) or "\0" in text:
        raise InvalidRequest(f"path: {quoted(path)} is no path and no address of an object store")
    return text


def _text(tenant: str | UUID | None) -> str | None:
    return None if tenant is None else str(tenant)
