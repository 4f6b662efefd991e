"""Of what type the parameters of a query are, as far as it tells."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from .syntax import Node, Query, nodes_of

__all__ = ["parameter_schema"]

_COMPARED = {"COMPARISON": ("left", "right"), "BETWEEN": ("input", "lower", "upper")}


def parameter_schema(query: Query, tables: Mapping[str, pa.Schema]) -> pa.Schema:
    """The parameters in their order. One that is compared with a column is of its type, any other is text."""
    types = {column.name: column.type for name in query.names for column in tables[name]}
    found: dict[str, pa.DataType] = {}
    for node in nodes_of(query.tree):
        if node.get("class") in _COMPARED:
            parts = [node[key] for key in _COMPARED[node["class"]] if isinstance(node.get(key), dict)]
        elif node.get("type") in ("COMPARE_IN", "COMPARE_NOT_IN"):
            parts = node["children"]
        else:
            continue
        columns = [str(part["column_names"][-1]).lower() for part in parts if part.get("class") == "COLUMN_REF"]
        kinds = [_plain(types[column]) for column in columns if column in types]
        for part in parts:
            if part.get("class") == "PARAMETER" and kinds:
                found.setdefault(str(part["identifier"]), kinds[0])
    found.update({name: pa.int64() for name in _limits(query.tree)})
    return pa.schema([(name, found.get(name, pa.string())) for name in query.parameters])


def _limits(tree: Node) -> list[str]:
    sides = [
        node.get(key) for node in nodes_of(tree) if node.get("type") == "LIMIT_MODIFIER" for key in ("limit", "offset")
    ]
    return [str(side["identifier"]) for side in sides if isinstance(side, dict) and side.get("class") == "PARAMETER"]


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
