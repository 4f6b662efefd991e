"""A steady load of small uploads: ``python -m benchmarks.steady --minutes 60 --json steady.json --picture steady.svg``.

Clients in processes of their own upload 24 rows each time, as fast as they are answered or at a rate. Every ten seconds
the server is looked at, and one series read: what grows under a load that does not end would show. At the end what was
acknowledged is counted in the lake.

What readers of the tables are promised (``retention_hours``, a day by default) is minutes here, and how long a call may
take, too: until it has passed, replaced files and commits stay, and the disk must grow.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import servers
from benchmarks.history import small_upload
from benchmarks.measuring import Wrong, cpu_seconds, machine, rss_mib
from timedb.client import Client, connect
from timedb.contract.wire import UploadCommand

__all__ = ["draw", "steady"]

ROWS = 24
SERIES_EACH = 10
DAYS = 3650
Taken = tuple[float, float]


def steady(folder: Path, *, minutes: float, clients: int, rate: float, every: float, promise: float) -> dict[str, Any]:
    """Run the load.

    Args:
        folder: Where the lake lies.
        minutes: How long.
        clients: How many upload at once.
        rate: Uploads a second of all clients together at most; 0: as many as are answered.
        every: Seconds between two looks at the server.
        promise: Minutes that replaced files and commits stay.

    Returns:
        ``samples``, a row for each look; ``uploads``; ``rows`` of the lake at the end.

    Raises:
        Wrong: The lake does not hold what was acknowledged.
    """
    lake = folder / "lake"
    hours = promise / 60
    with servers.timedb(lake, retention_hours=hours, log_retention_hours=hours, max_call_seconds=60) as served:
        uploading = _uploading(served.flight_url, folder / "clients", clients, rate)
        with connect(served.flight_url, timeout=600) as client, uploading as taken:
            samples = list(_samples(client, served.pid, taken, 60 * minutes, every))
        uploads = len(taken.result())
        with connect(served.flight_url, timeout=600, stream_timeout=3600) as client:
            rows = client.status()["rows"]
    if rows != ROWS * uploads:
        raise Wrong(f"{uploads} uploads of {ROWS} rows were acknowledged, and the lake has {rows} rows")
    return {"samples": samples, "uploads": uploads, "rows": rows, "clients": clients, "promise_minutes": promise}


class _Taken:
    """What the clients say: when each upload was acknowledged and how long it took, in seconds."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._read = [0] * len(files)

    def new(self) -> list[Taken]:
        """Those since the last time."""
        found = []
        for index, path in enumerate(self._files):
            with path.open() as lines:
                lines.seek(self._read[index])
                text = lines.read()
            whole = text[: text.rfind("\n") + 1]
            self._read[index] += len(whole)
            found += [(float(at), float(seconds)) for at, seconds in (line.split() for line in whole.splitlines())]
        return found

    def result(self) -> list[Taken]:
        """All."""
        self._read = [0] * len(self._files)
        return self.new()


@contextmanager
def _uploading(url: str, folder: Path, clients: int, rate: float) -> Iterator[_Taken]:
    """Have the clients upload until the block ends; each writes down what it was answered."""
    context = multiprocessing.get_context("spawn")
    end = context.Event()
    folder.mkdir()
    files = [folder / str(number) for number in range(clients)]
    pause = clients / rate if rate else 0.0
    workers = [
        context.Process(target=_upload, args=(url, number, path, pause, end)) for number, path in enumerate(files)
    ]
    for path, worker in zip(files, workers, strict=True):
        path.touch()
        worker.start()
    try:
        while not all(path.stat().st_size for path in files):
            time.sleep(0.1)
            if broken := [worker.name for worker in workers if worker.exitcode is not None]:
                raise Wrong(f"{broken} ended before the first answer")
        yield _Taken(files)
    finally:
        end.set()
        for worker in workers:
            worker.join(60)
    if broken := [worker.name for worker in workers if worker.exitcode]:
        raise Wrong(f"{broken} ended with an error")


def _upload(url: str, number: int, path: Path, pause: float, end: Event) -> None:
    """What one client does until it is told to end."""
    with connect(url, timeout=600) as client, path.open("w", buffering=1) as lines:
        count = 0
        while not end.is_set():
            start = time.time()
            table = small_upload(f"steady-{number}-{count % SERIES_EACH}", count // SERIES_EACH % DAYS)
            client.send(UploadCommand(rows=ROWS), table.to_reader())
            now = time.time()
            lines.write(f"{now} {now - start}\n")
            count += 1
            time.sleep(max(0.0, start + pause - now))


def _samples(client: Client, pid: int, taken: _Taken, seconds: float, every: float) -> Iterator[dict[str, float]]:
    begun, cpu = time.time(), cpu_seconds(pid) or 0.0
    while (now := time.time()) < begun + seconds:
        time.sleep(min(every, begun + seconds - now))
        new, used, status = taken.new(), cpu_seconds(pid) or 0.0, client.status()
        waits = sorted(took for _, took in new) or [float("nan")]
        started = time.perf_counter()
        client.read_arrow(series_keys=["steady-0-0"], columns=["valid_time", "value"])
        disk = status["disk"]
        yield {
            "seconds": time.time() - begun,
            "uploads_a_second": len(new) / (time.time() - now),
            "p50_ms": 1e3 * median(waits),
            "p99_ms": 1e3 * waits[int(0.99 * (len(waits) - 1))],
            "read_ms": 1e3 * (time.perf_counter() - started),
            "cpu_ms_an_upload": 1e3 * (used - cpu) / max(1, len(new)),
            "rss_mib": rss_mib(pid),
            "fds": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": len(os.listdir(f"/proc/{pid}/task")),
            "live_files": status["files"],
            "files": disk["files"],
            "live_mb": disk["live_bytes"] / 1e6,
            "log_mb": (disk["log_bytes"] + disk["checkpoint_bytes"]) / 1e6,
            "disk_mb": disk["bytes"] / 1e6,
        }
        cpu = used


PANELS = (
    ("memory of the server, MiB", ("rss_mib",)),
    ("on disk, MB: all, log, live", ("disk_mb", "log_mb", "live_mb")),
    ("files: all on disk, live", ("files", "live_files")),
    ("an upload, ms: median, 99th percentile", ("p50_ms", "p99_ms")),
    ("uploads a second", ("uploads_a_second",)),
    ("threads, file descriptors", ("threads", "fds")),
)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the samples over time; matplotlib is an extra (``notebooks``)."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 2, figsize=(11, 8), sharex=True, layout="constrained")
    minutes = [one["seconds"] / 60 for one in result["samples"]]
    for axis, (title, names) in zip(axes.flat, PANELS, strict=True):
        for name in names:
            axis.plot(minutes, [one[name] for one in result["samples"]], label=name, linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("minutes")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """Measure; JSON and a picture into files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0, help="uploads a second of all together; 0: at full speed")
    parser.add_argument("--every", type=float, default=10, help="seconds between two looks")
    parser.add_argument("--promise", type=float, default=6, help="minutes that replaced files and commits stay")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    facts = machine("benchmarks.steady")
    load = {name: getattr(options, name) for name in ("minutes", "clients", "rate", "every", "promise")}
    with tempfile.TemporaryDirectory(prefix="timedb-bench-") as folder:
        result = {**facts, **steady(Path(folder), **load)}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.picture:
        draw(result, options.picture)
    print(f"{result['uploads']} uploads, {result['rows']} rows: all that were acknowledged, once")


if __name__ == "__main__":
    main()
