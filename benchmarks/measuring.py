"""Times, peak memory and the machine that they were taken on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

__all__ = ["Measurement", "Report", "machine", "measure"]

T = TypeVar("T")
LIBRARIES = ("deltalake", "polars", "pyarrow", "fastapi", "uvicorn")


@dataclass
class Measurement:
    """One piece of work: the median of its times, and what the server's memory peaked at meanwhile."""

    name: str
    seconds: list[float]
    rows: int = 0
    peak_mib: float | None = None
    checked: str = ""

    @property
    def median(self) -> float:
        """Median of the times, in seconds."""
        return statistics.median(self.seconds)


@dataclass
class Report:
    """All measurements of a run, and the ratios of some of them to the raw limits."""

    measurements: list[Measurement] = field(default_factory=list)

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement and say so."""
        self.measurements.append(measurement)
        print(f"  {measurement.name}: {1000 * measurement.median:.1f} ms", file=sys.stderr)

    def find(self, name: str) -> Measurement:
        """The measurement of that name."""
        return next(one for one in self.measurements if one.name == name)

    def to_markdown(self) -> str:
        """A table of the measurements."""
        lines = ["| work | median | rows/s | server's peak | answer |", "|---|--:|--:|--:|---|"]
        for one in self.measurements:
            rate = f"{one.rows / one.median:,.0f}" if one.rows else ""
            peak = "" if one.peak_mib is None else f"{one.peak_mib:.0f} MiB"
            lines.append(f"| {one.name} | {1000 * one.median:.1f} ms | {rate} | {peak} | {one.checked} |")
        return "\n".join(lines)


def measure(
    name: str,
    work: Callable[[], T],
    *,
    times: int = 5,
    warm: int = 1,
    rows: int = 0,
    server: int | None = None,
) -> tuple[Measurement, T]:
    """Do some work several times.

    Args:
        name: What it is called in the report.
        work: What is timed.
        times: How often it is timed.
        warm: How often it is done before that, untimed.
        rows: Rows that it handles, for the rate.
        server: Process id of the server whose peak memory is of interest.

    Returns:
        The measurement, and the result of the last time, to be checked by the caller after the clock has stopped.
    """
    for _ in range(warm):
        work()
    reset_peak(server)
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return Measurement(name, seconds, rows, peak_mib(server)), result


def reset_peak(pid: int | None) -> None:
    """Let the kernel count a process's peak memory anew (Linux)."""
    if pid is not None and sys.platform == "linux":
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int | None) -> float | None:
    """Peak resident memory of a process since :func:`reset_peak`; None where the system does not say."""
    if pid is None or sys.platform != "linux":
        return None
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return {
        "command": " ".join(["python -m benchmarks.run", *sys.argv[1:]]),
        "machine": f"{model}, {os.cpu_count()} cores, {memory / 2**30:.0f} GiB",
        "load": f"{os.getloadavg()[0]:.1f} in the minute before",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": versions,
    }
