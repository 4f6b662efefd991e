"""P1, P7, P8, P9: the history as one upload, small uploads, one wide run, and the bytes that are left of it all."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import flight

from benchmarks import servers
from benchmarks.bench import US, Bench
from benchmarks.clients import ROWS, names, uploads_at_once
from benchmarks.history import START, small_upload
from benchmarks.measuring import Measurement, Wrong, measure, measure_in_turn
from benchmarks.peers import numbered
from timedb.contract.wire import UploadCommand

__all__ = ["load", "many_clients", "small_uploads", "wide_run"]

LOAD, COMPACT, WIDE = "load the history", "until compacted", "one run of many series"
SMALL, MANY = "uploads of 24 rows", "uploads of 24 rows, many clients at once"
APPENDED = f"{MANY}, by append"


def load(bench: Bench) -> None:
    """P1: the whole history as one upload until acknowledged, and until compacted; P9: what it takes then."""
    rows = bench.history.rows
    table = bench.frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    once = partial(measure, times=1, warm=0, rows=rows)
    ours = once(
        "P1",
        LOAD,
        US,
        lambda: bench.client.send(UploadCommand(), table.to_reader(max_chunksize=65_536)),
        check=lambda receipt: receipt["rows"] == rows,
        server=bench.served.pid,
    )
    bench.report.add(ours)
    bench.report.add(once("P1", COMPACT, US, bench.client.compact, server=bench.served.pid))
    bench.report.figures["P9 bytes a row, TimeDB"] = bench.client.status()["bytes"] / rows
    given = numbered(bench.frame)
    for peer in bench.peers:
        peer.create("history")
        bench.report.add(once("P1", LOAD, peer.name, partial(peer.insert, "history", given)))
        bench.report.add(once("P1", COMPACT, peer.name, partial(peer.merge, "history")))
        bench.report.figures[f"P9 bytes a row, {peer.name}"] = peer.bytes("history") / rows
    if (arctic := bench.arctic) is not None:
        arctic.give("history", bench.frame)
        bench.report.add(once("P1", LOAD, arctic.name, partial(arctic.write, "history")))
        bench.report.figures[f"P9 bytes a row, {arctic.name}"] = arctic.bytes("history") / rows
    path = bench.folder / "history.parquet"
    bench.report.add(measure("P1", LOAD, "Polars to Parquet", lambda: bench.frame.write_parquet(path), rows=rows))
    path.unlink()
    with servers.raw_flight(bench.folder) as url, flight.connect(url) as raw:
        bench.report.add(measure("P1", LOAD, "raw Flight", lambda: _put(raw, table), rows=rows))


def _put(raw: flight.FlightClient, table: pa.Table) -> None:
    """Send the history to a server that forgets it."""
    writer, _ = raw.do_put(flight.FlightDescriptor.for_path("history"), table.schema)
    with writer:
        writer.write_table(table, max_chunksize=65_536)


def small_uploads(bench: Bench, count: int) -> None:
    """P7: many uploads of 24 rows one after the other: the first tenth and the last."""
    seconds = []
    for number in range(count):
        table = small_upload("small-0", number)
        start = time.perf_counter()
        bench.client.send(UploadCommand(rows=24), table.to_reader())
        seconds.append(time.perf_counter() - start)
    tenth = max(1, count // 10)
    answer = bench.fetch(series_keys=["small-0"])
    if answer.num_rows != 24 * count:
        raise Wrong(f"P7: {answer.num_rows} rows of {24 * count}")
    for part, taken in (("first tenth", seconds[:tenth]), ("last tenth", seconds[-tenth:])):
        bench.report.add(Measurement("P7", f"{SMALL}, {part}", US, taken, 24, checked=True))


def many_clients(bench: Bench, clients: int, uploads: int, turns: int) -> None:
    """P7, P7c: many Python clients at once: ours by a call an upload, ours by a stream each, and those of PostgreSQL.

    They come in turn, and none of it may be lost.
    """
    postgres = bench.postgres
    numbers = None if postgres is None else postgres.series(names("many", clients))
    calls, streams, theirs = list[float](), list[float](), list[float]()
    for turn in range(turns):
        at_once = partial(uploads_at_once, turn=turn, clients=clients, uploads=uploads)
        calls.append(at_once("timedb", bench.served.flight_url, "many"))
        streams.append(at_once("append", bench.served.flight_url, "appended"))
        if postgres is not None:
            theirs.append(at_once("postgres", postgres.url, "many", series=numbers))
    found = [
        ("P7", MANY, US, calls, _held(bench, names("many", clients))),
        ("P7c", APPENDED, US, streams, _held(bench, names("appended", clients))),
    ]
    if postgres is not None:
        found.append(("P7", MANY, postgres.name, theirs, postgres.held()))
    sent = clients * turns * (uploads + 1)
    wanted = (sent, ROWS * sent, float(ROWS * clients * sum(range(turns * (uploads + 1)))))
    for target, work, who, seconds, held in found:
        if held != wanted:
            raise Wrong(f"{target} {work}: {who} holds {held} uploads, rows and their sum, not {wanted}")
        bench.report.add(Measurement(target, work, who, seconds, ROWS * clients * uploads, checked=True))
        rate = clients * uploads / bench.report.measurements[-1].median
        bench.report.figures[f"{target} uploads a second of {clients} clients, {who}"] = rate


def _held(bench: Bench, series: list[str]) -> tuple[int, int, float]:
    """How many uploads of some series we hold, their rows, and the sum of these."""
    rows = bench.fetch(view="overlapping", series_keys=series, columns=["run_id", "value"])
    return len(pc.unique(rows["run_id"])), rows.num_rows, pc.sum(rows["value"]).as_py()


def wide_run(bench: Bench, series: int, values: int = 288) -> None:
    """P8: one run of many series, several times; each is another run. What came before is compacted first."""
    bench.client.compact()
    frame = pl.DataFrame(
        {
            "series_key": np.repeat([f"wide-{index:05}" for index in range(series)], values),
            "value": np.random.default_rng(8).normal(50.0, 9.0, series * values).round(2),
        }
    ).with_columns(
        valid_time=(pl.lit(START) + pl.duration(minutes=5 * (pl.int_range(pl.len()) % values))).dt.cast_time_unit("us"),
        known_time=pl.lit(START, pl.Datetime("us", "UTC")),
    )
    table = frame.with_columns(pl.col("series_key").cast(pl.Categorical)).to_arrow(compat_level=pl.CompatLevel.oldest())
    contestants: dict[str, Callable[[], Any]] = {
        US: lambda: bench.client.send(UploadCommand(), table.to_reader(max_chunksize=65_536))["rows"]
    }
    given = numbered(frame)
    for peer in bench.peers:
        peer.create("wide")
        contestants[peer.name] = partial(peer.insert, "wide", given)
    found = measure_in_turn(
        "P8",
        WIDE,
        contestants,
        checks={US: lambda rows: rows == frame.height},
        times=bench.rounds,
        rows=frame.height,
        server=bench.served.pid,
    )
    for measurement in found.values():
        bench.report.add(measurement)
