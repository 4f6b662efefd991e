"""What a read means (docs/wire.md) as SQL, for engines that read the Delta tables themselves: DuckDB and Spark.

One body of text serves both. Columns, filters and their meaning are those of a read; a filter that is left out is NULL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from timedb.contract.errors import InvalidRequest
from timedb.contract.times import MIN_MICROS
from timedb.contract.wire import quoted
from timedb.storage.boundary import translating_errors
from timedb.storage.delta.addresses import refuse_unreadable
from timedb.storage.direct.duckdb_extension import load_statement
from timedb.storage.direct.scan import find_tenant
from timedb.storage.rows.orders import FIRST, LAST, NEWEST, NULLABLE, VERSION, WINNER, Order
from timedb.storage.tables.schemas import RUNS, VALUES_DATA

__all__ = ["duckdb_macros", "place", "spark_functions"]

_COLUMNS = ", ".join(VALUES_DATA.names)
# A macro of DuckDB may not have the name of a column of its tables among its parameters.
_RENAMED = {"run_id": "uploaded_run", "workflow_id": "workflow", "change_time": "uploaded"}
_RUN_COLUMNS = [_RENAMED.get(name, f"run_{name}") for name in RUNS.names]


def place(order: Order, *key: str) -> str:
    """The place of a row in an order, 1 for the one that stands for its key; a key may have further columns."""
    ways = ("ASC", " NULLS FIRST") if order.least else ("DESC", " NULLS LAST")
    by = ", ".join(f"{name} {ways[0]}{ways[1] if name in NULLABLE else ''}" for name in order.by)
    return f"row_number() OVER (PARTITION BY {', '.join((*order.key, *key))} ORDER BY {by})"


_GATE = f"greatest({MIN_MICROS}, gate)"
# A version that was written with its run is the first, whatever came of it since. Of a run that the table of runs does
# not know yet all versions count as such.
_COUNTS = f"""CASE
    WHEN {{corrections}} IN ('all', 'none') THEN TRUE
    WHEN {{corrections}} <> 'by_cutoff' THEN {{fails}}('corrections: is not all, by_cutoff or none')
    WHEN {{end_known}} IS NULL AND {{lead_time}} IS NULL AND {{time_zone}} IS NULL
        THEN {{fails}}('corrections: by_cutoff needs a cut-off: end_known, lead_time or time_zone')
    ELSE uploaded IS NULL OR change_time = uploaded OR (
        ({{end_known}} IS NULL OR change_time < {{end_known}})
        AND ({{lead_time}} IS NULL OR {{micros}}(change_time) <= {{lead}})
        AND ({{time_zone}} IS NULL OR {{micros}}(change_time) <= {_GATE})
    )
  END"""


@dataclass(frozen=True)
class _Filter:
    """A filter: what kind of value it takes, what it asks of a row, and when another row can win under it."""

    kind: Literal["instant", "length", "text", "texts", "number"]
    test: str | None = None
    decides: str | None = None
    """When it bounds what may win."""
    default: str = "NULL"
    of_versions: bool = True
    """Whether macros have it that give superseded versions, too."""


_FILTERS = {
    "start_valid": _Filter("instant", "valid_time >= {start_valid}"),
    "end_valid": _Filter("instant", "valid_time < {end_valid}"),
    "start_known": _Filter("instant", "known_time >= {start_known}"),
    "end_known": _Filter("instant", "known_time < {end_known}", "end_known IS NOT NULL"),
    "as_of": _Filter("instant", "change_time <= {as_of}", "as_of IS NOT NULL"),
    "run_ids": _Filter("texts", "array_contains({run_ids}, run_id)", "run_ids IS NOT NULL"),
    "workflow_id": _Filter("text", "workflow = {workflow_id}", "workflow_id IS NOT NULL"),
    "lead_time": _Filter("length", "{micros}(known_time) <= {lead}", "lead_time IS NOT NULL"),
    "time_zone": _Filter("text", f"{{micros}}(known_time) <= {_GATE}", "time_zone IS NOT NULL"),
    "days_ahead": _Filter("number", default="1"),
    "time_of_day": _Filter("text", default="'10:00'"),
    "corrections": _Filter("text", _COUNTS, "corrections <> 'all'", default="'all'", of_versions=False),
}
_BOUNDED = " OR ".join(each.decides for each in _FILTERS.values() if each.decides)
_PAST = "as_of IS NOT NULL OR corrections <> 'all'"
"""When superseded versions may stand for their revisions."""
_OF_VERSIONS = [name for name, each in _FILTERS.items() if each.of_versions]
_DAY, _HOUR, _MINUTE, _SECOND = 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000
_LOCAL_DAY = f"here - (here % {_DAY} + {_DAY}) % {_DAY}"
# Where corrections are left out, the first version of a revision stands for it.
_VERSION = place(VERSION).replace("ORDER BY ", "ORDER BY CASE WHEN corrections = 'none' THEN change_time END, ")


@dataclass(frozen=True)
class _Dialect:
    """How an engine says what the other says otherwise; ``{prefix}`` begins all names that are ours."""

    sources: str
    table: str
    scalar: str
    types: Mapping[str, str]
    """What it calls the kinds of values that filters take."""
    typed: bool
    """Whether parameters are declared with their types; else they are cast where they are used."""
    argument: str
    micros: str
    """Microseconds since 1970 of an instant."""
    lead: str
    """The latest known_time, as its microseconds, that a lead time leaves to a valid_time; a day is 24 hours."""
    clock: str
    """What the clocks of ``time_zone`` show at a moment; both in microseconds, the clocks' as if they showed UTC."""
    reached: str
    """The first second from ``low`` to ``high`` at which the clocks show ``wall`` or a later time."""
    one_snapshot: bool
    """Whether a query that names the values twice is sure to see one version of them."""
    uploads: str
    """The table of runs as far as a query needs it: ``uploaded_run``, ``workflow`` and ``uploaded``."""
    fails: str
    """What raises an error with a text."""

    def declaration(self, name: str) -> str:
        """A filter as a parameter with its default."""
        default = _FILTERS[name].default
        return f"{name} {self._type(name)} DEFAULT {default}" if self.typed else f"{name} := {default}"

    def given(self, name: str) -> str:
        """A filter where it is used."""
        return name if self.typed else f"CAST({name} AS {self._type(name)})"

    def _type(self, name: str) -> str:
        return self.types[_FILTERS[name].kind]

    def passed_on(self, filters: Iterable[str] = _FILTERS) -> str:
        """The filters of a view as arguments of another."""
        return ", ".join(self.argument.format(name=name) for name in filters)


