"""Which allocators a server uses, so that its memory stays what its work needs."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

__all__ = ["choose_allocators"]

_POOL = "ARROW_DEFAULT_MEMORY_POOL"  # https://arrow.apache.org/docs/cpp/env_vars.html
_M_ARENA_MAX = -8  # of glibc's malloc.h, see mallopt(3)


def choose_allocators() -> None:
    """Have Arrow use jemalloc and the C library few arenas; to be called before Arrow is loaded.

    gRPC answers on threads that come and go. Arrow's usual mimalloc and glibc's arenas (eight for each core) keep what
    such threads have freed: a server under mixed load grew by some 40 MiB a minute, with nothing leaked. What the
    environment says already holds (``ARROW_DEFAULT_MEMORY_POOL``, ``MALLOC_ARENA_MAX``).
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault(_POOL, "jemalloc")
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(AttributeError, OSError):  # another C library than glibc
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, max(2, os.cpu_count() or 1))
