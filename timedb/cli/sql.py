"""``timedb sql``: a query on the service, or the views as SQL for engines that read the lake themselves."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timedb.cli.options import AsJson, FlightUrl, Format, client_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["answer_rows", "register"]


class Dialect(StrEnum):
    """The engines for which ``timedb sql`` writes text."""

    DUCKDB = "duckdb"
    SPARK = "spark"


def register(app: typer.Typer) -> None:
    """Add the command of this module to ``timedb``."""
    app.command()(sql)


def sql(
    query: Annotated[
        str | None, typer.Argument(metavar="[QUERY]", help="One SELECT, which the service runs; without one …")
    ] = None,
    *,
    dialect: Annotated[Dialect, typer.Option(help="… print the views for this engine.")] = Dialect.DUCKDB,
    lake: Annotated[
        str | None, typer.Option(help="A lake, or the folder of one tenant in it. [TIMEDB_LAKE, ./timedb-data]")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant (UUID), where the lake has users.")] = None,
    prefix: Annotated[str, typer.Option(help="How the names of the views begin.")] = "timedb",
    format: Annotated[Format | None, typer.Option(help="How the answer of a query is written. [a table]")] = None,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Run a query on the service, over flat, overlapping, values, series and runs; or print the views as SQL.

    The views are table macros for DuckDB and temporary functions for Spark, which read the lake themselves.

    Example: timedb sql "SELECT series_key, max(valid_time) FROM flat GROUP BY series_key"
    """
    if query is not None:
        _run(query, "json" if json else format, flight_url)
        return
    from timedb import direct
    from timedb.contract.settings import ServerSettings, load_settings

    path = load_settings(ServerSettings, lake=lake).lake
    make = direct.duckdb_macros if dialect is Dialect.DUCKDB else direct.spark_functions
    print(make(path, tenant, prefix=prefix), end="")


def _run(query: str, format: Format | None, flight_url: str | None) -> None:
    from timedb.cli.formats import sink_of
    from timedb.cli.output import show

    with client_of(flight_url) as client:
        answer = client.sql(query)
    if format in (None, "json"):
        show(answer_rows(answer), as_json=format == "json")
        return
    with sink_of("--format", None, binary=format in ("arrow", "parquet")) as sink:
        match format:
            case "csv":
                answer.write_csv(sink)
            case "ndjson":
                answer.write_ndjson(sink)
            case "arrow":
                answer.write_ipc_stream(sink)
            case _:
                answer.write_parquet(sink)


def answer_rows(answer: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of an answer as JSON values: times as RFC 3339, what is not finite and what JSON has not as text."""
    return [{name: _value(value) for name, value in row.items()} for row in answer.iter_rows(named=True)]


def _value(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case float() if not isfinite(value):
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [_value(each) for each in value]
        case dict():
            return {str(key): _value(each) for key, each in value.items()}
        case _:
            return str(value)
