"""Corrections as a table, from the first batch to the receipt."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.columns import CORRECTION_COLUMNS, is_text
from timedb.contract.digest import row_words
from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.identity import RevisionKey
from timedb.contract.settings import ServerSettings
from timedb.contract.times import to_micros
from timedb.contract.wire import CorrectCommand, quoted
from timedb.storage.boundary import translating_errors
from timedb.storage.catalog.catalog import Catalog
from timedb.storage.catalog.resolve import resolve
from timedb.storage.memory.budget import Memory, MemoryShare
from timedb.storage.rows.normalise import TIMESTAMP, SeriesCodes, check_batch, check_columns, normalise
from timedb.storage.write.confirmation import check_confirmed
from timedb.storage.write.corrections import ASKED, AskedCorrections

__all__ = ["CorrectionTable"]

_CHANGES = ("value", "annotation", "tags", "retracted")
_TEXTS = ("run_id", "changed_by", "value_id")
_OWN = (*_TEXTS, "retracted")  # columns that uploads do not have
_BESIDE_VALUE_ID = ("changed_by", *_CHANGES)
_SMALL_BYTES = 1 << 20
_COPIES = 8  # the rows as they came, as columns, beside the stored ones, and what is encoded


class CorrectionTable:
    """A batch of corrections on its way in: all of it or nothing.

    Attributes:
        received: Rows so far.

    Args:
        command: What the client said of it.
        schema: Its columns.
        catalog: The series as the caller sees them.
        submit: Has the corrections made.
        settings: Limits.
        changed_by: The key's e-mail; None on an open lake, where a column may state it.
        memory: Of which a large table takes a share.

    Raises:
        InvalidRequest: a column is missing, unknown or of a type that does not fit.
    """

    def __init__(
        self,
        command: CorrectCommand,
        schema: pa.Schema,
        catalog: Catalog,
        submit: Callable[[AskedCorrections], dict[str, Any]],
        settings: ServerSettings,
        changed_by: str | None,
        memory: Memory,
    ) -> None:
        _check_columns(schema)
        self.received = 0
        self._by_value_id = "value_id" in schema.names
        self._sets = [name for name in _CHANGES if name in schema.names]
        self._command = command
        self._catalog = catalog
        self._submit = submit
        self._settings = settings
        self._changed_by = changed_by
        self._memory = memory
        self._share: MemoryShare | None = None
        self._bytes = 0
        self._codes = SeriesCodes()
        self._parts: list[pl.DataFrame] = []

    @translating_errors()
    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next batch.

        Raises:
            InvalidRequest: names the column, row and value at fault.
            TooLarge, Busy: it is over a limit, or there is no memory for it.
        """
        batch = check_batch(batch, self.received)
        self._bytes += batch.nbytes
        if self.received + batch.num_rows > self._settings.max_upload_rows:
            raise TooLarge(f"rows: there are more than {self._settings.max_upload_rows}, the limit of one upload")
        if self._bytes > self._settings.max_upload_bytes:
            raise TooLarge(f"batch: there are over {self._settings.max_upload_bytes} bytes, the limit of one upload")
        if self._bytes > _SMALL_BYTES:
            self._share = self._share or self._memory.share("batch", 0)
            if (more := _COPIES * self._bytes - self._share.size) > 0:
                self._share.grow(more)
        if batch.num_rows:
            self._parts.append(self._part(batch))
        self.received += batch.num_rows

    @translating_errors()
    def commit(self, marked_rows: int | None) -> dict[str, Any]:
        """Make the corrections.

        Args:
            marked_rows: How many rows the client says at the end that it sent; None if it did not.

        Returns:
            The receipt (docs/wire.md): ``rows``, ``updated``, ``created``, ``skipped_no_ops``, and when.

        Raises:
            IncompleteUpload: the client did not confirm what arrived.
            InvalidRequest, NotFound, Conflict: a correction is refused.
        """
        check_confirmed(self.received, marked_rows, self._command.rows)
        rows, units_seen = self._asked()
        update_id = self._command.update_id
        digest = "" if update_id is None else self._digest(rows)
        receipt = self._submit(
            AskedCorrections(rows, update_id, digest, units_seen, self._command.create, as_table=True)
        )
        self.abort()
        return receipt

    def abort(self) -> None:
        """Forget what has arrived."""
        self._parts = []
        if self._share is not None:
            self._share.release()

    def _part(self, batch: pa.RecordBatch) -> pl.DataFrame:
        """A batch as columns, its series as numbers."""
        first = self.received
        texts = {name: _text(batch, name) for name in _TEXTS}
        own = {"retracted": _retracted(batch, first), "changed_by": texts["changed_by"]}
        if self._by_value_id:
            batch, texts["run_id"] = _addressed(batch, texts["value_id"], first)
        plain = normalise(batch.select([name for name in batch.schema.names if name not in _OWN]), self._codes, first)
        columns = {
            **{name: plain.column(name) for name in ("series", "valid_time", "valid_time_end", "known_time", "value")},
            "annotation": plain.column("annotation").cast(pa.string()),
            "tags": plain.column("tags").cast(pa.list_(pa.string())),
            "run_id": texts["run_id"],
            **own,
        }
        return pl.DataFrame(pa.table(columns))

    def _asked(self) -> tuple[pl.DataFrame, int]:
        """All rows, as :data:`ASKED`, and up to which change of a unit their series are known."""
        known = self._catalog.known()
        if not self._parts:
            return pl.DataFrame(schema=ASKED), known.units
        series = [resolve(identity, self._catalog, known, create=False) for identity in self._codes.identities]
        ids = pl.Series("series_id", [one.series_id for one in series], dtype=pl.String)
        rows = pl.concat(self._parts)
        asked = (
            rows.with_columns(
                ids.gather(rows["series"]),
                item=pl.int_range(pl.len()),
                by_value_id=pl.lit(self._by_value_id),
                retracted=pl.when("retracted").then(True),
                changed_by=pl.col("changed_by") if self._changed_by is None else pl.lit(self._changed_by),
                **{f"sets_{name}": pl.lit(name in self._sets) for name in _CHANGES},
            )
            .select(ASKED.names())
            .cast(ASKED)
        )
        return asked, known.units

    def _digest(self, rows: pl.DataFrame) -> str:
        """Of what is asked for in its order: of two corrections of a row the last one counts."""
        said = rows.select(pl.exclude("item", "by_value_id", *(f"sets_{name}" for name in _CHANGES)))
        words = row_words(said.to_arrow(compat_level=pl.CompatLevel.oldest()).columns) if rows.height else np.zeros(0)
        fields = self._command.create, self._by_value_id, self._sets
        return hashlib.blake2b(repr(fields).encode() + words.tobytes(), digest_size=16).hexdigest()


