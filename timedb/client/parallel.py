"""One answer over several streams: the server plans it once, and each part of it is fetched by itself."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import pyarrow as pa

from timedb.client.connection import Connection
from timedb.client.progress import RowCount
from timedb.client.read_stream import ReadStream
from timedb.contract.columns import META_CURSOR
from timedb.contract.errors import Busy
from timedb.contract.waiting import wait_in_slices
from timedb.contract.wire import ReadCommand

__all__ = ["fetch", "fetch_parts"]


def fetch(stream: ReadStream, count: RowCount | None) -> pa.Table:
    """The whole of a stream."""
    with stream:
        if count is None:
            return stream.read_all()
        batches = []
        for batch in stream:
            batches.append(batch)
            count.add(batch.num_rows)
        return pa.Table.from_batches(batches, stream.schema)


def fetch_parts(connection: Connection, read: ReadCommand, streams: int, count: RowCount | None) -> pa.Table:
    """The whole of an answer, from one snapshot, the parts in the order of the plan.

    Args:
        connection: The caller's.
        read: What is read.
        streams: How many at once, at most. If the server has no room for all of them, those that got in do the work.
        count: Counts the rows.

    Raises:
        TimeDBError: what the first part that fails raises; the others are given up.
    """
    plan = connection.plan(read)
    workers = min(streams, len(plan.endpoints))
    parts = _Parts(connection, [endpoint.ticket.ticket for endpoint in plan.endpoints], workers, count)
    with ThreadPoolExecutor(workers, "timedb-read") as pool:
        try:
            _wait_for([pool.submit(parts.work) for _ in range(workers)])
        except BaseException:
            parts.give_up()
            raise
    answer = parts.whole()
    # The cursor of a page is known with its last row: the stream has it, the plan has not.
    cursor = {name: text for name, text in (answer.schema.metadata or {}).items() if name == META_CURSOR}
    return answer.replace_schema_metadata({**(plan.schema.metadata or {}), **cursor})


def _wait_for(workers: list[Future[None]]) -> None:
    def are_done(seconds: float) -> bool:
        done, waiting = wait(workers, seconds, FIRST_EXCEPTION)
        for worker in done:
            worker.result()
        return not waiting

    wait_in_slices(are_done)


class _Parts:
    """The parts of an answer, and the workers that fetch them."""

    def __init__(self, connection: Connection, tickets: list[bytes], workers: int, count: RowCount | None) -> None:
        self._connection = connection
        self._count = count
        self._tickets = tickets
        self._tables: dict[int, pa.Table] = {}
        self._left = list(reversed(range(len(tickets))))
        self._open: set[ReadStream] = set()
        self._working = workers
        self._given_up = False
        self._lock = threading.Lock()

    def work(self) -> None:
        """Fetch parts until none is left, or until the server has no room for this worker beside the others."""
        while True:
            with self._lock:
                if self._given_up or not self._left:
                    return
                part = self._left.pop()
            try:
                stream = self._connection.stream_of(self._tickets[part])
            except Busy:
                with self._lock:
                    self._left.append(part)
                    self._working -= 1
                    if self._working:
                        return
                raise
            with self._lock:
                self._open.add(stream)
                if self._given_up:
                    stream.close()
            table = fetch(stream, self._count)
            with self._lock:
                self._open.discard(stream)
                self._tables[part] = table

    def give_up(self) -> None:
        """End every stream that is open; those that follow end as they begin."""
        with self._lock:
            self._given_up = True
            for stream in self._open:
                stream.close()

    def whole(self) -> pa.Table:
        """All parts, as one table."""
        return pa.concat_tables([self._tables[part] for part in range(len(self._tickets))])
