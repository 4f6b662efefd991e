"""InfluxDB's line protocol as the run that it would be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.files.line_protocol import PRECISIONS, open_line_protocol
from timedb.layouts.guessing import Looks
from timedb.layouts.layout import Layout
from timedb.layouts.opening import OpenTable, open_bytes
from timedb.layouts.prepared import Prepared, prepare_table
from timedb.layouts.spool import Spool

__all__ = ["prepare_lines"]


@contextmanager
def prepare_lines(
    path: Path,
    layout: Layout,
    progress: AbstractContextManager[Callable[[int], None]],
    precision: str = "ns",
    ignore: Collection[str] = (),
) -> Iterator[Prepared]:
    """Read a file of lines whole and check it; the rows are kept until the block ends.

    Args:
        path: The file; ``-`` is standard input.
        layout: ``known_after``, ``label_value``, ``duplicates`` and the like; nothing of how a file is written.
        progress: While it is read, called with the rows so far.
        precision: What timestamps count.
        ignore: Fields that are left out.

    Raises:
        InvalidRequest: names line, text and remedy.
    """
    if precision not in PRECISIONS:
        raise InvalidRequest(f"precision: {quoted(precision)} is none of {', '.join(PRECISIONS)}", field="precision")
    with open_bytes(path, "csv") as (source, _, what), Spool() as spool, progress as show:
        table = open_line_protocol(source, what, precision, ignore)
        opened = OpenTable(what, table, "line protocol", layout.csv_form(), Looks())
        yield prepare_table(opened, layout, spool, progress=show)
