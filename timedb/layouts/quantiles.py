"""The label ``quantile`` in its one spelling: the shortest decimal text of a number in (0, 1)."""

from __future__ import annotations

import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.contract.quantiles import canonical_quantile
from timedb.contract.wire import quoted
from timedb.files.cells import Cells
from timedb.layouts.time_columns import plain_texts

__all__ = ["quantile_texts"]


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
