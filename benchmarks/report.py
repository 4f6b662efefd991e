"""Writes the page of results from the JSON of runs: ``python -m benchmarks.report FOLDER > docs/benchmarks.md``.

The folder may hold ``run.json``, ``small_writes.json``, ``steady.json``, ``published.json``, ``growth.json`` and, of an
earlier state of the code, ``before.json``. Why a target is missed stands in ``benchmarks/reasons.toml``, what was
changed in ``benchmarks/changes.md``.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.compare import comparison
from benchmarks.measuring import Measurement, Report
from benchmarks.targets import Outcome

__all__ = ["page"]

HERE = Path(__file__).parent
_SMALL = ("P7a", "P7b", "P7d", "P13")
METHOD = """\
- **Data** is seeded. The history is series with runs of 48 hourly values of two decimals, a run every two
  hours, so that most values are revised 23 times; at size medium that is 100 series, 4,380 runs, 21,024,000
  rows, 880,600 winners.
- **The service** runs as users run it, `timedb serve` in a process of its own, with its defaults. Its peak
  memory is the kernel's (`VmHWM`), reset before each piece of work.
- **Times** are wall-clock medians of rounds in which the contestants take turns, after one round that does not
  count; loading and compacting happen once. A load ends when it is acknowledged, hence durable.
- **Clients at once** are Python processes, each with a connection of its own, which start at the same moment;
  ours call `Client.upload`, those of PostgreSQL psycopg. What was sent is counted and summed up in the store
  afterwards.
- **Answers**, the peers' too, are compared with the truth after the clock has stopped, by the number of their
  rows and a checksum of them; a wrong one ends the run.
- **Figures that others published** are quoted with their source and not divided by ours: only who ran in the
  same run on the same machine is compared.
"""
COMMANDS = """\
    make bench                                # all of this at size small, and this page anew
    make bench BENCH_ARGS="--size medium"     # the history of the targets

    python -m benchmarks.run --size medium --only P2 P3 --json run.json      # parts of it
    python -m benchmarks.published --json published.json
    python -m benchmarks.growth --json growth.json
    python -m benchmarks.steady --json steady.json --picture docs/steady-load.svg      # an hour
    python -m benchmarks.compare before.json run.json
    python -m benchmarks.report benchmarks/results > docs/benchmarks.md