_DUCKDB = _Dialect(
    # An attached table is read at one version throughout a query, which two delta_scan in one query are not.
    sources="""
ATTACH OR REPLACE '{values}' AS {prefix}_values (TYPE delta);
ATTACH OR REPLACE '{series}' AS {prefix}_catalog (TYPE delta);
ATTACH OR REPLACE '{runs}' AS {prefix}_runs (TYPE delta);

CREATE OR REPLACE MACRO {prefix}_series() AS TABLE SELECT * FROM {prefix}_catalog;
CREATE OR REPLACE MACRO {prefix}_uploads() AS TABLE
    SELECT uploaded_run, workflow, uploaded FROM {prefix}_runs AS runs ({run_columns});""",
    table="CREATE OR REPLACE MACRO {name}({parameters}) AS TABLE",
    scalar="CREATE OR REPLACE MACRO {name}({parameters}) AS",
    types={
        "instant": "TIMESTAMPTZ",
        "length": "INTERVAL",
        "text": "VARCHAR",
        "texts": "VARCHAR[]",
        "number": "BIGINT",
    },
    typed=False,
    argument="{name} := {name}",
    micros="epoch_us",
    lead="epoch_us(valid_time) - epoch_us({lead_time})",
    clock="epoch_us(timezone(time_zone, make_timestamptz({moment})))",
    reached="""list_min(list_filter(
        range(low, high + 1, 1000000), lambda instant: {clock} >= wall
    ))""",
    one_snapshot=True,
    uploads="(SELECT * FROM {prefix}_uploads() WHERE {workflow_id} IS NOT NULL OR {corrections} = 'by_cutoff')",
    fails="error",
)

