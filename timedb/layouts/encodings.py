"""Text in other encodings than UTF-8, as UTF-8."""

from __future__ import annotations

import codecs
import io
from typing import Any

from timedb.contract.errors import InvalidRequest

__all__ = ["Decoded", "by_mark"]

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_PIECE_BYTES = 1 << 20


def by_mark(head: bytes) -> str | None:
    """The encoding that the first bytes say beyond doubt, where it is not UTF-8."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)


class Decoded(io.RawIOBase):
    """The bytes of a source, from its encoding into UTF-8.

    Args:
        source: The bytes.
        encoding: Theirs.
        what: How an error calls them.
    """

    def __init__(self, source: Any, encoding: str, what: str) -> None:
        super().__init__()
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._encoding = encoding
        self._what = what
        self._lines = 1
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes.

        Raises:
            InvalidRequest: some are none of the encoding; names the line.
        """
        while not self._ready and not self._ended:
            piece = self._source.read(_PIECE_BYTES)
            self._ended = not piece
            try:
                text = self._decoder.decode(piece, final=self._ended)
            except UnicodeError as error:
                raise InvalidRequest(f"{self._what}: {self._reason(error)}") from None
            self._lines += text.count("\n")
            self._ready = text.encode()
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _reason(self, error: UnicodeError) -> str:
        if not isinstance(error, UnicodeDecodeError):  # of a codec that wants a mark at the beginning
            return f"line {self._lines}: {error}"
        line = self._lines + error.object[: error.start].count(b"\n")
        byte = error.object[error.start : error.start + 1].hex()
        return f"line {line}: the byte {byte} is no {self._encoding} text"
