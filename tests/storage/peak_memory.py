"""The most memory that a piece of work takes, as the kernel counts it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

_STATUS = Path("/proc/self/status")


def peak_growth(work: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process grew while some work was done, at most."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = _kilobytes("VmRSS")
    work()
    return (_kilobytes("VmHWM") - before) << 10


def _kilobytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])