_SPARK = _Dialect(
    sources="""
CREATE OR REPLACE TEMPORARY VIEW {prefix}_values AS SELECT * FROM delta.`{values}`;
CREATE OR REPLACE TEMPORARY VIEW {prefix}_series AS SELECT * FROM delta.`{series}`;
CREATE OR REPLACE TEMPORARY VIEW {prefix}_uploads AS
    SELECT run_id AS uploaded_run, workflow_id AS workflow, change_time AS uploaded FROM delta.`{runs}`;""",
    table="CREATE OR REPLACE TEMPORARY FUNCTION {name}({parameters}) RETURNS TABLE RETURN",
    scalar="CREATE OR REPLACE TEMPORARY FUNCTION {name}({parameters}) RETURNS BIGINT RETURN",
    types={
        "instant": "TIMESTAMP",
        "length": "INTERVAL DAY TO SECOND",
        "text": "STRING",
        "texts": "ARRAY<STRING>",
        "number": "BIGINT",
    },
    typed=True,
    argument="{name} => {name}",
    micros="unix_micros",
    lead="unix_micros(valid_time - {lead_time})",
    clock="unix_micros(from_utc_timestamp(timestamp_micros({moment}), time_zone))",
    reached="""array_min(filter(
        sequence(low, high, 1000000), instant -> {clock} >= wall
    ))""",
    one_snapshot=False,
    uploads="{prefix}_uploads",
    fails="raise_error",
)


@translating_errors()
def duckdb_macros(path: str, tenant: str | None = None, *, prefix: str = "timedb") -> str:
    """SQL that makes the table macros ``timedb_flat`` and so on in DuckDB, over the tables of one tenant.

    It begins with the statement that loads the Delta extension out of its package.

    Args:
        path: A lake, or the folder of one tenant in it.
        tenant: The tenant of a lake (UUID text); None: the one of a lake without users.
        prefix: How the names of the macros begin.

    Raises:
        NotFound: there is no such lake or tenant.
        InvalidRequest: names the argument that does not fit.
    """
    refuse_unreadable(path, field="path")
    text = _text(_DUCKDB, _checked(prefix), find_tenant(path, tenant).store.url().replace("'", "''"))
    return f"{load_statement()}\n\n{text}"


@translating_errors()
def spark_functions(path: str, tenant: str | None = None, *, prefix: str = "timedb") -> str:
    """SQL that makes the temporary functions ``timedb_flat`` and so on in a session of Spark 4 with Delta Lake.

    The arguments and errors are those of :func:`duckdb_macros`. Spark takes one statement at a time; each ends with a
    semicolon at the end of its line.
    """
    refuse_unreadable(path, field="path")
    return _text(_SPARK, _checked(prefix), find_tenant(path, tenant).store.url().replace("`", "``"))


def _checked(prefix: object) -> str:
    if not isinstance(prefix, str) or not re.fullmatch(r"[a-z_][a-z0-9_]{0,39}", prefix):
        raise InvalidRequest(f"prefix: {quoted(prefix)} is not up to 40 of a to z, 0 to 9 and _, no digit first")
    return prefix


def _text(dialect: _Dialect, prefix: str, folder: str) -> str:
    tables = {name: f"{folder}/{name}" for name in ("values", "series", "runs")}

    def view(name: str, comment: str, body: str) -> str:
        filters = _OF_VERSIONS if name.endswith("_versions") else _FILTERS
        parameters = ", ".join(map(dialect.declaration, filters))
        head = dialect.table.format(name=f"{prefix}_{name}", parameters=parameters)
        return f"-- {comment}\n{head}\n{body};"

    return "\n\n".join(
        [
            dialect.sources.strip().format(prefix=prefix, run_columns=", ".join(_RUN_COLUMNS), **tables),
            *_clocks(dialect, prefix),
            *(view(*parts) for parts in _views(dialect, prefix)),
            "",
        ]
    )


