"""Compressed request bodies: what ``Content-Encoding`` says, undone under a limit."""

from __future__ import annotations

import pyarrow as pa

from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.wire import quoted

__all__ = ["decoded"]

_CODECS = {"gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd"}
_PIECE_BYTES = 1 << 20


def decoded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """A body as it was before it was compressed.

    Args:
        body: As it arrived.
        encoding: The ``Content-Encoding`` header; empty or ``identity``: it is not compressed.
        max_bytes: The most that may come out; no more than that is ever made.

    Raises:
        InvalidRequest: the encoding is not known, or the body is not of it, or not whole.
        TooLarge: more than ``max_bytes`` would come out.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _CODECS:
        raise InvalidRequest(f"Content-Encoding: {quoted(encoding)} is not gzip or zstd")
    pieces: list[bytes] = []
    size = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), _CODECS[name]) as stream:
            while piece := stream.read(_PIECE_BYTES):
                size += len(piece)
                if size > max_bytes:
                    raise TooLarge(f"body: is over the limit of {max_bytes} bytes once it is decompressed")
                pieces.append(piece)
    except OSError:
        raise InvalidRequest(f"body: is not whole {name} data, as Content-Encoding says") from None
    return b"".join(pieces)
