"""Where the rows of a long file stand in it, kept in a temporary file."""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import Self

import numpy as np

from timedb.files.pieces import Piece

__all__ = ["Places"]

_IN_MEMORY_BYTES = 1 << 20
_BYTES = 8


class Places:
    """Takes pieces in the order of their rows, and tells what an error calls a row. A context manager."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 # closed by leaving
        self._unit = "row"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, piece: Piece) -> None:
        """Note where the rows of one more piece stand."""
        self._unit = piece.unit
        self._file.write(piece.numbers().astype("<i8").tobytes())

    def of(self, row: int) -> str:
        """What an error calls the row that was the so manieth, from 0, such as ``line 7``."""
        self._file.seek(row * _BYTES)
        return f"{self._unit} {np.frombuffer(self._file.read(_BYTES), dtype='<i8')[0]}"
