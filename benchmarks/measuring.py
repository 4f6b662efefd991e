"""Times, peak memory and the machine that they were taken on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "Measurement",
    "Report",
    "Wrong",
    "cpu_seconds",
    "machine",
    "measure",
    "measure_in_turn",
    "peak_mib",
    "reset_peak",
    "rss_mib",
]

LIBRARIES = ("deltalake", "polars", "pyarrow", "fastapi", "uvicorn", "orjson", "chdb", "duckdb", "psycopg")


class Wrong(Exception):
    """An answer that is not the truth; it has no speed."""


@dataclass
class Measurement:
    """One piece of work of one contestant: its times, and what the server's memory peaked at meanwhile.

    Attributes:
        target: Which target it belongs to, say ``P2``; what was done, in words.
        work: What was done, in words.
        who: ``TimeDB``, a peer, or a raw limit.
        seconds: Each time it was done.
        rows: Rows that it handles, for the rate.
        peak_mib: Peak resident memory of our server's process; None for others.
        checked: Whether its answer was compared with the truth after timing.
    """

    target: str
    work: str
    who: str
    seconds: list[float]
    rows: int = 0
    peak_mib: float | None = None
    checked: bool = False

    @property
    def median(self) -> float:
        """Median of the times, in seconds."""
        return statistics.median(self.seconds)


@dataclass
class Report:
    """All measurements of a run, figures that are no times (bytes a row, say), by target and contestant, and how each
    peer is configured, or why it is left out."""

    measurements: list[Measurement] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement and say so."""
        self.measurements.append(measurement)
        print(
            f"  {measurement.target} {measurement.work}, {measurement.who}: {1000 * measurement.median:.1f} ms",
            file=sys.stderr,
        )

    def median(self, target: str, work: str, who: str) -> float | None:
        """The median time of a piece of work, in seconds; None where it was not measured."""
        wanted = (target, work, who)
        found = [one for one in self.measurements if (one.target, one.work, one.who) == wanted]
        return found[0].median if found else None

    def to_json(self) -> dict[str, Any]:
        """What :mod:`benchmarks.compare` and :mod:`benchmarks.report` read."""
        measurements = [{**asdict(one), "median": one.median} for one in self.measurements]
        return {"peers": self.peers, "figures": self.figures, "measurements": measurements}

    def to_markdown(self) -> str:
        """A table of the measurements."""
        lines = ["| | work | who | median | rows/s | our server's peak | answer |", "|---|---|---|--:|--:|--:|---|"]
        for one in self.measurements:
            rate = f"{one.rows / one.median:,.0f}" if one.rows else ""
            peak = "" if one.peak_mib is None else f"{one.peak_mib:.0f} MiB"
            checked = "checked" if one.checked else ""
            lines.append(
                f"| {one.target} | {one.work} | {one.who} | {1000 * one.median:.1f} ms | {rate} | {peak} | {checked} |"
            )
        return "\n".join(lines)


def measure(
    target: str,
    work: str,
    who: str,
    do: Callable[[], Any],
    *,
    check: Callable[[Any], bool] | None = None,
    times: int = 5,
    warm: int = 1,
    rows: int = 0,
    server: int | None = None,
) -> Measurement:
    """Do some work several times.

    Args:
        target, work, who: What it is called in the report.
        do: What is timed.
        check: Whether its last result is the truth; asked after the clock has stopped.
        times: How often it is timed.
        warm: How often it is done before that, untimed.
        rows: Rows that it handles, for the rate.
        server: Process id of our server, whose peak memory is of interest.

    Raises:
        Wrong: the check failed.
    """
    checks = {} if check is None else {who: check}
    (found,) = measure_in_turn(
        target, work, {who: do}, checks=checks, times=times, warm=warm, rows=rows, server=server
    ).values()
    return found


def measure_in_turn(
    target: str,
    work: str,
    contestants: Mapping[str, Callable[[], Any]],
    *,
    checks: Mapping[str, Callable[[Any], bool]],
    times: int = 5,
    warm: int = 1,
    rows: int = 0,
    server: int | None = None,
) -> dict[str, Measurement]:
    """Let several do the same work, each once a round, so that a noisy moment hits all of them.

    Args:
        contestants: By name what is timed; the peak memory is that of ``TimeDB``.
        checks: By name whether its last result is the truth.
        target, work, times, warm, rows, server: As in :func:`measure`.

    Raises:
        Wrong: a check failed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    results: dict[str, Any] = {}
    for _ in range(warm):
        for do in contestants.values():
            do()
    reset_peak(server)
    for _ in range(times):
        for name, do in contestants.items():
            start = time.perf_counter()
            results[name] = do()
            seconds[name].append(time.perf_counter() - start)
    peak = peak_mib(server)
    for name, check in checks.items():
        if name in results and not check(results[name]):
            raise Wrong(f"{target} {work}: the answer of {name} is wrong")
    return {
        name: Measurement(target, work, name, taken, rows, peak if name == "TimeDB" else None, name in checks)
        for name, taken in seconds.items()
    }


def rss_mib(pid: int) -> float:
    """The resident memory of a process now; nan where the kernel does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), float("nan"))


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


def cpu_seconds(pid: int) -> float | None:
    """Processor time that a process has taken; None where the system does not say."""
    if sys.platform != "linux":
        return None
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine(module: str = "benchmarks.run") -> dict[str, str]:
    """What the numbers depend on; the command is that of a module that is run."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "command": " ".join([f"python -m {module}", *sys.argv[1:]]),
        "machine": f"{model}, {os.cpu_count()} cores, {memory / 2**30:.0f} GiB",
        "load": f"{os.getloadavg()[0]:.1f} in the minute before",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name in LIBRARIES if (version := _version(name))),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
