"""What the service says of itself and of its types."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa

from timedb._version import __version__

__all__ = ["sql_info", "type_info"]

_CASE_INSENSITIVE = 1
_NULLS_AT_END = 3
_NO_TRANSACTIONS = 0

_VALUE = pa.dense_union(
    [
        pa.field("string_value", pa.string()),
        pa.field("bool_value", pa.bool_()),
        pa.field("bigint_value", pa.int64()),
        pa.field("int32_bitmask", pa.int32()),
        pa.field("string_list", pa.list_(pa.field("string_data", pa.string()))),
        pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.field("$data$", pa.int32())))),
    ]
)
_TEXT, _FLAG, _NUMBER, _SMALL, _TEXTS = range(5)

# Numbers and meanings are those of the enumeration SqlInfo in FlightSql.proto.
_FACTS: dict[int, tuple[int, Any]] = {
    0: (_TEXT, "TimeDB"),
    1: (_TEXT, __version__),
    2: (_TEXT, pa.__version__),
    3: (_FLAG, True),  # read-only: no statement writes
    4: (_FLAG, True),  # SQL
    5: (_FLAG, False),  # Substrait
    8: (_SMALL, _NO_TRANSACTIONS),
    9: (_FLAG, True),  # CancelQuery
    10: (_FLAG, True),  # bulk ingestion, into values
    11: (_FLAG, False),
    100: (_SMALL, 0),  # handles of statements never time out
    101: (_SMALL, 0),
    500: (_FLAG, False),
    501: (_FLAG, False),
    502: (_FLAG, False),
    503: (_SMALL, _CASE_INSENSITIVE),
    504: (_TEXT, '"'),
    505: (_SMALL, _CASE_INSENSITIVE),
    506: (_FLAG, True),  # all tables can be read
    507: (_SMALL, _NULLS_AT_END),
    508: (_TEXTS, ["QUALIFY", "ASOF", "SEMI", "ANTI", "SUMMARIZE"]),
    513: (_TEXT, "\\"),
    514: (_TEXT, ""),
    515: (_FLAG, True),  # column aliases
    516: (_FLAG, True),  # null + null is null
    518: (_FLAG, True),
    519: (_FLAG, False),
    520: (_FLAG, True),  # expressions in ORDER BY
    521: (_FLAG, True),
    522: (_SMALL, 3),
    523: (_FLAG, True),  # LIKE … ESCAPE
    524: (_FLAG, False),
    525: (_SMALL, 7),
    526: (_SMALL, 1),
    528: (_SMALL, 2),  # full outer joins
    529: (_TEXT, "schema"),
    531: (_TEXT, "catalog"),
    532: (_FLAG, True),
    536: (_FLAG, False),
    537: (_FLAG, False),
    538: (_SMALL, 15),  # subqueries of all kinds
    539: (_FLAG, True),
    540: (_SMALL, 3),  # UNION and UNION ALL
    563: (_FLAG, False),
    572: (_FLAG, False),
    573: (_FLAG, False),
    574: (_FLAG, True),  # named parameters
}

_TYPE_INFO = pa.schema(
    [
        pa.field("type_name", pa.string(), nullable=False),
        pa.field("data_type", pa.int32(), nullable=False),
        pa.field("column_size", pa.int32()),
        pa.field("literal_prefix", pa.string()),
        pa.field("literal_suffix", pa.string()),
        pa.field("create_params", pa.list_(pa.field("item", pa.string(), nullable=False))),
        pa.field("nullable", pa.int32(), nullable=False),
        pa.field("case_sensitive", pa.bool_(), nullable=False),
        pa.field("searchable", pa.int32(), nullable=False),
        pa.field("unsigned_attribute", pa.bool_()),
        pa.field("fixed_prec_scale", pa.bool_(), nullable=False),
        pa.field("auto_increment", pa.bool_()),
        pa.field("local_type_name", pa.string()),
        pa.field("minimum_scale", pa.int32()),
        pa.field("maximum_scale", pa.int32()),
        pa.field("sql_data_type", pa.int32(), nullable=False),
        pa.field("datetime_subcode", pa.int32()),
        pa.field("num_prec_radix", pa.int32()),
        pa.field("interval_precision", pa.int32()),
    ]
)
_ANY_TYPE = {"nullable": 1, "case_sensitive": False, "searchable": 3, "fixed_prec_scale": False}
_TYPES: tuple[dict[str, Any], ...] = (
    {"type_name": "BOOLEAN", "data_type": -7, "sql_data_type": -7, "column_size": 1},
    {"type_name": "BIGINT", "data_type": -5, "sql_data_type": -5, "column_size": 19, "num_prec_radix": 10}
    | {"unsigned_attribute": False, "auto_increment": False, "minimum_scale": 0, "maximum_scale": 0},
    {"type_name": "DOUBLE", "data_type": 8, "sql_data_type": 8, "column_size": 53, "num_prec_radix": 2}
    | {"unsigned_attribute": False, "auto_increment": False},
    {"type_name": "VARCHAR", "data_type": 12, "sql_data_type": 12, "case_sensitive": True}
    | {"literal_prefix": "'", "literal_suffix": "'"},
    {"type_name": "TIMESTAMP WITH TIME ZONE", "data_type": 93, "sql_data_type": 9, "datetime_subcode": 5}
    | {"column_size": 32, "literal_prefix": "'", "literal_suffix": "'", "minimum_scale": 6, "maximum_scale": 6},
)


def sql_info(wanted: Collection[int]) -> pa.Table:
    """What is known of the features asked for, or of all."""
    numbers = sorted(number for number in _FACTS if not wanted or number in wanted)
    children: list[list[Any]] = [[] for _ in range(_VALUE.num_fields)]
    offsets = []
    for number in numbers:
        kind, value = _FACTS[number]
        offsets.append(len(children[kind]))
        children[kind].append(value)
    values = pa.UnionArray.from_dense(
        pa.array([_FACTS[number][0] for number in numbers], pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(child, _VALUE.field(place).type) for place, child in enumerate(children)],
        [_VALUE.field(place).name for place in range(_VALUE.num_fields)],
    )
    schema = pa.schema([pa.field("info_name", pa.uint32(), nullable=False), pa.field("value", values.type)])
    return pa.table([pa.array(numbers, pa.uint32()), values], schema=schema)


def type_info(data_type: int | None) -> pa.Table:
    """The types of the columns of our tables, or those of one XDBC number."""
    rows = [_ANY_TYPE | {"local_type_name": row["type_name"]} | row for row in _TYPES]
    return pa.Table.from_pylist([row for row in rows if data_type in (None, row["data_type"])], schema=_TYPE_INFO)
