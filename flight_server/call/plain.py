"""Answers for clients that cannot read dictionaries: their texts as they are, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from timedb.contract.columns import decoded

__all__ = ["plain_reader", "plain_schema"]


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """A schema whose columns are of the types that their dictionaries hold."""
    for place, column in enumerate(schema):
        if pa.types.is_dictionary(column.type):
            schema = schema.set(place, column.with_type(column.type.value_type))
    return schema


def plain_reader(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same rows under :func:`plain_schema`, decoded batch by batch."""
    schema = plain_schema(reader.schema)
    return pa.RecordBatchReader.from_batches(schema, _decoded(reader, schema))


def _decoded(reader: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        yield pa.RecordBatch.from_arrays([decoded(column) for column in batch.columns], schema=schema)