def _check_columns(schema: pa.Schema) -> None:
    """Refuse a table by its schema alone.

    Raises:
        InvalidRequest: names the column.
    """
    names = schema.names
    for name in names:
        if name not in CORRECTION_COLUMNS:
            raise InvalidRequest(f"{quoted(name)[1:-1]}: unknown column; there are {', '.join(CORRECTION_COLUMNS)}")
    for column in schema:
        if column.name in _TEXTS and not (is_text(column.type) or pa.types.is_null(column.type)):
            raise InvalidRequest(f"{column.name}: {column.type} is not text")
        if column.name == "retracted" and not (pa.types.is_boolean(column.type) or pa.types.is_null(column.type)):
            raise InvalidRequest(f"retracted: {column.type} is not true or false")
    if not any(name in names for name in _CHANGES):
        raise InvalidRequest(f"value: no column says what becomes of the rows; there are {', '.join(_CHANGES)}")
    if "value_id" in names:
        if others := [name for name in names if name not in ("value_id", *_BESIDE_VALUE_ID)]:
            raise InvalidRequest(f"value_id: already says which row; leave out {', '.join(others)}")
        schema = schema.append(pa.field("series_id", pa.string())).append(pa.field("valid_time", TIMESTAMP))
    others = [column for column in schema if column.name not in _OWN]
    check_columns(pa.schema(others), required=("valid_time",))
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"{name}: the column is there twice")


def _text(batch: pa.RecordBatch, name: str) -> pa.Array:
    index = batch.schema.get_field_index(name)
    return pa.nulls(batch.num_rows, pa.string()) if index < 0 else batch.column(index).cast(pa.string())


def _retracted(batch: pa.RecordBatch, first_row: int) -> pa.Array:
    index = batch.schema.get_field_index("retracted")
    if index < 0:
        return pa.nulls(batch.num_rows, pa.bool_())
    column = batch.column(index)
    if column.null_count:
        row = first_row + pc.index(pc.is_null(column), True).as_py()
        raise InvalidRequest(f"retracted: row {row} is null, which is neither true nor false")
    return column


def _addressed(batch: pa.RecordBatch, value_ids: pa.Array, first_row: int) -> tuple[pa.RecordBatch, pa.Array]:
    """A batch whose rows are named by value_id as one with the columns that these stand for, and their runs."""
    keys = []
    for row, text in enumerate(value_ids.to_pylist(), first_row):
        try:
            keys.append(RevisionKey.from_value_id(text or ""))
        except ValueError as error:
            raise InvalidRequest(f"value_id: row {row}: {quoted(text)} {error}") from None
    times = {
        name: pa.array([None if (time := getattr(key, name)) is None else to_micros(time) for key in keys], pa.int64())
        for name in ("valid_time", "valid_time_end", "known_time")
    }
    columns = {
        **{name: batch.column(name) for name in batch.schema.names if name not in _OWN},
        "series_id": pa.array([key.series_id for key in keys], pa.string()),
        **{name: column.cast(TIMESTAMP) for name, column in times.items()},
    }
    return pa.RecordBatch.from_pydict(columns), pa.array([key.run_id for key in keys], pa.string())