def _clocks(dialect: _Dialect, prefix: str) -> Iterable[str]:
    """The functions of local time that the daily gate needs; all numbers are microseconds."""
    clock, reached = (
        dialect.clock.format(moment="moment"),
        dialect.reached.format(clock=dialect.clock.format(moment="instant")),
    )
    functions = [
        ("clock", ["moment"], clock, "What the clocks of a zone show, as if they showed UTC."),
        (
            "reached",
            ["low", "high", "wall"],
            reached,
            "The first second between two instants when they show a time or more.",
        ),
    ]
    for name, numbers, body, comment in functions:
        kinds = {**dict.fromkeys(numbers, "BIGINT"), "time_zone": "STRING"}
        parameters = ", ".join(f"{each} {kind}" if dialect.typed else each for each, kind in kinds.items())
        head = dialect.scalar.format(name=f"{prefix}_{name}", parameters=parameters)
        yield f"-- {comment}\n{head}\n    {body};"


def _views(dialect: _Dialect, prefix: str) -> Iterable[tuple[str, str, str]]:
    """Each view's name, what it is, and its query."""
    filters, versions = dialect.passed_on(), f"{prefix}_seen({dialect.passed_on(_OF_VERSIONS)})"
    seen, candidates, flat = (f"{prefix}_{name}({filters})" for name in ("seen", "candidates", "flat"))
    yield "seen", "The rows that pass the filters, which come before any winner is picked.", _seen(dialect, prefix)
    yield (
        "overlapping_versions",
        "Every version of every revision, withdrawn ones too.",
        f"SELECT {_COLUMNS} FROM {versions}",
    )
    # Rows that compaction has found superseded stand for nothing, except in the past.
    settled = f"SELECT * FROM {seen} WHERE {_PAST} OR tier <> 'corrected'"
    yield "overlapping", "Every revision as it stands.", f"SELECT {_COLUMNS} FROM {_standing(settled)}"
    yield (
        "candidates",
        "The rows that can win: no revised one, unless known_time is bounded or a fresh row withdraws the winner.",
        _candidates(prefix, seen) if dialect.one_snapshot else settled,
    )
    yield (
        "flat",
        "Per (series_id, valid_time, valid_time_end) the revision that was known last.",
        f"""SELECT {_COLUMNS} FROM (
    SELECT *, {place(WINNER)} AS place FROM {_standing(f"SELECT * FROM {candidates}")}
) AS ranked WHERE place = 1""",
    )
    yield "first", "Per (series_id, valid_time, valid_time_end) the revision that was known first.", _first(seen)
    yield "flat_versions", "Every version of the revisions that flat gives, superseded ones too.", _chains(versions)
    yield "newest_run", "Of each series, or local day of it, the run that was known last.", _newest_run(settled)
    yield (
        "latest",
        "Of flat the last value of each series.",
        f"""SELECT {_COLUMNS} FROM (
    SELECT *, {place(LAST)} AS place FROM {flat}
) AS dated WHERE place = 1""",
    )


