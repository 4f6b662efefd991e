"""What stands in the FROM and WHERE of a query, as DuckDB serialises it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .syntax import Node, Query

__all__ = ["Source", "column_of", "conjuncts", "resolved", "sources_of"]


@dataclass(frozen=True)
class Source:
    """One item of a FROM clause; ``columns`` is None where nobody knows them."""

    node: Node
    columns: Sequence[str] | None

    @property
    def alias(self) -> str:
        """What the query calls it."""
        return str(self.node.get("alias") or self.node.get("table_name") or "").lower()


def sources_of(table: Node | None, query: Query, tables: Mapping[str, Sequence[str]]) -> list[Source] | None:
    """The items of a FROM clause; None where a filter after it is no filter before it."""
    found: list[Source] = []
    waiting = [table]
    ours = {id(node) for node in query.tables}
    while waiting:
        node = waiting.pop()
        if node is None or node.get("sample"):
            return None
        if node.get("type") == "JOIN":
            if node.get("ref_type") not in ("REGULAR", "CROSS", "NATURAL") or node.get("join_type") in ("SEMI", "ANTI"):
                return None
            waiting += [node.get("left"), node.get("right")]
        elif id(node) in ours and not node.get("column_name_alias"):
            name = node["table_name"].lower()
            found.append(Source(node, None if name in query.shadowed else tables[name]))
        else:
            found.append(Source(node, None))
    return found


def resolved(column: Sequence[object], sources: Sequence[Source]) -> Source | None:
    """The table of ours that a column is of, if that is certain."""
    parts = [str(part).lower() for part in column]
    if len(parts) == 2:
        named = [source for source in sources if source.alias == parts[0]]
        return named[0] if len(named) == 1 and parts[1] in (named[0].columns or ()) else None
    if len(parts) != 1 or any(source.columns is None for source in sources):
        return None
    having = [source for source in sources if parts[0] in (source.columns or ())]
    return having[0] if len(having) == 1 else None


def conjuncts(test: Node | None) -> list[Node]:
    """The tests that a test is made of, all of which have to hold; None: there is none."""
    if test is None:
        return []
    if test.get("type") != "CONJUNCTION_AND":
        return [test]
    return [part for child in test["children"] for part in conjuncts(child)]


def column_of(node: Node) -> Sequence[object]:
    """The parts of a column's name; none: it is no column."""
    return node["column_names"] if node.get("class") == "COLUMN_REF" else ()
