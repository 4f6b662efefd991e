"""Labels of rows as a column: JSON text, or what data frames have for it, structs and maps, as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.columns import decoded, is_text
from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted

__all__ = ["check_label_type", "label_texts", "labels_of_columns", "with_label_texts"]


def check_label_type(kind: pa.DataType) -> None:
    """Refuse a column of labels by its type.

    Raises:
        InvalidRequest: it is neither text nor a struct or a map of texts; names the field.
    """
    if is_text(kind) or pa.types.is_null(kind):
        return
    if pa.types.is_map(kind):
        if not (is_text(kind.key_type) and _is_label(kind.item_type)):
            raise InvalidRequest(f"labels: {kind} is not a map of texts to texts")
    elif pa.types.is_struct(kind):
        for field in kind:
            if not _is_label(field.type):
                raise InvalidRequest(
                    f"labels: its field {quoted(field.name)} is {field.type}, and labels are texts; cast it"
                )
            if kind.get_all_field_indices(field.name)[1:]:
                raise InvalidRequest(f"labels: its field {quoted(field.name)} is there twice")
    else:
        raise InvalidRequest(f"labels: {kind} is not text (a JSON object), a struct of texts or a map of texts")


def _is_label(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_null(kind)


def label_texts(column: pa.Array, first_row: int = 0) -> pa.Array:
    """A column of labels as JSON text: a label that is null is one that the row has not.

    Args:
        column: Text, structs or maps.
        first_row: Rows before it, for error texts.

    Raises:
        InvalidRequest: it is none of these, or a map says a label twice; names the row.
    """
    check_label_type(column.type)
    if pa.types.is_struct(column.type):
        fields = [field.name for field in column.type]
        texts = labels_of_columns(dict(zip(fields, column.flatten(), strict=True)), {}, len(column))
        return pc.if_else(column.is_valid(), texts.dictionary_decode(), None) if column.null_count else texts
    if pa.types.is_map(column.type):
        made: list[str | None] = []
        for row, pairs in enumerate(column.to_pylist()):
            labels = {key: text for key, text in pairs or () if text is not None}
            if pairs is not None and len(dict(pairs)) < len(pairs):
                raise InvalidRequest(f"labels: row {first_row + row} says a label twice: {quoted(str(pairs))}")
            made.append(None if pairs is None else _json(labels))
        return pa.array(made, pa.string()).dictionary_encode()
    return column


def with_label_texts(batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
    """The batch with its labels, if it has some, as :func:`label_texts`."""
    place = batch.schema.get_field_index("labels")
    if place < 0 or not pa.types.is_nested(batch.schema.field(place).type):
        return batch
    return batch.set_column(place, "labels", label_texts(batch.column(place), first_row))


def labels_of_columns(columns: Mapping[str, pa.Array], fixed: Mapping[str, str], rows: int) -> pa.Array:
    """Labels of each row as JSON text.

    Args:
        columns: Label → its texts; null: the row has it not.
        fixed: Labels that all rows have.
        rows: How many there are.
    """
    texts = {label: decoded(column).cast(pa.string()).to_pylist() for label, column in columns.items()}
    made: dict[tuple[str | None, ...], str] = {}
    answer: list[str] = []
    for values in zip(*texts.values(), strict=True) if texts else [()] * rows:
        if values not in made:
            given = {label: value for label, value in zip(texts, values, strict=True) if value is not None}
            made[values] = _json({**given, **fixed})
        answer.append(made[values])
    return pa.array(answer, pa.string()).dictionary_encode()


def _json(labels: Mapping[str, str]) -> str:
    return json.dumps(labels, ensure_ascii=False, sort_keys=True)
