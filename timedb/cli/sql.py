"""``timedb sql``: the views as SQL for engines that read the lake themselves."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

__all__ = ["register"]


class Dialect(StrEnum):
    """The engines for which ``timedb sql`` writes text."""

    DUCKDB = "duckdb"
    SPARK = "spark"


def register(app: typer.Typer) -> None:
    """Add the command of this module to ``timedb``."""
    app.command()(sql)


def sql(
    dialect: Annotated[Dialect, typer.Option(help="Whose SQL.")] = Dialect.DUCKDB,
    lake: Annotated[
        str | None, typer.Option(help="A lake, or the folder of one tenant in it. [TIMEDB_LAKE, ./timedb-data]")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant (UUID), where the lake has users.")] = None,
    prefix: Annotated[str, typer.Option(help="How the names of the views begin.")] = "timedb",
) -> None:
    """Print the views as SQL: table macros for DuckDB, temporary functions for Spark."""
    from timedb import direct
    from timedb.contract.settings import ServerSettings, load_settings

    path = load_settings(ServerSettings, lake=lake).lake
    make = direct.duckdb_macros if dialect is Dialect.DUCKDB else direct.spark_functions
    print(make(path, tenant, prefix=prefix), end="")
