"""P2 to P6, P11 and P12: what is read of the history, through Flight and REST, beside the peers and the raw limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import orjson
import polars as pl
import pyarrow as pa
from pyarrow import flight

from benchmarks import servers
from benchmarks.bench import US, Bench, fingerprint, is_as
from benchmarks.history import flat, last_values, small_upload
from benchmarks.measuring import measure, measure_in_turn
from benchmarks.peers import Where
from timedb.contract.wire import UploadCommand

__all__ = ["flat_under_uploads", "last_value", "one_series", "rest_rows", "whole_history"]

FLAT, OVERLAPPING, KNOWN = "flat, all", "overlapping, all", "flat as known midway, all"
WEEK, LAST, ROWS = "one series, 7 days", "last value of each series", "rows as JSON over REST"
COLUMNS = ["series_key", "valid_time", "value"]
REVISIONS = ["series_key", "valid_time", "known_time", "value"]


def whole_history(bench: Bench) -> None:
    """P2, P3, P5: everything, flat, overlapping, and flat as known midway."""
    midway = bench.history.midway()
    truth = flat(bench.frame)
    bench.compete("P2", FLAT, partial(bench.fetch, columns=COLUMNS), truth, lambda peer: peer.flat("history"))
    everything = bench.frame.select(REVISIONS)
    overlapping = partial(bench.fetch, view="overlapping", columns=REVISIONS)
    bench.compete("P3", OVERLAPPING, overlapping, everything, lambda peer: peer.overlapping("history"))
    bench.compete(
        "P5",
        KNOWN,
        partial(bench.fetch, columns=COLUMNS, end_known=midway),
        flat(bench.frame.filter(pl.col("known_time") < midway)),
        lambda peer: peer.flat("history", Where(before_known=midway)),
    )
    raw_limits(bench, {("P2", FLAT): bench.fetch(columns=COLUMNS), ("P3", OVERLAPPING): overlapping()})
    raw_frames(bench, {("P2", FLAT): truth, ("P3", OVERLAPPING): everything})


def raw_limits(bench: Bench, answers: dict[tuple[str, str], pa.Table]) -> None:
    """The same bytes from a Flight server's memory."""
    for (target, _), answer in answers.items():
        with pa.ipc.new_stream(bench.folder / f"{target}.arrow", answer.schema) as file:
            file.write_table(answer)
    with servers.raw_flight(bench.folder) as url, flight.connect(url) as raw:
        for (target, work), answer in answers.items():
            ticket = flight.Ticket(target.encode())
            bench.report.add(
                measure(
                    target,
                    work,
                    "raw Flight",
                    partial(_get, raw, ticket),
                    check=partial(_as_long_as, answer.num_rows),
                    times=bench.rounds,
                    rows=answer.num_rows,
                )
            )


def raw_frames(bench: Bench, answers: dict[tuple[str, str], pl.DataFrame]) -> None:
    """The same rows by Polars from one local Parquet file, and the history by ArcticDB as it was written."""
    for (target, work), answer in answers.items():
        path = bench.folder / f"{target}.parquet"
        answer.write_parquet(path)
        bench.report.add(
            measure(
                target,
                work,
                "Polars from Parquet",
                partial(pl.read_parquet, path),
                check=partial(is_as, fingerprint(answer)),
                times=bench.rounds,
                rows=answer.height,
            )
        )
    if (arctic := bench.arctic) is not None:
        everything = answers["P3", OVERLAPPING]
        bench.report.add(
            measure(
                "P3",
                OVERLAPPING,
                arctic.name,
                lambda: arctic.read("history"),
                check=lambda _: fingerprint(arctic.answer("history")) == fingerprint(everything),
                times=bench.rounds,
                rows=everything.height,
            )
        )


def _get(raw: flight.FlightClient, ticket: flight.Ticket) -> pa.Table:
    return raw.do_get(ticket).read_all()


def _as_long_as(rows: int, answer: pa.Table) -> bool:
    return bool(answer.num_rows == rows)


def one_series(bench: Bench) -> None:
    """P4: seven days of one series over Flight, flat and overlapping; flat over REST too."""
    start, end = bench.history.last_week()
    name = bench.history.series_name()
    mine = bench.frame.filter(
        (pl.col("series_key") == name) & pl.col("valid_time").is_between(start, end, closed="left")
    )
    selection: dict[str, Any] = {"series_keys": [name], "start_valid": start, "end_valid": end}
    where = Where(series=bench.history.series // 2, start_valid=start, end_valid=end)
    truth = flat(mine)
    bench.compete(
        "P4",
        f"{WEEK}, flat",
        partial(bench.fetch, columns=COLUMNS, **selection),
        truth,
        lambda peer: peer.flat("history", where),
        times=10 * bench.rounds,
    )
    bench.compete(
        "P4",
        f"{WEEK}, overlapping",
        partial(bench.fetch, view="overlapping", columns=REVISIONS, **selection),
        mine.select(REVISIONS),
        lambda peer: peer.overlapping("history", where),
        times=10 * bench.rounds,
    )
    expected = truth.sort("valid_time")["value"].to_list()
    query = {"name": name, "start_valid": start.isoformat(), "end_valid": end.isoformat()}
    with httpx.Client(base_url=bench.served.rest_url, timeout=60) as http:
        bench.report.add(
            measure(
                "P4",
                f"{WEEK}, flat",
                "TimeDB over REST",
                lambda: http.get("/values", params=query).json(),
                check=lambda answer: [row["value"] for row in answer["data"]] == expected,
                times=10 * bench.rounds,
                rows=truth.height,
            )
        )


def flat_under_uploads(bench: Bench, uploads: int = 64) -> None:
    """P6: the flat view while uploads wait for compaction."""
    for number in range(uploads):
        rows = small_upload(f"waiting-{number % 8}", number)
        bench.client.send(UploadCommand(rows=rows.num_rows), rows.to_reader())
    answer = bench.fetch(columns=COLUMNS)
    bench.report.add(
        measure(
            "P6",
            f"flat, all, {uploads} uploads uncompacted",
            US,
            partial(bench.fetch, columns=COLUMNS),
            check=partial(_as_long_as, flat(bench.frame).height + 24 * uploads),
            times=bench.rounds,
            rows=answer.num_rows,
            server=bench.served.pid,
        )
    )


def last_value(bench: Bench, frame: pl.DataFrame) -> None:
    """P11: the last value of each of many series, on a history of their own that both hold already."""
    truth = last_values(frame)
    bench.compete(
        "P11",
        LAST,
        partial(bench.fetch, view="latest", columns=COLUMNS, labels={"set": "last"}),
        truth,
        lambda peer: peer.latest("last"),
    )


def rest_rows(bench: Bench, rows: int) -> None:
    """P12: rows as JSON over REST against orjson dumping the same rows held as dicts."""
    with httpx.Client(base_url=bench.served.rest_url, timeout=300) as http:

        def over_rest() -> bytes:
            return http.get("/values", params={"limit": rows}).raise_for_status().content

        held = json.loads(over_rest())["data"]
        contestants: dict[str, Callable[[], bytes]] = {US: over_rest, "orjson of dicts": lambda: orjson.dumps(held)}
        checks = {US: lambda body: json.loads(body)["data"] == held}
        found = measure_in_turn("P12", ROWS, contestants, checks=checks, times=bench.rounds, rows=len(held))
        for measurement in found.values():
            bench.report.add(measurement)
