"""Arrow streams and schemas that travel in pieces."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

__all__ = ["open_pieces", "pieces_of", "schema_from_text", "schema_to_text"]


def pieces_of(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """The Arrow stream of some batches: a piece for each of them, and its end."""
    buffer = io.BytesIO()

    def taken() -> bytes:
        data = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return data

    with pa.ipc.new_stream(buffer, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield taken()
    yield taken()


def open_pieces(more: Callable[[], bytes | bytearray]) -> pa.RecordBatchReader:
    """Read an Arrow stream that comes in pieces; ``more`` gives the next, none at the end, and may raise."""
    return pa.ipc.open_stream(pa.PythonFile(_Pieces(more), "r"))


def schema_to_text(schema: pa.Schema) -> str:
    """A schema for JSON."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def schema_from_text(text: str) -> pa.Schema:
    """The schema that :func:`schema_to_text` was given."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


class _Pieces(io.RawIOBase):
    """Pieces as one file."""

    def __init__(self, more: Callable[[], bytes | bytearray]) -> None:
        self._more = more
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer only at the end."""
        found: list[memoryview] = []
        wanted = size if size >= 0 else sys.maxsize
        while wanted:
            if not len(self._rest):
                self._rest = memoryview(self._more())
                if not len(self._rest):
                    break
            found.append(self._rest[:wanted])
            self._rest = self._rest[len(found[-1]) :]
            wanted -= len(found[-1])
        return b"".join(found)
