"""The columns ``quantile`` and ``member`` of an upload, which are labels of the series that its rows name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from timedb.contract.columns import is_text
from timedb.contract.errors import InvalidRequest
from timedb.contract.quantiles import MEMBER, PROBABILITY_COLUMNS, QUANTILE, canonical_quantile
from timedb.contract.wire import quoted

__all__ = ["with_labels", "without_them"]


def without_them(schema: pa.Schema) -> pa.Schema:
    """The other columns of a stream, once these are known to fit.

    Raises:
        InvalidRequest: their type does not fit, both are there, or no ``series_key``.
    """
    found = [name for name in PROBABILITY_COLUMNS if name in schema.names]
    if not found:
        return schema
    if len(found) > 1:
        raise InvalidRequest("member: stands beside quantile; a series is one quantile or one member, not both")
    if "series_key" not in schema.names:
        raise InvalidRequest(f"{found[0]}: the column stands beside series_key, which is missing")
    kind = schema.field(found[0]).type
    if found == [QUANTILE]:
        fits, wanted = pa.types.is_float64(kind) or pa.types.is_float32(kind), "a float"
    else:
        fits, wanted = is_text(kind) or pa.types.is_integer(kind), "text or a whole number"
    if not fits and not pa.types.is_null(kind):
        raise InvalidRequest(f"{found[0]}: {kind} is not {wanted}")
    return schema.remove(schema.get_field_index(found[0]))


def with_labels(batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
    """The batch with these columns as labels, beside those that it has; null is no label.

    Args:
        batch: Its schema has passed :func:`without_them`.
        first_row: Rows of the upload before this batch, for error texts.

    Raises:
        InvalidRequest: a quantile is not in (0, 1), or a label says another thing than the column.
    """
    name = next((each for each in PROBABILITY_COLUMNS if each in batch.schema.names), None)
    if name is None:
        return batch
    values = _encoded(batch.column(name))
    labels = _encoded(batch.column("labels")) if "labels" in batch.schema.names else _encoded(pa.nulls(len(batch)))
    pairs = values.indices.to_numpy().astype(np.int64) * (len(labels.dictionary) + 1) + labels.indices.to_numpy()
    _, first, which = np.unique(pairs, return_index=True, return_inverse=True)
    texts = []
    for place in map(int, first):
        value = _label(name, values.dictionary[values.indices[place].as_py()], first_row + place)
        texts.append(_merged(labels[place].as_py(), name, value, first_row + place))
    merged = pa.DictionaryArray.from_arrays(pa.array(which.reshape(-1).astype(np.int32)), pa.array(texts, pa.string()))
    columns = {each: batch.column(each) for each in batch.schema.names if each not in (name, "labels")}
    return pa.RecordBatch.from_pydict({**columns, "labels": merged})


def _encoded(column: pa.Array) -> pa.DictionaryArray:
    """A column over the distinct values that it has, null one of them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.dictionary_encode(null_encoding="encode")


def _label(name: str, value: pa.Scalar, row: int) -> str | None:
    if value.as_py() is None:
        return None
    if name == MEMBER:
        return str(value.as_py())
    # A float32 by its own shortest text, which is not that of the float64 that it would become.
    text = str(np.float32(value.as_py()) if pa.types.is_float32(value.type) else value.as_py())
    try:
        return canonical_quantile(text)
    except ValueError as error:
        raise InvalidRequest(f"{QUANTILE}: row {row}: {text} {error}") from None


def _merged(labels: str | None, name: str, value: str | None, row: int) -> str | None:
    if value is None:
        return labels
    found: Any = {}
    if labels is not None:
        try:
            found = json.loads(labels)
        except ValueError:
            return labels  # whoever reads it says what is wrong
        if not isinstance(found, dict):
            return labels
    if found.get(name, value) != value:
        raise InvalidRequest(
            f"{name}: row {row}: the column says {quoted(value)}, the label {quoted(str(found[name]))}; say one thing"
        )
    return json.dumps({**found, name: value})