def _seen(dialect: _Dialect, prefix: str) -> str:
    zone = dialect.given("time_zone")
    shown_at = f"{prefix}_clock({dialect.micros}(valid_time), {zone})"
    given = {name: dialect.given(name) for name in _FILTERS}
    said = given | {"micros": dialect.micros, "lead": dialect.lead.format(**given), "fails": dialect.fails}
    uploads = dialect.uploads.format(prefix=prefix, **given)
    tests = {name: each.test.format(**said) for name, each in _FILTERS.items() if each.test is not None}
    where = "\n  AND ".join(f"({given[name]} IS NULL OR {test})" for name, test in tests.items())
    # A local time is tried with the offset of the day before and with that of the day after. The first that the clocks
    # do show is right, also where they show both; where they show neither, they skip it.
    return f"""SELECT * FROM (
    SELECT *, CASE
        WHEN {prefix}_clock(one, {zone}) = wall THEN one
        WHEN {prefix}_clock(other, {zone}) = wall THEN other
        ELSE {prefix}_reached(other, one, wall, {zone})
    END AS gate FROM (
        SELECT *,
            2 * wall - {_DAY} - {prefix}_clock(wall - {_DAY}, {zone}) AS one,
            2 * wall + {_DAY} - {prefix}_clock(wall + {_DAY}, {zone}) AS other
        FROM (
            SELECT *, {_LOCAL_DAY} - {given["days_ahead"]} * {_DAY}
                + {_time_of_day(given["time_of_day"])} AS wall
            FROM (
                SELECT *, {shown_at} AS here
                FROM {prefix}_values LEFT JOIN {uploads} AS uploads ON run_id = uploaded_run
            ) AS clocks
        ) AS walls
    ) AS offsets
) AS gates
WHERE {where}"""


def _time_of_day(text: str) -> str:
    def part(number: int) -> str:
        return f"CAST(coalesce(nullif(split_part({text}, ':', {number}), ''), '0') AS BIGINT)"

    return f"{part(1)} * {_HOUR}\n                + {part(2)} * {_MINUTE} + {part(3)} * {_SECOND}"


def _candidates(prefix: str, seen: str) -> str:
    return f"""SELECT * FROM {seen}
WHERE ({_PAST} OR tier <> 'corrected') AND ({_BOUNDED} OR tier <> 'revised')
UNION ALL
SELECT beaten.* FROM (SELECT * FROM {seen} WHERE tier = 'revised' AND NOT ({_BOUNDED})) AS beaten
SEMI JOIN (SELECT * FROM {prefix}_values WHERE tier = 'fresh' AND retracted) AS withdrawn
    ON beaten.series_id = withdrawn.series_id AND beaten.valid_time = withdrawn.valid_time
    AND beaten.valid_time_end IS NOT DISTINCT FROM withdrawn.valid_time_end"""


def _standing(source: str) -> str:
    return f"""(
    SELECT * FROM (
        SELECT *, {_VERSION} AS version
        FROM ({source}) AS source
    ) AS versions WHERE version = 1 AND retracted IS NOT TRUE
) AS standing"""


def _first(seen: str) -> str:
    return f"""SELECT {_COLUMNS} FROM (
    SELECT *, {place(FIRST)} AS place FROM (
        SELECT *, {_VERSION} AS version,
            min(change_time) OVER (PARTITION BY {", ".join(VERSION.key)}) AS published
        FROM {seen}
    ) AS versions WHERE version = 1 AND retracted IS NOT TRUE
) AS ranked WHERE place = 1"""


def _newest_run(settled: str) -> str:
    def newest(column: str) -> str:
        by = ", ".join(f"{name} DESC" for name in NEWEST.by)
        return f"first_value({column}) OVER (PARTITION BY {', '.join(NEWEST.key)}, {_LOCAL_DAY} ORDER BY {by})"

    return f"""SELECT {_COLUMNS} FROM (
    SELECT *, {newest("known_time")} AS newest_known, {newest("run_id")} AS newest_id
    FROM {_standing(settled)}
) AS runs WHERE known_time = newest_known AND run_id = newest_id"""


def _chains(seen: str) -> str:
    # In one pass over the rows: a second one might see another snapshot.
    return f"""SELECT {_COLUMNS} FROM (
    SELECT *, max(wins) OVER (PARTITION BY {", ".join(VERSION.key)}) AS of_winner FROM (
        SELECT *, CASE WHEN stands AND {place(WINNER, "stands")} = 1 THEN 1 ELSE 0 END AS wins FROM (
            SELECT *, retracted IS NOT TRUE AND {place(VERSION)} = 1 AS stands
            FROM {seen}
        ) AS versions
    ) AS rivals
) AS chains WHERE of_winner = 1"""