Peers are optional. `make bench` installs `chdb` and `psycopg` (the extra `bench`), ArcticDB in an environment of
its own (`.venv-arcticdb`), and, as root on Debian, PostgreSQL; what is missing is left out and named below.
"""


def page(folder: Path) -> str:
    """The whole page."""
    parts = ["# Benchmarks", COMMANDS, "## Method", METHOD]
    sections = {
        "run": _run,
        "small_writes": _small_writes,
        "steady": _steady,
        "published": _published,
        "growth": _growth,
    }
    for name, section in sections.items():
        if (result := _load(folder / f"{name}.json")) is not None:
            parts += section(result)
    parts += _changes(_load(folder / "before.json"), _load(folder / "run.json"))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _load(path: Path) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def _facts(result: dict[str, Any]) -> str:
    names = ("command", "machine", "load", "system", "versions", "rows")
    return "\n".join(f"- {name}: {_number(result[name])}" for name in names if name in result)


def _number(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _report(result: dict[str, Any]) -> Report:
    fields = ("target", "work", "who", "seconds", "rows", "peak_mib", "checked")
    measurements = [Measurement(**{name: one[name] for name in fields}) for one in result["measurements"]]
    return Report(measurements, result["figures"], result.get("peers", {}))


def _run(result: dict[str, Any]) -> Iterator[str]:
    report = _report(result)
    yield "## Targets"
    yield _facts(result)
    reasons = tomllib.loads((HERE / "reasons.toml").read_text())
    lines = ["| | target | goal | found | | why |", "|---|---|---|--:|---|---|"]
    for one in result["targets"]:
        outcome = Outcome(*(one[name] for name in ("target", "text", "goal", "at_least", "found")))
        why = reasons.get(f"{outcome.target} {outcome.text}", "") if outcome.met is False else ""
        lines.append(f"{outcome.to_markdown()} {why} |")
    yield "\n".join(lines)
    yield "## Peers"
    yield "\n".join(f"- **{name}**: {how}." for name, how in report.peers.items())
    yield (
        "Raw limits: *raw Flight* is a Flight server that sends the same answer from memory, or takes and forgets; "
        "*Polars to Parquet* and *Polars from Parquet* write and read the same rows as one local file; "
        "*orjson of dicts* dumps the rows of an answer that Python holds as dicts."
    )
    yield "## Measurements"
    yield report.to_markdown()
    yield "\n".join(f"- {name}: {figure:.2f}" for name, figure in report.figures.items())


def _small_writes(result: dict[str, Any]) -> Iterator[str]:
    """Small writes that were measured by themselves, later than the rest: ``benchmarks.run --only P7a``."""
    report = _report(result)
    yield "## Small writes, by themselves"
    yield _facts(result)
    found = [
        Outcome(*(one[name] for name in ("target", "text", "goal", "at_least", "found"))) for one in result["targets"]
    ]
    lines = ["| | target | goal | found | |", "|---|---|---|--:|---|"]
    yield "\n".join([*lines, *(one.to_markdown() for one in found if one.target in _SMALL)])
    yield Report([one for one in report.measurements if one.target in _SMALL]).to_markdown()
    mine = {name: figure for name, figure in report.figures.items() if name.partition(" ")[0] in _SMALL}
    yield "\n".join(f"- {name}: {figure:.2f}" for name, figure in mine.items())
    yield result.get("profile", "")


def _steady(result: dict[str, Any]) -> Iterator[str]:
    samples = result["samples"]
    yield "## An hour of small uploads"
    yield _facts(result)
    yield (
        f"{result['clients']} clients upload 24 rows each time as fast as they are answered: {result['uploads']:,} "
        f"uploads, {result['rows']:,} rows, all in the lake, once. Replaced files and commits are kept for "
        f"{result['promise_minutes']:g} minutes here (a day by default). A row of the table is the median of a tenth "
        "of the time."
    )
    yield "![Memory, disk, files, latency, uploads a second and threads over the hour](steady-load.svg)"
    names = [name for name in samples[0] if name != "seconds"]
    lines = [f"| minute | {' | '.join(names).replace('_', ' ')} |", f"|--:|{'--:|' * len(names)}"]
    length = -(-len(samples) // 10)
    for start in range(0, len(samples), length):
        part = samples[start : start + length]
        figures = " | ".join(_number(float(statistics.median(one[name] for one in part))) for name in names)
        lines.append(f"| {part[-1]['seconds'] / 60:.0f} | {figures} |")
    yield "\n".join(lines)
    yield result.get("profile", "")


def _published(result: dict[str, Any]) -> Iterator[str]:
    yield "## Published workloads"
    yield _facts(result)
    yield "\n".join(f"- **{name}**: {how}." for name, how in result.get("peers", {}).items())
    titles = {
        "W1": "14 x 100,000 one-minute rows into one series",
        "W2": "10 revisions of 72,000 hourly rows",
        "W3": "500 events x 100 horizons x 2 sources",
        "W4": "6,000 series x 288 values",
        "W5": "1,000 small appends, then a read",
        "W6": "Ten writers",
    }
    for workload, title in titles.items():
        mine = [one for one in _report(result).measurements if one.target == workload]
        if not mine:
            continue
        yield f"### {workload}: {title}"
        ranges = [one for one in mine if re.fullmatch(r"read of [\d,]+ rows, \w+", one.work)]
        yield Report([one for one in mine if one not in ranges]).to_markdown()
        if ranges:
            yield _ranges(ranges)
        quotes = [quote for quote in result["quotes"] if quote["workload"] == workload]
        if quotes:
            yield "Published by others, elsewhere:"
            yield "\n".join(f"- {quote['figure']} ({quote['source']})" for quote in quotes)


def _ranges(ranges: list[Measurement]) -> str:
    found: dict[str, dict[str, Measurement]] = {}
    for one in ranges:
        size, _, position = one.work.removeprefix("read of ").partition(" rows, ")
        found.setdefault(size, {})[position] = one
    positions = list(next(iter(found.values())))
    lines = [f"| rows read, median | {' | '.join(positions)} |", f"|--:|{'--:|' * len(positions)}"]
    for size, row in found.items():
        lines.append(f"| {size} | {' | '.join(f'{1000 * row[name].median:.1f} ms' for name in positions)} |")
    return "\n".join(lines)


def _growth(result: dict[str, Any]) -> Iterator[str]:
    points = result["points"]
    yield "## Growth"
    yield _facts(result)
    yield (
        "Lakes grow along one axis at a time, from 10 series with 10 runs of 48 hourly values and 10 small uploads "
        "that wait uncompacted; each operation is of fixed size (a bulk upload has 48,000 rows) but those on *all*. "
        "The exponent is the slope of the straight line through the logarithms of cost and size: 0 is constant, 1 is "
        "proportional."
    )
    for axis in dict.fromkeys(point["axis"] for point in points):
        mine = [point for point in points if point["axis"] == axis]
        counts = " | ".join(f"{point[{'revisions': 'runs'}.get(axis, axis)]:,}" for point in mine)
        lines = [f"| {axis} | {counts} | exponent |", f"|---|{'--:|' * (len(mine) + 1)}"]
        for operation, slopes in result["exponents"].items():
            costs = " | ".join(_number(point["costs"].get(operation, float("nan"))) for point in mine)
            lines.append(f"| {operation} | {costs} | {slopes[axis]:.2f} |")
        yield "\n".join(lines)
    yield "### A year of 10,000 series with 96 runs a day"
    yield str(result["method"]).replace("``", "`")
    lines = [f"| {name} | {_number(value)} |" for name, value in result["projection"].items()]
    yield "\n".join(["| | a year |", "|---|--:|", *lines])


def _changes(before: dict[str, Any] | None, after: dict[str, Any] | None) -> Iterator[str]:
    yield "## Before and after"
    yield (HERE / "changes.md").read_text()
    if before is not None and after is not None and before != after:
        yield f"All that both runs measured. Before: {before['command']}, {before['versions']}, load {before['load']}."
        yield comparison(before, after)


if __name__ == "__main__":
    print(page(Path(sys.argv[1])), end="")
