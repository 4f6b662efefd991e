"""What a query scans of each table: the columns that it can name, and bounds that its filters imply.

Both are only hints: DuckDB applies every filter itself. They may ask for more than is needed, never for less.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb

from .from_clause import column_of, conjuncts, resolved, sources_of
from .series_joins import SeriesChoice
from .syntax import Node, Query, nodes_of
from .table_scan import TableScan

__all__ = ["scans_of"]

_TIMES = ("valid_time", "known_time")
_TEXTS = ("series_id", "series_key", "run_id")
_FLIPPED = {
    "COMPARE_EQUAL": "COMPARE_EQUAL",
    "COMPARE_LESSTHAN": "COMPARE_GREATERTHAN",
    "COMPARE_GREATERTHAN": "COMPARE_LESSTHAN",
    "COMPARE_LESSTHANOREQUALTO": "COMPARE_GREATERTHANOREQUALTO",
    "COMPARE_GREATERTHANOREQUALTO": "COMPARE_LESSTHANOREQUALTO",
}
_LOWER = ("COMPARE_EQUAL", "COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO")
_UPPER = ("COMPARE_EQUAL", "COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO")
_STEADY_FUNCTIONS = {"+", "-", "now", "current_timestamp", "get_current_timestamp", "today", "current_date", "trunc"}
_STEADY_FUNCTIONS |= {"date_trunc", "datetrunc", "to_timestamp", "make_timestamptz", "make_timestamp", "make_date"}
_STEADY_FUNCTIONS |= {f"to_{unit}" for unit in ("seconds", "minutes", "hours", "days", "weeks", "months", "years")}
_STEADY_FUNCTIONS |= {"to_milliseconds", "to_microseconds", "transaction_timestamp"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
_MAX_TEXTS = 10_000
_CHEAPEST = "valid_time"  # for COUNT(*), which names no column


def scans_of(
    query: Query,
    tables: Mapping[str, Sequence[str]],
    connection: duckdb.DuckDBPyConnection,
    values: Mapping[str, object],
    series: str | None = None,
) -> dict[str, TableScan]:
    """What a query needs of the tables that it names.

    Args:
        query: The query.
        tables: The columns of each table.
        connection: The one that will run the query, inside its transaction: ``now()`` is the same for both.
        values: The bound parameters.
        series: What the connection calls a table with the rows of ``series``; None: joins with it imply nothing.

    Raises:
        duckdb.Error: a constant cannot be evaluated; the query may never look at it, but the transaction is over.
    """
    reader = _Reader(connection, values)
    choice = None if series is None else SeriesChoice(connection, series, values)
    bounds: dict[int, TableScan] = {}
    for node in nodes_of(query.tree):
        if node.get("type") == "SELECT_NODE":
            bounds |= _bounds_of_select(node, query, tables, reader, choice)
    scans = {}
    for name in query.names:
        uses = [bounds.get(id(node), TableScan()) for node in query.tables if node["table_name"].lower() == name]
        scan = TableScan() if name in query.shadowed else _hull(uses)
        scans[name] = replace(scan, columns=_columns(query, tables[name]))
    return scans


def _columns(query: Query, columns: Sequence[str]) -> list[str]:
    """The columns that a query may name; all where it can name them without saying so."""
    named: set[str] = set()
    aliases = {str(node.get(key, "")).lower() for node in query.tables for key in ("alias", "table_name")}
    for node in nodes_of(query.tree):
        kind, parts = node.get("type"), [str(part).lower() for part in node.get("column_names") or ()]
        whole_row = len(parts) == 1 and parts[0] in aliases - set(columns)
        if kind in ("STAR", "SHOW_REF", "PIVOT") or node.get("ref_type") in ("NATURAL", "POSITIONAL") or whole_row:
            return list(columns)
        named.update(parts)
        named.update(str(name).lower() for name in node.get("using_columns") or ())
        if node.get("column_name_alias") and kind == "BASE_TABLE":
            return list(columns)  # FROM flat AS f(a, b): by position
    return [name for name in columns if name in named] or [_CHEAPEST if _CHEAPEST in columns else columns[0]]


def _hull(uses: Sequence[TableScan]) -> TableScan:
    """A scan that covers several."""
    first, *others = uses
    low, high, texts = dict(first.low), dict(first.high), {name: set(found) for name, found in first.texts.items()}
    for other in others:
        low = {name: min(bound, other.low[name]) for name, bound in low.items() if name in other.low}
        high = {name: max(bound, other.high[name]) for name, bound in high.items() if name in other.high}
        texts = {name: found | set(other.texts[name]) for name, found in texts.items() if name in other.texts}
    return TableScan(low=low, high=high, texts={name: sorted(found) for name, found in texts.items()})


def _bounds_of_select(
    select: Node,
    query: Query,
    tables: Mapping[str, Sequence[str]],
    reader: _Reader,
    choice: SeriesChoice | None,
) -> dict[int, TableScan]:
    sources = sources_of(select.get("from_table"), query, tables)
    if sources is None or select.get("sample"):
        return {}
    found: dict[int, TableScan] = {}
    for test in conjuncts(select.get("where_clause")):
        for column, kind, constant in _comparisons(test):
            source = resolved(column, sources)
            if source is not None:
                scan = found.get(id(source.node), TableScan())
                found[id(source.node)] = _narrowed(scan, str(column[-1]).lower(), kind, constant, reader)
    for source, ids in () if choice is None else choice.of(select, sources):
        scan = found.get(id(source.node), TableScan())
        kept = set(ids) & set(scan.texts.get("series_id", ids))
        found[id(source.node)] = replace(scan, texts={**scan.texts, "series_id": sorted(kept)})
    return found


def _comparisons(test: Node) -> list[tuple[Sequence[object], str, list[Node]]]:
    """(column, comparison, constants) that a test implies."""
    kind = str(test.get("type"))
    if kind == "COMPARE_BETWEEN":
        column = column_of(test["input"])
        bounds = (("COMPARE_GREATERTHANOREQUALTO", "lower"), ("COMPARE_LESSTHANOREQUALTO", "upper"))
        return [(column, way, [test[side]]) for way, side in bounds] if column else []
    if kind == "COMPARE_IN":
        column = column_of(test["children"][0])
        return [(column, kind, test["children"][1:])] if column else []
    if kind not in _FLIPPED:
        return []
    left, right = column_of(test["left"]), column_of(test["right"])
    if left and not right:
        return [(left, kind, [test["right"]])]
    return [(right, _FLIPPED[kind], [test["left"]])] if right and not left else []


def _narrowed(scan: TableScan, column: str, kind: str, constants: list[Node], reader: _Reader) -> TableScan:
    if column in _TEXTS and kind in ("COMPARE_EQUAL", "COMPARE_IN"):
        texts = reader.texts(constants)
        if texts is None or len(texts) > _MAX_TEXTS:
            return scan
        kept = set(texts) & set(scan.texts.get(column, texts))
        return replace(scan, texts={**scan.texts, column: sorted(kept)})
    if column not in _TIMES or (times := reader.times(constants)) is None:
        return scan
    low, high = dict(scan.low), dict(scan.high)
    # A microsecond to either side makes up for whatever a conversion has rounded.
    if kind in (*_LOWER, "COMPARE_IN"):
        low[column] = max(low.get(column, _FIRST), min(times) - 1)
    if kind in (*_UPPER, "COMPARE_IN"):
        high[column] = min(high.get(column, _LAST), max(times) + 1)
    return replace(scan, low=low, high=high)


class _Reader:
    """Finds out what constants are."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, values: Mapping[str, object]) -> None:
        self._connection = connection
        self._values = values
        self._template: Node | None = None

    def texts(self, nodes: Sequence[Node]) -> list[str] | None:
        """The texts that nodes stand for; None where one is no text."""
        found = []
        for node in nodes:
            value: object = None
            if node.get("class") == "CONSTANT" and node["value"]["type"].get("id") == "VARCHAR":
                value = node["value"].get("value")
            elif node.get("class") == "PARAMETER":
                value = self._values.get(str(node["identifier"]))
            if not isinstance(value, str):
                return None
            found.append(value)
        return found

    def times(self, nodes: Sequence[Node]) -> list[int] | None:
        """The instants that nodes stand for, microseconds since 1970; None where one is none."""
        found = [self._time(node) for node in nodes]
        return None if None in found or not found else [time for time in found if time is not None]

    def _time(self, node: Node) -> int | None:
        if node.get("class") == "PARAMETER":
            value = self._values.get(str(node["identifier"]))
            if isinstance(value, datetime | date):
                return _micros(value)
            if not isinstance(value, str):
                return None
            node = {"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": 0}
            node["value"] = {"type": {"id": "VARCHAR", "type_info": None}, "is_null": False, "value": value}
        elif not _is_steady(node):
            return None
        try:
            return self._evaluate(node)
        except (KeyError, IndexError, TypeError):
            return None  # not the tree that this module knows

    def _evaluate(self, node: Node) -> int | None:
        if self._template is None:
            text = "SELECT epoch_us(CAST(NULL AS TIMESTAMP WITH TIME ZONE))"
            self._template = json.loads(self._value("SELECT json_serialize_sql($1)", text))
        tree = copy.deepcopy(self._template)
        tree["statements"][0]["node"]["select_list"][0]["children"][0]["child"] = node
        micros = self._value(str(self._value("SELECT json_deserialize_sql($1)", json.dumps(tree))))
        return micros if isinstance(micros, int) and _FIRST <= micros <= _LAST else None

    def _value(self, sql: str, *values: object) -> Any:
        row = self._connection.execute(sql, list(values)).fetchone()
        return None if row is None else row[0]


def _is_steady(tree: Node) -> bool:
    """Whether an expression is the same for every row, and cheap."""
    for node in nodes_of(tree):
        kind = node.get("class")
        if kind is None:
            continue
        if kind == "FUNCTION" and str(node.get("function_name", "")).lower() not in _STEADY_FUNCTIONS:
            return False
        if kind not in ("FUNCTION", "CONSTANT", "CAST"):
            return False
    return True


def _micros(value: date) -> int:
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return (value - _EPOCH) // timedelta(microseconds=1)
