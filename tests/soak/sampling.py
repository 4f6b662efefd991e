"""What a process takes, every few seconds: memory, threads, file descriptors; and how it grows."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FIGURES = ("rss_mib", "threads", "fds", "sockets", "children", "lake_mib", "lake_files")

PEAK_SAMPLES = 10


@dataclass(frozen=True)
class Trend:
    """A straight line through the samples after the warm-up: through the least of each :data:`PEAK_SAMPLES` of them,
    what the figure falls back to between its peaks.

    Attributes:
        per_minute: Its slope.
        growth: What it says that the figure grew by over the time that was looked at.
        mean, low, high: Of the samples.
    """

    per_minute: float
    growth: float
    mean: float
    low: float
    high: float


class Sampler(threading.Thread):
    """Samples a process until it is told to stop.

    Args:
        pid: The process.
        lake: The folder whose size is of interest.
        seconds: Between two samples.
    """

    def __init__(self, pid: int, lake: Path, seconds: float) -> None:
        super().__init__(name="soak-sampler", daemon=True)
        self.samples: list[dict[str, float]] = []
        self._pid = pid
        self._lake = lake
        self._seconds = seconds
        self._halt = threading.Event()
        self._begun = time.monotonic()

    def run(self) -> None:
        """Sample."""
        while not self._halt.wait(self._seconds):
            self.samples.append(self.sample())

    def stop(self) -> None:
        """Sample no more."""
        self._halt.set()
        self.join()

    def sample(self) -> dict[str, float]:
        """How it is now."""
        size, files = folder_size(self._lake)
        status = status_of(self._pid)
        descriptors = descriptors_of(self._pid)
        return {
            "seconds": time.monotonic() - self._begun,
            "rss_mib": status["VmRSS"] / 1024,
            "threads": status["Threads"],
            "fds": len(descriptors),
            "sockets": sum(name.startswith("socket:") for name in descriptors),
            "children": len(Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()),
            "lake_mib": size / 2**20,
            "lake_files": files,
        }

    def trend(self, name: str, warm_up: float) -> Trend:
        """How a figure went after so many seconds of warm-up."""
        kept = [(one["seconds"], one[name]) for one in self.samples if one["seconds"] >= warm_up]
        at, value = np.array(kept).T
        floor = [
            min(kept[start : start + PEAK_SAMPLES], key=lambda one: one[1])
            for start in range(0, len(kept), PEAK_SAMPLES)
        ]
        times, least = np.array(floor).T
        slope = float(np.polyfit(times, least, 1)[0]) if len(floor) > 1 else 0.0
        growth = slope * float(at[-1] - at[0])
        return Trend(slope * 60, growth, float(value.mean()), float(value.min()), float(value.max()))


def status_of(pid: int) -> dict[str, int]:
    """The numbers of ``/proc/PID/status``; sizes are in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    parts = [line.split() for line in lines]
    return {part[0].rstrip(":"): int(part[1]) for part in parts if len(part) > 1 and part[1].isdigit()}


def descriptors_of(pid: int) -> list[str]:
    """What the open file descriptors of a process are."""
    found = []
    for entry in list(os.scandir(f"/proc/{pid}/fd")):
        try:
            found.append(os.readlink(entry.path))
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def kinds_of(pid: int) -> dict[str, int]:
    """How many file descriptors of each kind, and threads of each name, a process has."""
    descriptors = Counter(re.sub(r"\d+", "", name) for name in descriptors_of(pid))
    threads = Counter(
        "thread " + re.sub(r"\d+", "", Path(task.path, "comm").read_text().strip())
        for task in list(os.scandir(f"/proc/{pid}/task"))
    )
    return dict(descriptors | threads)


def folder_size(folder: Path) -> tuple[int, int]:
    """Bytes and number of the files of a folder."""
    size = files = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.stat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
            files += 1
    return size, files
