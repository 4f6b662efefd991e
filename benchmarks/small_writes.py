"""P7a, P7b, P7d, P13: one small upload and many at once beside a bare ``do_put``, a long row of them, and corrections.

On a server and a lake of their own, so that what they leave is counted by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import flight

from benchmarks import servers
from benchmarks.bench import US, Bench
from benchmarks.clickhouse import ClickHouse
from benchmarks.history import START, small_upload
from benchmarks.measuring import Measurement, Wrong, measure, rss_mib
from timedb.client import Client, connect
from timedb.contract.wire import UploadCommand

__all__ = ["AT_ONCE", "BYTES", "BYTES_THERE", "CORRECTIONS", "ONE", "RAW", "small_writes"]

RAW = "raw do_put"
ONE, AT_ONCE = "one upload of 24 rows", "uploads of 24 rows, clients at once"
FIRST, LAST = "uploads of 24 rows in a long row, the first", "uploads of 24 rows in a long row, the last"
CORRECTIONS = "corrections in one call"
BYTES = "P7d bytes a row, compacted, each run with its id"
BYTES_THERE = f"P7d bytes a row, merged, the same rows and run_ids, {ClickHouse.name}"
ROWS = 24
_PART = 1000


def small_writes(bench: Bench, *, clients: int, each: int, row: int, corrections: int) -> None:
    """All four.

    Args:
        bench: The run.
        clients: How many write at once.
        each: How many uploads each of them makes.
        row: Uploads one after the other.
        corrections: In one call.
    """
    lake = bench.folder / "small-writes"
    with (
        servers.timedb(lake) as served,
        connect(served.flight_url, timeout=600, stream_timeout=3600) as client,
        servers.raw_flight(bench.folder) as url,
    ):
        _one_after_the_other(bench, client, url, each * 4)
        _at_once(bench, served.flight_url, url, clients, each)
        _in_a_row(bench, client, served.pid, lake, row)
        _corrections(bench, client, served.pid, corrections)


def _put(raw: flight.FlightClient, table: pa.Table) -> None:
    writer, _ = raw.do_put(flight.FlightDescriptor.for_path("small"), table.schema)
    with writer:
        writer.write_table(table)


def _send(client: Client, table: pa.Table) -> None:
    client.send(UploadCommand(rows=ROWS), table.to_reader())


def _timed(uploads: list[Callable[[], None]]) -> list[float]:
    seconds = []
    for upload in uploads:
        start = time.perf_counter()
        upload()
        seconds.append(time.perf_counter() - start)
    return seconds


def _one_after_the_other(bench: Bench, client: Client, url: str, count: int) -> None:
    """P7a: the median of one client's uploads, and of the same bytes sent to a server that forgets them."""
    tables = [small_upload("one", number) for number in range(count)]
    with flight.connect(url) as raw:
        seconds = {
            US: _timed([partial(_send, client, table) for table in tables]),
            RAW: _timed([partial(_put, raw, table) for table in tables]),
        }
    _expect(client, ["one"], count)
    for who, taken in seconds.items():
        bench.report.add(Measurement("P7a", ONE, who, taken, ROWS, checked=who == US))


def _at_once(bench: Bench, our_url: str, raw_url: str, clients: int, each: int) -> None:
    """P7b: clients in threads of one process, each with a connection of its own."""
    names = [f"at-once-{number:03}" for number in range(clients)]
    tables = {name: [small_upload(name, number) for number in range(each)] for name in names}

    def ours(name: str) -> None:
        with connect(our_url, timeout=600) as client:
            for table in tables[name]:
                _send(client, table)

    def theirs(name: str) -> None:
        with flight.connect(raw_url) as raw:
            for table in tables[name]:
                _put(raw, table)

    with ThreadPoolExecutor(clients) as pool:
        for who, work in ((US, ours), (RAW, theirs)):
            start = time.perf_counter()
            list(pool.map(work, names))
            taken = time.perf_counter() - start
            bench.report.add(Measurement("P7b", AT_ONCE, who, [taken], ROWS * clients * each, checked=who == US))
            bench.report.figures[f"P7b uploads a second of {clients} clients, {who}"] = clients * each / taken
    with connect(our_url) as client:
        _expect(client, names, clients * each)


