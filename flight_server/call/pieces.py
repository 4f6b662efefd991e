"""Answers in messages that a client takes.

Most gRPC libraries refuse a message of more than 4 MiB, and to the client that looks as if the call had failed. So none
is longer, unless the caller asks for more with the header ``x-max-message-bytes``: batches are cut, long lists of JSON
answers travel in several objects, and what cannot be cut is refused with an error that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import flight

from timedb.contract.errors import TooLarge
from timedb.contract.message_sizes import MESSAGE_BYTES_HEADER
from timedb.flight_server.call.messages import to_json

__all__ = ["answers_of", "batches_that_fit", "check_fits", "fits", "info_that_fits", "pieces_of"]

_ENVELOPE_BYTES = 1024  # what Flight and gRPC put around a body
_ITEMS_AT_ONCE = 10_000


def batches_that_fit(batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """A batch in pieces, none of whose messages is over the limit; as it is where it fits.

    A dictionary is a message of its own: where it is too long, each piece gets the entries that its rows use.

    Raises:
        TooLarge: a single row does not fit.
    """
    if fits(batch.nbytes, most):
        yield batch
        return
    if not all(fits(_dictionary_bytes(column), most) for column in batch.columns):
        columns = [_trimmed(column) for column in batch.columns]
        batch = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
    longest = max(pa.ipc.get_record_batch_size(batch), *map(_dictionary_bytes, batch.columns))
    if fits(longest, most):
        yield batch
    elif batch.num_rows <= 1:
        raise TooLarge(
            f"row: one row of the answer takes {longest} bytes, more than the {most} of a message; leave out a column, "
            f"or say with the header {MESSAGE_BYTES_HEADER} that the client takes larger messages"
        )
    else:
        rows = max(1, batch.num_rows * most // (longest + most // 8))
        for start in range(0, batch.num_rows, min(rows, batch.num_rows - 1)):
            yield from batches_that_fit(batch.slice(start, min(rows, batch.num_rows - 1)), most)


def _dictionary_bytes(column: pa.Array) -> int:
    return int(column.dictionary.nbytes) if pa.types.is_dictionary(column.type) else 0


def _trimmed(column: pa.Array) -> pa.Array:
    """The same texts over a dictionary of those that are there."""
    if not pa.types.is_dictionary(column.type):
        return column
    used = pc.unique(column.indices).drop_null()
    codes = pc.index_in(column.indices, used).cast(column.type.index_type)
    return pa.DictionaryArray.from_arrays(codes, column.dictionary.take(used), ordered=column.type.ordered)


def pieces_of(answer: Mapping[str, Any], most: int) -> Iterator[bytes]:
    """A JSON answer as one object, or as several that hold its long lists and objects piece by piece.

    Whoever puts them together joins the lists and objects of a name; all else is in each piece the same.

    Raises:
        TooLarge: a single item does not fit.
    """
    longest = max((len(value) for value in answer.values() if _is_many(value)), default=0)
    if longest <= _ITEMS_AT_ONCE:
        body = to_json({name: list(value) if _is_list(value) else value for name, value in answer.items()})
        if fits(len(body), most):
            yield body
            return
        if longest <= 1:
            raise TooLarge(
                f"answer: {len(body)} bytes are more than the {most} of a message; say with the header "
                f"{MESSAGE_BYTES_HEADER} that the client takes larger messages"
            )
        length = max(1, min(longest - 1, longest * most // (len(body) + most // 8)))
    else:
        length = _ITEMS_AT_ONCE
    for start in range(0, longest, length):
        yield from pieces_of({name: _slice(value, start, length) for name, value in answer.items()}, most)


def answers_of(seq: int, receipt: Mapping[str, Any], most: int) -> Iterator[bytes]:
    """The receipt of one of many runs: in one message, or in several, all but the last of which say ``more``."""
    body = to_json({"seq": seq, "receipt": receipt})
    if fits(len(body), most):
        yield body
        return
    pieces = list(pieces_of(receipt, most - _ENVELOPE_BYTES))
    for place, piece in enumerate(pieces):
        more = b',"more":true' if place + 1 < len(pieces) else b""
        yield b'{"seq":%d,"receipt":%s%s}' % (seq, piece, more)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_many(value: object) -> bool:
    return _is_list(value) or isinstance(value, Mapping)


def _slice(value: Any, start: int, length: int) -> Any:
    if _is_list(value):
        return value[start : start + length]
    if isinstance(value, Mapping):
        return {name: value[name] for name in list(value)[start : start + length]}
    return value


def fits(size: int, most: int) -> bool:
    """Whether a body of that many bytes makes a message within the limit."""
    return size + _ENVELOPE_BYTES <= most


def check_fits(size: int, most: int, what: str) -> None:
    """Refuse to send what cannot be cut.

    Raises:
        TooLarge: it is over the limit.
    """
    if not fits(size, most):
        raise TooLarge(
            f"{what}: its answer takes {size} bytes, more than the {most} of a message; ask for less, or say with the "
            f"header {MESSAGE_BYTES_HEADER} that the client takes larger messages"
        )


def info_that_fits(info: flight.FlightInfo, most: int) -> flight.FlightInfo:
    """The same plan.

    Raises:
        TooLarge: it is over the limit.
    """
    check_fits(len(info.serialize()), most, "command")
    return info
