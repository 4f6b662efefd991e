"""A join with ``series`` says of which series values are needed: those whose own row passes the query's tests.

Which these are is asked before the values are: a filter by name, unit or label opens the files of its series alone.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import duckdb

from .from_clause import Source, column_of, conjuncts, resolved
from .syntax import Node, nodes_of

__all__ = ["SeriesChoice"]

_ID = "series_id"
_MAX_SERIES = 10_000
_JOINED = 2  # of so many tables a bare series_id is that of both
_CLASSES = ("CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR", "BETWEEN")
_VARCHAR = {"id": "VARCHAR", "type_info": None}
_CONSTANT: Node = {"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": 0}


class SeriesChoice:
    """Finds out which series a query is about.

    Args:
        connection: The one that will run the query.
        series: What it calls a table with the rows of ``series``.
        values: The bound parameters.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, series: str, values: Mapping[str, object]) -> None:
        self._connection = connection
        self._series = series
        self._values = values

    def of(self, select: Node, sources: Sequence[Source]) -> Iterator[tuple[Source, list[str]]]:
        """Tables with values, and the ids of the only series whose rows in them can matter.

        Args:
            select: A query.
            sources: What its FROM names.

        Raises:
            duckdb.Error: a test cannot be evaluated; the query may never get to it, but the transaction is over.
        """
        joins = [node for node in nodes_of(select["from_table"]) if node.get("type") == "JOIN"]
        if not joins or any(join.get("join_type") != "INNER" for join in joins):
            return  # of an outer join, rows without a partner count, too
        tests = [test for join in joins for test in conjuncts(join.get("condition"))]
        tests += conjuncts(select.get("where_clause"))
        for one, other in (*_by_using(joins, sources), *_by_tests(tests, sources)):
            for chosen, asked in ((one, other), (other, one)):
                if _is_series(chosen) and not _is_series(asked):
                    about = [found for test in tests if (found := self._about(test, chosen, sources)) is not None]
                    ids = self._ids(chosen, about) if about else None
                    if ids is not None:
                        yield asked, ids

    def _about(self, test: Node, series: Source, sources: Sequence[Source]) -> Node | None:
        """A test of ``series`` alone that says the same of a row each time, with its parameters as constants."""
        test = copy.deepcopy(test)
        columns = 0
        is_shared = sum(each.columns is None or _ID in each.columns for each in sources) == _JOINED
        for node in nodes_of(test):
            if node.get("class") == "PARAMETER":
                value = self._values.get(str(node["identifier"]))
                if not isinstance(value, str):
                    return None
                node.clear()
                node |= _CONSTANT | {"value": {"type": _VARCHAR, "is_null": False, "value": value}}
            kind = node.get("class")
            if column := column_of(node):
                columns += 1
                named_once = is_shared and len(column) == 1 and str(column[0]).lower() == _ID
                if resolved(column, sources) is not series and not named_once:
                    return None
            if kind is not None and (kind not in _CLASSES or (kind == "FUNCTION" and not self._is_steady(node))):
                return None
        return test if columns else None

    def _is_steady(self, node: Node) -> bool:
        said = "SELECT bool_and(stability = 'CONSISTENT') FROM duckdb_functions() WHERE function_name = $1"
        return bool(self._rows(said, str(node.get("function_name", "")).lower())[0][0])

    def _ids(self, series: Source, tests: Sequence[Node]) -> list[str] | None:
        """The series of which all tests hold; None: there are too many to name."""
        alias = '"' + series.alias.replace('"', '""') + '"'
        text = f"SELECT {_ID} FROM {self._series} AS {alias} WHERE true AND true LIMIT {_MAX_SERIES + 1}"
        tree = json.loads(self._rows("SELECT json_serialize_sql($1)", text)[0][0])
        tree["statements"][0]["node"]["where_clause"]["children"][1:] = tests
        sql = self._rows("SELECT json_deserialize_sql($1)", json.dumps(tree))[0][0]
        found = [str(series_id) for (series_id,) in self._rows(sql)]
        return found if len(found) <= _MAX_SERIES else None

    def _rows(self, sql: str, *values: object) -> list[Any]:
        return self._connection.execute(sql, list(values)).fetchall()


def _is_series(source: Source) -> bool:
    return source.columns is not None and str(source.node.get("table_name", "")).lower() == "series"


def _by_tests(tests: Sequence[Node], sources: Sequence[Source]) -> Iterator[tuple[Source, Source]]:
    """Tables whose rows come together by ``a.series_id = b.series_id``."""
    for test in tests:
        if test.get("type") != "COMPARE_EQUAL":
            continue
        sides = [column_of(test["left"]), column_of(test["right"])]
        found = [resolved(side, sources) for side in sides if len(side) == 2 and str(side[1]).lower() == _ID]
        one, other = found if len(found) == 2 else (None, None)
        if one is not None and other is not None:
            yield one, other


def _by_using(joins: Sequence[Node], sources: Sequence[Source]) -> Iterator[tuple[Source, Source]]:
    """Tables whose rows come together by ``USING (series_id)``, where it is certain which are meant."""
    for join in joins:
        if _ID not in (str(name).lower() for name in join.get("using_columns") or ()):
            continue
        below = [{id(node) for node in nodes_of(join[side])} for side in ("left", "right")]
        sides = [[each for each in sources if id(each.node) in ids] for ids in below]
        if all(each.columns is not None for side in sides for each in side):
            having = [[each for each in side if _ID in (each.columns or ())] for side in sides]
            if len(having[0]) == len(having[1]) == 1:
                yield from product(*having)
