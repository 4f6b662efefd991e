"""How far a transfer is: a bar for people, or a function of the caller's."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from timedb.client.connection import BatchSource

__all__ = ["CountedBatches", "Progress", "RowCount", "bar", "counting"]

Progress = bool | Callable[[int], None]
"""True: a bar on standard error, where that is a terminal or a notebook. A function: called with the rows so far."""


class RowCount:
    """Counts the rows that have been transferred. Thread-safe.

    Args:
        show: Called with the rows so far, by one thread at a time.
    """

    def __init__(self, show: Callable[[int], None]) -> None:
        self._show = show
        self._rows = 0
        self._lock = threading.Lock()

    def add(self, rows: int) -> None:
        """Count rows that have arrived since, and show the new sum."""
        with self._lock:
            self._rows += rows
            self._show(self._rows)

    def restart(self) -> None:
        """From the beginning: what was transferred did not count."""
        with self._lock:
            self._rows = 0


class CountedBatches:
    """Batches that are counted as they are taken: each when the next one is asked for, so when it has gone out."""

    def __init__(self, batches: BatchSource, count: RowCount) -> None:
        self.schema: pa.Schema = batches.schema
        self._batches = batches
        self._count = count

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            yield batch
            self._count.add(batch.num_rows)


@contextmanager
def counting(progress: Progress, what: str, total: int | None = None) -> Iterator[RowCount | None]:
    """Show what is counted inside.

    Args:
        progress: How; False: not at all, and there is nothing to count with.
        what: The first word of the bar.
        total: Rows in all, where that is known.
    """
    if progress is False:
        yield None
    elif progress is True:
        with bar(what, total) as show:
            yield RowCount(show)
    else:
        yield RowCount(progress)


@contextmanager
def bar(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal or a notebook; elsewhere nothing.

    Args:
        what: The first word.
        total: Rows in all, where that is known.

    Yields:
        What to call with the rows so far.
    """
    if not sys.stderr.isatty() and "IPython" not in sys.modules:
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]} rows"))
    shown = console.is_terminal or console.is_jupyter
    with Bar(*columns, TimeElapsedColumn(), console=console, disable=not shown) as lines:
        task = lines.add_task(what, total=total, rows="0")
        yield lambda rows: lines.update(task, completed=rows, rows=f"{rows:,}")
        if total is None:
            lines.update(task, total=1, completed=1)
