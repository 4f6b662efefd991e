"""A query as DuckDB parses it: one SELECT over the tables that there are, and nothing that leads out of them.

DuckDB gives the tree of a query as JSON. What is not known to be harmless is refused before the query is even bound:
functions that take addresses of memory or raw bytes of a state, settings, files, other databases. DuckDB's own locks
(no files, no changes of settings) hold all the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import duckdb

from .query_error import QueryError

__all__ = ["CATALOG", "SCHEMA", "Node", "Query", "nodes_of", "parse"]

Node = dict[str, Any]

CATALOG = "timedb"
SCHEMA = "main"

_TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "json_each", "json_tree"}
_REFUSED_FUNCTIONS = {
    "add_parquet_key",
    "combine",
    "current_connection_id",
    "current_query",
    "current_query_id",
    "current_setting",
    "current_transaction_id",
    "currval",
    "finalize",
    "get_block_size",
    "getvariable",
    "json_deserialize_sql",
    "json_execute_serialized_sql",
    "json_serialize_plan",
    "json_serialize_sql",
    "make_type",
    "nextval",
    "parse_duckdb_log_message",
    "pg_sleep",
    "replace_type",
    "setseed",
    "sleep_ms",
    "txid_current",
    "variant_bytes_to_variant",
    "variant_normalize",
    "variant_to_parquet_variant",
    "write_log",
}
_REFUSED_TYPES = {"POINTER", "AGGREGATE_STATE", "LEGACY_AGGREGATE_STATE", "LAMBDA", "TYPE"}
_SHOW_TABLES = '"tables"'


class Query:
    """A query that may be run.

    Attributes:
        tree: Its tree.
        text: The query without what follows its end.
        tables: The nodes that name tables of ours; of those that a ``WITH`` redefines, all uses of the name.
        shadowed: Names of tables that a ``WITH`` redefines.
        parameters: Names of its parameters, in order: ``1``, ``2`` … for ``?``.
    """

    def __init__(self, tree: Node, text: str, tables: list[Node], shadowed: set[str], parameters: list[str]) -> None:
        self.tree = tree
        self.text = text
        self.tables = tables
        self.shadowed = shadowed
        self.parameters = parameters

    @property
    def shows(self) -> bool:
        """Whether it is DESCRIBE, SUMMARIZE or SHOW."""
        source = self.tree["statements"][0]["node"].get("from_table") or {}
        return bool(source.get("type") == "SHOW_REF")

    @property
    def runnable(self) -> str:
        """The text to run: DuckDB's own ``SHOW TABLES`` also shows what is none of ours."""
        source = self.tree["statements"][0]["node"].get("from_table") or {}
        listing = source.get("type") == "SHOW_REF" and source.get("table_name") == _SHOW_TABLES
        return f"SHOW TABLES FROM {CATALOG}.{SCHEMA}" if listing else self.text

    @property
    def names(self) -> set[str]:
        """The tables that it may read."""
        return {node["table_name"].lower() for node in self.tables}


def parse(connection: duckdb.DuckDBPyConnection, text: str, names: Collection[str]) -> Query:
    """Parse and examine a query.

    Args:
        connection: Any.
        text: SQL.
        names: The tables that there are, in lower case.

    Raises:
        QueryError: it is empty, several, no query, or uses what is not offered.
        duckdb.Error: it is no SQL.
    """
    statements = connection.extract_statements(text)
    if not statements:
        raise QueryError("invalid_request", "query: is empty")
    kinds = [statement.type.name for statement in statements]
    if any(kind != "SELECT" for kind in kinds):
        other = next(kind for kind in kinds if kind != "SELECT")
        raise QueryError("unimplemented", f"query: {other} is not offered: the tables can be read, with SELECT")
    if len(statements) > 1:
        raise QueryError("unimplemented", "query: several statements at once are not offered")
    row = connection.execute("SELECT json_serialize_sql($1)", [text]).fetchone()
    tree: Node = json.loads(row[0] if row else "{}")
    if tree.get("error", True):
        raise QueryError("unimplemented", f"query: {tree.get('error_message', 'this form of it')} is not offered")
    tables = []
    redefined: set[str] = set()
    for node, ctes in _in_scope(tree):
        _refuse_unknown(node)
        redefined |= ctes
        if node.get("type") == "BASE_TABLE":
            if _is_ours(node, names):
                tables.append(node)
            elif not _is_cte(node, ctes):
                known = ", ".join(sorted(names))
                raise QueryError("not_found", f"query: there is no table {_full_name(node)!r}; there are {known}")
    return Query(tree, statements[0].query.strip().rstrip(";"), tables, redefined & set(names), _parameters(tree))


