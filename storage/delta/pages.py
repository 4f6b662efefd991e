"""The checksums of Parquet pages: read without decoding anything, and kept right where a page is changed in place.

A page's header (Thrift's compact protocol, ``PageHeader`` of parquet.thrift) says how long the page is and, where the
writer put it there, the CRC-32 of its bytes. Polars reads past it, so whoever is about to let Polars read a file has it
checked here first.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["PageHeader", "check_pages", "crc_varint", "first_page", "has_long_crc"]

_SIZE_FIELD, _CRC_FIELD = 3, 4
_BOOLEANS, _BYTE, _VARINTS, _DOUBLE, _BINARY, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, 12
_DOUBLE_BYTES = 8
_LONG_CRC = 5
Buffer = memoryview | bytes


@dataclass(frozen=True, slots=True)
class PageHeader:
    """A page: where its bytes begin, how many there are, and its checksum with the place that it has in the header."""

    start: int
    size: int
    crc: int | None
    crc_at: int

    def fits(self, data: Buffer) -> bool:
        """Whether the page has the checksum that it says; one that says none fits."""
        return self.crc is None or zlib.crc32(data[self.start : self.start + self.size]) == self.crc


def check_pages(source: str | pa.BufferReader, *, first_only: bool = False) -> bool:
    """Check the pages of a Parquet file.

    Args:
        source: A local file, or one that has been fetched.
        first_only: Look at the first page alone, which has a checksum where the others have.

    Returns:
        Whether every page has a checksum; files of older releases and of other writers may have none.

    Raises:
        ValueError: a page has not the checksum that it says, or there is none where the footer says.
        OSError, pa.ArrowException: the file cannot be read.
    """
    data = pa.memory_map(source).read_buffer() if isinstance(source, str) else source.read_buffer()
    pages = _pages(memoryview(data), pq.read_metadata(pa.BufferReader(data)))
    all_checked = True
    for page in islice(pages, 1 if first_only else None):
        all_checked = all_checked and page.crc is not None
        if not page.fits(memoryview(data)):
            raise ValueError(f"the page at byte {page.start} has not the checksum that it says")
    return all_checked


def first_page(data: bytes, start: int) -> PageHeader:
    """The header of the page that begins at a place.

    Raises:
        ValueError: there is none.
    """
    return _header(data, start)


def crc_varint(crc: int) -> bytes:
    """A checksum as page headers have it: a signed number of 32 bits, zigzag, seven bits a byte."""
    number = (crc << 1) & 0xFFFFFFFF if crc < 1 << 31 else ((crc << 1) & 0xFFFFFFFF) ^ 0xFFFFFFFF
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def has_long_crc(page: bytes) -> bool:
    """Whether the checksum of a page takes the most bytes that one can, as 15 of 16 do.

    Two such pages of one length can stand in for each other, header and all.
    """
    return len(crc_varint(zlib.crc32(page))) == _LONG_CRC


def _pages(data: Buffer, metadata: pq.FileMetaData) -> Iterator[PageHeader]:
    for group in range(metadata.num_row_groups):
        columns = metadata.row_group(group)
        for number in range(columns.num_columns):
            column = columns.column(number)
            first = column.dictionary_page_offset
            at = column.data_page_offset if first is None else min(first, column.data_page_offset)
            end = at + column.total_compressed_size
            if not 0 < at <= end <= len(data):
                raise ValueError("a column lies outside of the file")
            while at < end:
                page = _header(data, at)
                at = page.start + page.size
                yield page
            if at != end:
                raise ValueError("a page reaches beyond its column")


def _header(data: Buffer, at: int) -> PageHeader:
    size, crc, crc_at, field = -1, None, -1, 0
    try:
        while byte := data[at]:
            at, field = at + 1, field + (byte >> 4)
            if field == _SIZE_FIELD:
                number, at = _varint(data, at)
                size = _signed(number)
            elif field == _CRC_FIELD:
                crc_at = at
                number, at = _varint(data, at)
                crc = _signed(number) & 0xFFFFFFFF
            else:
                at = _skip(data, at, byte & 0x0F)
    except IndexError:
        raise ValueError("a page's header is cut off") from None
    if size < 0:
        raise ValueError("a page's header does not say how long the page is")
    return PageHeader(at + 1, size, crc, crc_at)


def _skip(data: Buffer, at: int, kind: int) -> int:
    """Where the value of a type ends that begins at a place."""
    if kind in _BOOLEANS:
        return at
    if kind in _VARINTS:
        return _varint(data, at)[1]
    if kind == _BINARY:
        length, at = _varint(data, at)
        return at + length
    if kind == _STRUCT:
        while byte := data[at]:
            at = _skip(data, at + 1, byte & 0x0F)
        return at + 1
    if kind == _DOUBLE:
        return at + _DOUBLE_BYTES
    if kind == _BYTE:
        return at + 1
    raise ValueError("a page's header has a field of a type that none has")


def _varint(data: Buffer, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) & 0x80:
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | byte << shift, at + 1


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)
