"""The answer of a read while it arrives, and what is written while it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Self

import pyarrow as pa
from pyarrow import flight

from timedb.client.flight_errors import flight_errors
from timedb.contract.columns import META_HEARTBEAT
from timedb.contract.errors import Internal

__all__ = ["ReadStream", "TokenStream"]


class ReadStream:
    """Record batches of a read, one after the other, as the server sends them.

    It iterates over ``pa.RecordBatch``, once. Errors while it runs are subclasses of
    :class:`~timedb.contract.errors.TimeDBError`. That is why it is no ``pa.RecordBatchReader``: one that hands its
    batches to another library wraps them in Arrow errors, and closing one does not end the call. It is itself Arrow
    data (``__arrow_c_stream__``), so Polars, DuckDB and pyarrow take it as it is; :meth:`to_reader` makes a reader for
    whoever asks for one.

    One thread reads; :meth:`close` may be called from another. Leaving a ``with`` block, or dropping the object,
    ends the call.

    Attributes:
        schema: The columns; its metadata holds ``table_version``, ``as_of`` and, under a limit, ``cursor``.
    """

    def __init__(self, reader: flight.FlightStreamReader, url: str) -> None:
        self._reader = reader
        self._url = url
        with flight_errors(url):
            self.schema: pa.Schema = reader.schema

    def __enter__(self) -> ReadStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        while True:
            with flight_errors(self._url):
                batch = self._reader.read_chunk().data
            if batch is not None:  # else it is metadata alone
                return batch

    def read_next_batch(self) -> pa.RecordBatch:
        """The next batch.

        Raises:
            StopIteration: there is none.
        """
        return next(self)

    def read_all(self) -> pa.Table:
        """All batches that are still to come, as one table."""
        with flight_errors(self._url):
            return self._reader.read_all()

    def to_reader(self) -> pa.RecordBatchReader:
        """A ``RecordBatchReader`` over the batches; pulled from Python its errors keep their class."""
        return pa.RecordBatchReader.from_batches(self.schema, iter(self))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def close(self) -> None:
        """End the call, also in the middle; a second time does nothing."""
        self._reader.cancel()


class TokenStream:
    """Record batches of ``follow``, each with the token of what comes after it; one without rows says just that.

    It iterates over ``(pa.RecordBatch, str)``, once. One thread reads; :meth:`close` may be called from another.

    Attributes:
        schema: The columns.
        heartbeat_seconds: After how long without rows the server says so.
    """

    def __init__(self, reader: flight.FlightStreamReader, url: str) -> None:
        self._reader = reader
        self._url = url
        with flight_errors(url):
            self.schema: pa.Schema = reader.schema
        said = (self.schema.metadata or {}).get(META_HEARTBEAT)
        if said is None:
            raise Internal(f"the Flight server at {url} does not say how often followers hear from it")
        self.heartbeat_seconds = float(said)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[pa.RecordBatch, str]:
        with flight_errors(self._url):
            chunk = self._reader.read_chunk()
        try:
            token = json.loads(chunk.app_metadata.to_pybytes())["token"]
        except (AttributeError, ValueError, KeyError, TypeError):
            raise Internal(f"the Flight server at {self._url} sent rows without a token") from None
        return chunk.data, str(token)

    def close(self) -> None:
        """End the call, also in the middle; a second time does nothing."""
        self._reader.cancel()