def nodes_of(tree: object) -> Iterator[Node]:
    """All objects in a tree, from the top."""
    waiting = [tree]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)


def _in_scope(tree: object) -> Iterator[tuple[Node, frozenset[str]]]:
    """All objects in a tree, each with the names of the CTEs that it can see: those of the queries around it.

    A CTE sees the ones before it in its ``WITH``, and the recursive half of a recursive one itself: a name that is not
    in sight stands for a table, which may be one of DuckDB's own catalog.
    """
    waiting: list[tuple[object, frozenset[str]]] = [(tree, frozenset())]
    while waiting:
        found, ctes = waiting.pop()
        if isinstance(found, list):
            waiting.extend((each, ctes) for each in found)
        if not isinstance(found, dict):
            continue
        inner = ctes
        for entry in (found.get("cte_map") or {}).get("map") or []:
            waiting.append((entry["value"], inner))
            inner |= {entry["key"].lower()}
        yield found, inner
        own = {found["cte_name"].lower()} if found.get("type") == "RECURSIVE_CTE_NODE" else set()
        for name, child in found.items():
            if name != "cte_map":
                waiting.append((child, inner | own if name == "right" else inner))


def _is_ours(node: Node, names: Collection[str]) -> bool:
    return (
        node["table_name"].lower() in names
        and (node.get("catalog_name") or CATALOG).lower() == CATALOG
        and (node.get("schema_name") or SCHEMA).lower() in (SCHEMA, CATALOG)
    )


def _is_cte(node: Node, ctes: Collection[str]) -> bool:
    return not node.get("catalog_name") and not node.get("schema_name") and node["table_name"].lower() in ctes


def _full_name(node: Node) -> str:
    parts = (node.get("catalog_name"), node.get("schema_name"), node["table_name"])
    return ".".join(part for part in parts if part)[:100]


def _refuse_unknown(node: Node) -> None:
    kind = node.get("type")
    if kind == "TABLE_FUNCTION" and node["function"].get("function_name", "").lower() not in _TABLE_FUNCTIONS:
        raise QueryError("unimplemented", f"query: the table function {_name(node['function'])} is not offered")
    if kind == "BASE_TABLE" and node.get("at_clause"):
        raise QueryError("unimplemented", "query: AT is not offered; known_time and change_time are columns")
    if kind == "SHOW_REF" and not node.get("query") and node.get("table_name") != _SHOW_TABLES:
        raise QueryError("unimplemented", "query: SHOW is not offered but for SHOW TABLES and DESCRIBE")
    if node.get("class") in ("FUNCTION", "WINDOW"):
        name = str(node.get("function_name", "")).lower()
        foreign = (node.get("schema") or SCHEMA).lower() != SCHEMA or (node.get("catalog") or "system") != "system"
        if name in _REFUSED_FUNCTIONS or name.startswith("__") or foreign or node.get("export_state"):
            raise QueryError("unimplemented", f"query: the function {_name(node)} is not offered")
    if "type_info" in node or "id" in node:
        named = {str(node.get("id", "")).upper(), str((node.get("type_info") or {}).get("name", "")).upper()}
        if named & _REFUSED_TYPES:
            raise QueryError("unimplemented", f"query: the type {(named & _REFUSED_TYPES).pop()} is not offered")


def _name(node: Node) -> str:
    return repr(str(node.get("function_name", ""))[:100])


def _parameters(tree: Node) -> list[str]:
    found = {str(node["identifier"]) for node in nodes_of(tree) if node.get("class") == "PARAMETER"}
    return sorted(found, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
