"""Many clients at once, each a Python process of its own, which all start at the same moment.

``python -m benchmarks.clients '{"who": "timedb", "url": …, "clients": 32, "uploads": 32, "turn": 0, …}'`` prints
``{"seconds": …}``: from the first start to the last end. The processes are forked from one that has imported what they
need and opened nothing yet.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.history import small_upload
from benchmarks.postgres import Uploads
from timedb.client import connect

__all__ = ["names", "uploads_at_once"]

ROWS = 24


def names(name: str, clients: int) -> list[str]:
    """The series of each client."""
    return [f"{name}-{number:03}" for number in range(clients)]


def uploads_at_once(
    who: str, url: str, name: str, turn: int, *, clients: int, uploads: int, series: object = None
) -> float:
    """Seconds in which all clients made all their uploads of 24 rows, the first of each (its warm-up) apart.

    Args:
        who: ``timedb``, a call an upload; ``append``, over one stream each; or ``postgres``.
        url: Where its server is.
        name: The series are called by.
        turn: Of another turn are other valid times.
        clients, uploads: How many of each.
        series: PostgreSQL's numbers of the series.
    """
    task = {
        "who": who,
        "url": url,
        "name": name,
        "turn": turn,
        "clients": clients,
        "uploads": uploads,
        "series": series,
    }
    command = [sys.executable, "-m", "benchmarks.clients", json.dumps(task)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the clients of {who} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout)["seconds"])


Upload = Callable[[], object]


def _through_flight(task: dict[str, Any], number: int) -> tuple[list[Upload], Upload]:
    client = connect(task["url"])
    name = names(task["name"], task["clients"])[number]
    return [partial(client.upload, table) for table in _tables(task, name)], client.close


def _through_append(task: dict[str, Any], number: int) -> tuple[list[Upload], Upload]:
    writer = connect(task["url"]).writer()
    first, *others = _tables(task, names(task["name"], task["clients"])[number])
    uploads: list[Upload] = [lambda: writer.upload(first).result()]
    uploads += [partial(writer.upload, table) for table in others]
    return uploads, writer.close  # which waits until all are durable


def _through_postgres(task: dict[str, Any], number: int) -> tuple[list[Upload], Upload]:
    upload, series = Uploads(task["url"]), task["series"][number]
    tables = _tables(task, "")
    rows = [list(zip(*table.select(["valid_time", "value"]).to_pydict().values(), strict=True)) for table in tables]
    return [partial(upload, series, values) for values in rows], upload.close


def _tables(task: dict[str, Any], name: str) -> list[Any]:
    first = task["turn"] * (task["uploads"] + 1)
    return [small_upload(name, first + number) for number in range(task["uploads"] + 1)]


def _client(task: dict[str, Any], number: int, barrier: Any, results: Any) -> None:
    prepare = {"timedb": _through_flight, "append": _through_append, "postgres": _through_postgres}[task["who"]]
    try:
        (first, *others), finish = prepare(task, number)
        first()
        barrier.wait(120)
        start = time.monotonic()
        for upload in others:
            upload()
        finish()
        results.put((start, time.monotonic()))
    except BaseException:
        barrier.abort()
        results.put(None)
        raise


def main() -> None:
    """Fork, wait, print."""
    task = json.loads(sys.argv[1])
    for module in ("psycopg", "timedb.client.frames", "timedb.contract.settings"):  # once, before the processes part
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    small_upload("", 0).to_pydict()  # pyarrow imports pandas when it first sees Python objects
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(task["clients"]), context.SimpleQueue()
    processes = [
        context.Process(target=_client, args=(task, number, barrier, results)) for number in range(task["clients"])
    ]
    for process in processes:
        process.start()
    times = [results.get() for _ in processes]
    for process in processes:
        process.join()
    if None in times:
        raise SystemExit("a client failed")
    print(json.dumps({"seconds": max(end for _, end in times) - min(start for start, _ in times)}))


if __name__ == "__main__":
    main()
