"""The label ``quantile`` in its one spelling: the shortest decimal text of a number in (0, 1)."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.files.cells import Cells
from timedb.layouts.time_columns import plain_texts

__all__ = ["canonical_quantile", "quantile_texts"]


def canonical_quantile(text: str) -> str:
    """The shortest decimal text of the number that a text says: ``0.10`` and ``1e-1`` are ``0.1``.

    Raises:
        ValueError: it is no number in (0, 1).
    """
    try:
        number = float(Decimal(text.strip()))
    except (InvalidOperation, ValueError, OverflowError):
        raise ValueError("is not a number in (0, 1)") from None
    if not 0 < number < 1:
        raise ValueError("is not a number in (0, 1), without 0 and 1")
    return format(Decimal(repr(number)), "f")


def quantile_texts(cells: Cells) -> pa.Array:
    """A column of quantiles as labels; null has no label.

    Raises:
        InvalidRequest: a cell is no number in (0, 1).
    """
    kind = cells.column.type
    if pa.types.is_float32(kind):  # by its own shortest text, which is not that of the float64 that it becomes
        texts = [None if each is None else str(each) for each in cells.column.to_numpy(zero_copy_only=False)]
        texts = [None if cells.column[row].as_py() is None else text for row, text in enumerate(texts)]
    else:
        texts = plain_texts(cells.column).to_pylist()
    known: dict[str | None, str | None] = {None: None}
    for row, text in enumerate(texts):
        if text is not None and text not in known:
            try:
                known[text] = canonical_quantile(text)
            except ValueError as error:
                advice = cells.advise("quantile", text)
                raise InvalidRequest(f"{cells.name}: {cells.place(row)}: {quoted(text)} {error}{advice}") from None
    return pa.array([known[text] for text in texts], pa.string())
