"""Batches kept until they are sent, in memory or, where they are many, in a temporary file."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import pyarrow as pa

from timedb.contract.errors import TooLarge

__all__ = ["Spool", "temporary_files"]

_IN_MEMORY_BYTES = 16 << 20


@contextmanager
def temporary_files() -> Iterator[None]:
    """Where temporary files are written: that there is no room for them says what to do.

    Raises:
        TooLarge: the disk, or its quota, is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TooLarge(
            "temporary files: there is no room for them where TMPDIR says; name a folder with more"
        ) from None


class Spool:
    """Takes batches of one schema, and gives them back as often as it is asked. A context manager."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 # closed by leaving
        self._writer: pa.RecordBatchWriter | None = None
        self.schema: pa.Schema | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Keep one more batch, of the schema of the first."""
        if self._writer is None:
            self.schema = batch.schema
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, mode="w"), batch.schema, options=options)
        self._writer.write_batch(batch)

    def end(self) -> None:
        """Say that no more batches come."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def reader(self) -> pa.RecordBatchReader:
        """A reader of all batches, from the first."""
        self._file.seek(0)
        return pa.ipc.open_stream(pa.PythonFile(self._file, mode="r"))

    def close(self) -> None:
        """Forget the batches, and the file that they are in."""
        self._file.close()
