"""The memory of one server: its limit, what calls share of it, and what is kept for the next time."""

from __future__ import annotations

from timedb.contract.settings import ServerSettings
from timedb.storage.memory.budget import Memory
from timedb.storage.memory.cache import Cache
from timedb.storage.memory.machine import available_bytes

__all__ = ["ROW_BYTES", "MemoryOfServer"]

ROW_BYTES = 256
"""Bytes about which a row takes while versions of it are compared: its columns twice, and their order."""

_MOST_CACHE = 256 << 20
_CACHE_SHARE = 8
_SLICE_SHARE = 8
_FEWEST_ROWS, _MOST_ROWS = 50_000, 1_000_000


class MemoryOfServer:
    """What the tenants of a server share.

    Attributes:
        limit: Bytes that the process may take, about.
        cache: What is kept for the next time.
        calls: What calls hold.
        work_rows: Rows for which there is memory to work on at once, about.
        slice_rows: Rows that a read works on at once, about.

    Args:
        settings: Limits; what they leave open is made from what the machine has.
    """

    def __init__(self, settings: ServerSettings) -> None:
        told = settings.memory_limit_mb
        self.limit = available_bytes() * 3 // 4 if told is None else told << 20
        cached = settings.read_cache_bytes
        self.cache = Cache(min(_MOST_CACHE, self.limit // _CACHE_SHARE) if cached is None else cached)
        self.calls = Memory(self.limit, settings.memory_wait_seconds, spare=self.cache.clear)
        self.work_rows = min(_MOST_ROWS, max(_FEWEST_ROWS, self.calls.for_calls // _SLICE_SHARE // ROW_BYTES))
        self.slice_rows = settings.read_slice_rows or self.work_rows
