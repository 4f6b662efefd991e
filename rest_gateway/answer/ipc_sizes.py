"""How large the messages of an Arrow IPC stream are once they are decompressed, learnt without doing it.

Arrow reserves what a compressed buffer says that it unpacks to; a few kilobytes may say gigabytes.
"""

from __future__ import annotations

import struct

import pyarrow as pa

from timedb.contract.errors import InvalidRequest, TooLarge

__all__ = ["check_stream"]

# Positions of fields in the tables of Arrow's Message.fbs.
_HEADER_TYPE, _HEADER = 1, 2
_LENGTH, _NODES, _BUFFERS, _COMPRESSION = 0, 1, 2, 3
_DICTIONARY_DATA = 1
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_BUFFER_BYTES = _NODE_BYTES = 16


def check_stream(body: pa.Buffer, what: str, max_bytes: int, list_items: int) -> int:
    """Refuse a stream of which one message unpacks to more than ``max_bytes``, or has lists that are too long.

    Args:
        body: The whole stream.
        what: How an error calls it.
        max_bytes: The most.
        list_items: The most items that a list may have, on average of a batch; items that are null take no bytes.

    Returns:
        How many bytes the largest one unpacks to.

    Raises:
        TooLarge: one is larger.
        InvalidRequest: it is no Arrow stream.
    """
    reader = pa.ipc.MessageReader.open_stream(body)
    try:
        longest = 0
        for message in reader:
            longest = max(longest, _unpacked_bytes(message))
            if longest > max_bytes:
                raise TooLarge(f"{what}: a batch is over the limit of {max_bytes} bytes once it is decompressed")
            rows, items = _rows_and_items(message)
            if items > rows * list_items:
                raise TooLarge(f"{what}: {items} items in {rows} rows are over the limit of {list_items} a row")
    except (struct.error, pa.ArrowException, OSError):
        raise InvalidRequest(f"{what}: is not a valid Arrow stream") from None
    return longest


def _unpacked_bytes(message: pa.ipc.Message) -> int:
    data, body = memoryview(message.metadata), memoryview(message.body)
    root = struct.unpack_from("<I", data, 0)[0]
    kind = _field(data, root, _HEADER_TYPE)
    header = _table(data, root, _HEADER)
    if header and kind and data[kind] == _DICTIONARY_BATCH:
        header = _table(data, header, _DICTIONARY_DATA)
    elif not kind or data[kind] != _RECORD_BATCH:
        return 0
    if not header or not _field(data, header, _COMPRESSION):
        return len(body)
    start = _table(data, header, _BUFFERS)
    count = struct.unpack_from("<I", data, start)[0] if start else 0
    total = 0
    for at in range(start + 4, start + 4 + count * _BUFFER_BYTES, _BUFFER_BYTES):
        offset, length = struct.unpack_from("<qq", data, at)
        if length:
            (stated,) = struct.unpack_from("<q", body, offset)
            total += length if stated < 0 else stated  # -1: this one is not compressed
    return total


def _rows_and_items(message: pa.ipc.Message) -> tuple[int, int]:
    """How many rows a batch has, and how many items the longest of its columns and their lists."""
    data = memoryview(message.metadata)
    root = struct.unpack_from("<I", data, 0)[0]
    kind, header = _field(data, root, _HEADER_TYPE), _table(data, root, _HEADER)
    if not (header and kind and data[kind] == _RECORD_BATCH):
        return 0, 0
    place, start = _field(data, header, _LENGTH), _table(data, header, _NODES)
    rows = struct.unpack_from("<q", data, place)[0] if place else 0
    count = struct.unpack_from("<I", data, start)[0] if start else 0
    lengths = [struct.unpack_from("<q", data, start + 4 + number * _NODE_BYTES)[0] for number in range(count)]
    return rows, max(lengths, default=0)


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table is; 0: it is left out."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    size = struct.unpack_from("<H", data, vtable)[0]
    place = 4 + 2 * number
    offset = int(struct.unpack_from("<H", data, vtable + place)[0]) if place < size else 0
    return table + offset if offset else 0


def _table(data: memoryview, table: int, number: int) -> int:
    """Where the table or vector is that a field points to; 0: there is none."""
    place = _field(data, table, number)
    return place + int(struct.unpack_from("<I", data, place)[0]) if place else 0
