"""The bytes that are held while a file is read: run in a process of its own, as others would count in this one, too.

``python -m tests.timedb.layouts.held rows FILE …`` prints them for each CSV file, ``packed FILE`` for a packed one.
"""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pytest

from timedb.files import csv_tables
from timedb.layouts import duplicates, places, spool
from timedb.layouts.layout import Layout
from timedb.layouts.opening import open_bytes
from timedb.layouts.prepared import prepare

SAID = {"valid_time": "t", "value": "v", "series": "s", "time_format": "unix-s", "known_after": "0h"}


def make_parts_small(patch: pytest.MonkeyPatch) -> None:
    """Have everything that is cut or set down be so after a thousandth of what it usually is."""
    patch.setattr(csv_tables, "_BLOCK_BYTES", 4 << 10)
    patch.setattr(duplicates, "_RUN_ROWS", 1024)
    patch.setattr(duplicates, "_RANGE_BITS", 5)
    for module in (spool, places):
        patch.setattr(module, "_IN_MEMORY_BYTES", 16 << 10)


def most_bytes(work: Callable[[Callable[[int], None]], None]) -> int:
    """What Python and Arrow hold at most; of Arrow it is looked at whenever the work says so."""
    before, of_arrow = pa.total_allocated_bytes(), [0]
    tracemalloc.start()
    try:
        work(lambda _: of_arrow.append(pa.total_allocated_bytes() - before))
        return max(of_arrow) + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def by_rows(path: Path) -> int:
    """While a CSV file is prepared and its rows are read."""
    rows = path.read_text().count("\n") - 1

    def work(look: Callable[[int], None]) -> None:
        with prepare(path, Layout.of(SAID), nullcontext(look)) as prepared:
            assert prepared.rows == rows
            for _ in prepared.reader():
                look(0)

    return most_bytes(work)


def by_packed(path: Path) -> tuple[int, int]:
    """While a packed Parquet file is opened; and its bytes once it is unpacked."""
    sizes = []

    def work(look: Callable[[int], None]) -> None:
        with open_bytes(path, None) as (source, kind, _):
            assert kind == "parquet"
            look(0)
            sizes.append(source.size())

    return most_bytes(work), *sizes


def main(what: str, *paths: str) -> None:
    """Print what is held."""
    files = [Path(path) for path in paths]
    if what == "packed":
        print(json.dumps(by_packed(files[0])))
        return
    with pytest.MonkeyPatch.context() as patch:
        make_parts_small(patch)
        print(json.dumps([by_rows(path) for path in files]))


if __name__ == "__main__":
    main(*sys.argv[1:])