def _in_a_row(bench: Bench, client: Client, server: int, lake: Path, count: int) -> None:
    """P7d: what many uploads cost, and what they leave: time of the last against the first, files, bytes, memory."""
    part = min(_PART, max(1, count // 4))
    figures = bench.report.figures
    seconds = []
    for number in range(count):
        seconds += _timed([partial(_send, client, small_upload(f"row-{number % 10}", number // 10))])
        if number + 1 == part:
            figures["P7d server's memory after the first uploads, MiB"] = rss_mib(server)
    figures["P7d server's memory after the last uploads, MiB"] = rss_mib(server)
    _expect(client, [f"row-{number}" for number in range(min(10, count))], count)
    for work, taken in ((FIRST, seconds[:part]), (LAST, seconds[-part:])):
        bench.report.add(Measurement("P7d", work, US, taken, ROWS, checked=True))
    figures["P7d p50 of the last uploads by that of the first"] = median(seconds[-part:]) / median(seconds[:part])
    status = client.status()
    figures["P7d live files"] = status["files"]
    on_disk = sum(os.stat(path).st_size for path in lake.rglob("*") if path.is_file())
    figures["P7d bytes on the disk by live bytes, all that readers are promised among them"] = on_disk / status["bytes"]
    client.compact()
    status = client.status()
    figures[BYTES] = status["bytes"] / status["rows"]
    for peer in bench.peers:
        if isinstance(peer, ClickHouse):
            figures[BYTES_THERE] = _bytes_there(peer, client)


def _bytes_there(peer: ClickHouse, client: Client) -> float:
    """Bytes a row of all that the server holds, in ClickHouse once it has merged them."""
    rows = client.read_arrow(view="overlapping", columns=["series_key", "valid_time", "known_time", "value", "run_id"])
    series = rows["series_key"].cast(pa.string()).combine_chunks().dictionary_encode().indices
    rows = rows.set_column(0, "series", series)
    rows = rows.set_column(4, "run_id", rows["run_id"].cast(pa.string()))
    peer.create("long_row", run_ids="String")
    peer.insert("long_row", rows)
    peer.merge("long_row")
    return peer.bytes("long_row") / int(rows.num_rows)


def _corrections(bench: Bench, client: Client, server: int, count: int) -> None:
    """P13: from request to receipt."""
    series = 64
    hours = -(-count // series)
    times = pa.array([START.timestamp() * 1e6 + hour * 3.6e9 for hour in range(hours)]).cast(pa.int64())
    rows = pa.table(
        {
            "series_key": pa.array([f"corrected-{number:02}" for number in range(series) for _ in range(hours)]),
            "valid_time": pa.concat_arrays([times] * series).cast(pa.timestamp("us", "UTC")),
            "value": pa.array([0.0] * (series * hours)),
        }
    )
    receipt = client.send(UploadCommand(run_id="corrected", rows=rows.num_rows), rows.to_reader())
    client.compact()
    ids = list(receipt["series_ids"].values())
    moments = times.cast(pa.timestamp("us", "UTC")).to_pylist()
    number = iter(range(1, 1000))

    def correct() -> dict[str, Any]:
        value = float(next(number))
        return client.update_values(
            {
                "run_id": "corrected",
                "series_id": ids[index % series],
                "valid_time": moments[index // series],
                "value": value,
            }
            for index in range(count)
        )

    bench.report.add(
        measure(
            "P13",
            f"{count:,} {CORRECTIONS}",
            US,
            correct,
            check=lambda answer: len(answer["updated"]) == count,
            times=min(3, bench.rounds),
            rows=count,
            server=server,
        )
    )


def _expect(client: Client, names: list[str], uploads: int) -> None:
    """See that all uploads of some series are there, each whole and once."""
    rows = client.read_arrow(view="overlapping", series_keys=names, columns=["run_id", "value"])
    if (found := (len(pc.unique(rows["run_id"])), rows.num_rows)) != (uploads, ROWS * uploads):
        raise Wrong(f"P7: {found} uploads and rows of {names[0]} and others, not {(uploads, ROWS * uploads)}")
