"""The targets of the design, and where a report stands with each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import reads, small_writes, writes
from benchmarks.bench import US
from benchmarks.clickhouse import ClickHouse
from benchmarks.measuring import Report
from benchmarks.postgres import PostgreSQL

__all__ = ["Outcome", "outcomes"]

_LONG_ROW = (("P7d p50 of the last uploads by that of the first", 1.2), ("P7d live files", 200))
PEER, OLD = ClickHouse.name, PostgreSQL.name


@dataclass(frozen=True)
class Outcome:
    """One target: what was found, what is wanted; ``found`` is None where something was not measured."""

    target: str
    text: str
    goal: float
    at_least: bool
    found: float | None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where it was not measured."""
        if self.found is None:
            return None
        return self.found >= self.goal if self.at_least else self.found <= self.goal

    def to_markdown(self) -> str:
        """A line of the table."""
        found = "not measured" if self.found is None else f"{self.found:.2f}"
        verdict = {None: "", True: "met", False: "**missed**"}[self.met]
        return f"| {self.target} | {self.text} | {'≥' if self.at_least else '≤'} {self.goal:g} | {found} | {verdict} |"


def outcomes(report: Report) -> list[Outcome]:
    """Every target that a run can tell of, in order."""
    speed = _ratios(report)
    peaks = [one.peak_mib for one in report.measurements if one.target in ("P1", "P3") and one.peak_mib]
    week = f"{reads.WEEK}, flat"
    all_flat = report.median("P2", reads.FLAT, US)
    waiting = next((one.median for one in report.measurements if one.target == "P6"), None)
    small = [report.median("P7", f"{writes.SMALL}, {part} tenth", US) for part in ("last", "first")]
    sizes = [report.figures.get(f"P9 bytes a row, {who}") for who in (US, PEER)]
    long_row = [report.figures.get(name) for name in (small_writes.BYTES, small_writes.BYTES_THERE)]
    rest = report.median("P4", week, "TimeDB over REST")
    return [
        Outcome("P1", "load, speed against ClickHouse's insert", 2, True, speed("P1", writes.LOAD, PEER)),
        Outcome(
            "P1", "load, speed against Polars to Parquet", 0.5, True, speed("P1", writes.LOAD, "Polars to Parquet")
        ),
        Outcome("P2", "flat, speed against ClickHouse", 20, True, speed("P2", reads.FLAT, PEER)),
        Outcome("P3", "overlapping, speed against ClickHouse", 5, True, speed("P3", reads.OVERLAPPING, PEER)),
        Outcome("P3", "overlapping, speed against raw Flight", 0.6, True, speed("P3", reads.OVERLAPPING, "raw Flight")),
        Outcome("P4", "one series flat, time against ClickHouse", 1, False, _inverse(speed("P4", week, PEER))),
        Outcome(
            "P4",
            "one series overlapping, time against ClickHouse",
            1,
            False,
            _inverse(speed("P4", f"{reads.WEEK}, overlapping", PEER)),
        ),
        Outcome("P4", "over REST, time against ClickHouse", 2, False, _share(rest, report.median("P4", week, PEER))),
        Outcome("P5", "flat as known midway, speed against ClickHouse", 3, True, speed("P5", reads.KNOWN, PEER)),
        Outcome("P6", "flat with uploads uncompacted, time against P2", 3, False, _share(waiting, all_flat)),
        Outcome("P7", "small uploads, time of the last against the first", 1.3, False, _share(*small)),
        Outcome("P7", "32 clients at once, uploads/s against TimeDB 0.1", 2, True, speed("P7", writes.MANY, OLD)),
        Outcome(
            "P7c",
            "32 clients by append, uploads/s against TimeDB 0.1",
            3,
            True,
            _share(report.median("P7", writes.MANY, OLD), report.median("P7c", writes.APPENDED, US)),
        ),
        Outcome(
            "P7a",
            "24 rows by one client, time against a raw do_put",
            4,
            False,
            _inverse(speed("P7a", small_writes.ONE, small_writes.RAW)),
        ),
        Outcome(
            "P7b",
            "clients at once, uploads/s against a raw do_put",
            0.7,
            True,
            speed("P7b", small_writes.AT_ONCE, small_writes.RAW),
        ),
        *(Outcome("P7d", name.removeprefix("P7d "), goal, False, report.figures.get(name)) for name, goal in _LONG_ROW),
        Outcome("P7d", "bytes a row against ClickHouse's with the same run_ids", 0.8, False, _share(*long_row)),
        Outcome("P8", "one wide run, speed against ClickHouse's insert", 1.5, True, speed("P8", writes.WIDE, PEER)),
        Outcome(
            "P13",
            "100,000 corrections in one call, s",
            2,
            False,
            report.median("P13", f"100,000 {small_writes.CORRECTIONS}", US),
        ),
        Outcome("P9", "bytes of the live files against ClickHouse", 0.6, False, _share(*sizes)),
        Outcome("P10", "peak memory of the server in P1 and P3, GiB", 1, False, max(peaks) / 1024 if peaks else None),
        Outcome("P11", "last values, speed against ClickHouse", 10, True, speed("P11", reads.LAST, PEER)),
        Outcome(
            "P12",
            "REST rows, time against orjson dumping dicts",
            2,
            False,
            _inverse(speed("P12", reads.ROWS, "orjson of dicts")),
        ),
    ]


def _ratios(report: Report) -> Callable[[str, str, str], float | None]:
    def speed(target: str, work: str, who: str) -> float | None:
        return _share(report.median(target, work, who), report.median(target, work, US))

    return speed


def _share(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def _inverse(ratio: float | None) -> float | None:
    return None if not ratio else 1 / ratio
