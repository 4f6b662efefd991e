"""Rows as they are committed, from the client's side: over one connection after the other, each row once."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from tenacity import Retrying, retry_if_exception_type, sleep_using_event, stop_when_event_set, wait_random_exponential

from timedb.client.connection import Connection
from timedb.client.read_stream import TokenStream
from timedb.client.selection import fields_of, message_of
from timedb.contract.errors import Busy, Timeout
from timedb.contract.read_options import Filters
from timedb.contract.wire import FollowTicket

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Literal, Self, Unpack

    import polars as pl

__all__ = ["FollowCalls", "Follower"]

_LOST = (Busy, Timeout)
_SLICE_SECONDS = 0.5  # of waiting, so that Ctrl+C is heard
_SILENT_HEARTBEATS, _SILENT_SECONDS = 2, 60.0
_HELD = 2  # messages that lie ready

_Message = tuple[pa.RecordBatch, str]


class FollowCalls:
    """The part of :class:`~timedb.client.Client` that is about what is being written."""

    _connection: Connection

    def follow_stream(self, ticket: FollowTicket) -> TokenStream:
        """Start to follow, over one connection, and get its messages as they arrive."""
        return self._connection.follow(ticket)

    def follow(
        self,
        *,
        since: str | Literal["now"] | None = None,
        columns: list[str] | None = None,
        wait: bool = True,
        **filters: Unpack[Filters],
    ) -> Follower:
        """Follow what is written: every version of every revision that passes the filters, once, as it is committed.

        Where the connection is lost, or the server starts anew, it goes on from where it was as soon as it can.

        Args:
            since: The token from which to go on; ``"now"``: only what is written from now on; None: all that there is,
                from the beginning.
            columns: Those of the frames; None: ``series_id, valid_time, valid_time_end, value`` and who wrote it when
                and why.
            wait: False ends when all has come that there is by then.
            **filters: See :class:`Filters`. Labels take in series that are made later.

        Returns:
            An iterator over ``(frame, token)``: a Polars frame with rows, texts as ``String``, and the token from which
            another call goes on behind them. Keep it with what you made of the rows, and none is missed or doubled.

        Raises:
            InvalidRequest: a filter or the token does not fit, or retention has removed rows that follow it.
            NotFound: a series does not exist.
            Unauthenticated: the key has been withdrawn.

        Examples:
            >>> with client.follow(series_keys="wind", wait=False) as written:
            ...     for frame, token in written:
            ...         pass
            >>> later = client.follow(since=token, series_keys="wind", columns=["value"])
            >>> rows = pl.DataFrame({"series_key": "wind", "valid_time": [hours[1]], "value": [9.0]})
            >>> _ = client.upload(rows, run_id="wind-3", known_time=day)
            >>> frame, token = next(later)
            >>> frame["value"].to_list()
            [9.0]
            >>> later.close()
        """
        fields: dict[str, Any] = {"since": since, "columns": columns, "wait": wait}
        return Follower(self._connection, message_of(FollowTicket, fields | fields_of(filters)))


class Follower:
    """What is being written, as an iterator over ``(frame, token)``; a context manager that ends it.

    Made by :meth:`~timedb.client.Client.follow`, with which it has begun: what is written afterwards is seen. One
    thread iterates; :meth:`close` may be called from another.

    Attributes:
        token: From where another one would go on: behind the rows that were taken last, or later where nothing else
            was written.
    """

    def __init__(self, connection: Connection, ticket: FollowTicket) -> None:
        self._connection = connection
        self._ticket = ticket
        self._closed = threading.Event()
        self.token = ticket.since
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[pl.DataFrame, str]:
        import polars as pl

        message = self._next()
        if message is None:
            raise StopIteration
        batch, token = message
        return pl.DataFrame(batch), token

    def batches(self) -> Iterator[tuple[pa.RecordBatch, str]]:
        """The rows as they come over the wire, each batch with the token from which another call goes on behind it.

        Raises:
            TimeDBError: it cannot go on.
        """
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> _Message | None:
        """The next message that has rows; None: there is none, as it is closed, or does not wait."""
        while True:
            try:
                message = self._take()
            except BaseException:
                self.close()
                raise
            if message is None:
                self.close()
                return None
            batch, self.token = message
            if batch.num_rows:
                return message

    def close(self) -> None:
        """End it, also while somebody waits for rows; a second time does nothing."""
        self._closed.set()
        self._feed.close()

    def _begin(self) -> None:
        """Connect, and wait until the server has said something: from then on it tells of all that is written."""
        feed = _Feed(self._connection.follow(self._ticket.model_copy(update={"since": self.token})))
        try:
            self._first = feed.take(self._closed)
        except BaseException:
            feed.close()
            raise
        self._feed = feed
        if self._first is not None and not self._first[0].num_rows:
            self.token = self._first[1]

    def _take(self) -> _Message | None:
        """The next message, over another connection where this one is lost; None: there is none."""
        message, self._first = self._first, None
        while message is None and not self._closed.is_set():
            try:
                message = self._feed.take(self._closed)
                if message is None and not self._ticket.wait:
                    return None
                if message is None and not self._closed.is_set():
                    raise Busy(f"the Flight server at {self._connection.url} ended what has no end")
            except _LOST:
                self._begin_anew()
                message, self._first = self._first, None
        return message

    def _begin_anew(self) -> None:
        self._feed.close()
        trying = Retrying(
            retry=retry_if_exception_type(_LOST),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            sleep=sleep_using_event(self._closed),
            stop=stop_when_event_set(self._closed),
            reraise=True,
        )
        try:
            trying(self._begin)
        except _LOST:
            if not self._closed.is_set():
                raise


class _Feed:
    """The messages of one connection, read on a thread of its own: a wait inside gRPC hears no Ctrl+C.

    Attributes:
        close: Ends the call; a second time does nothing. It is ended, too, when nobody has the feed any more.
    """

    def __init__(self, stream: TokenStream) -> None:
        self._ready: queue.Queue[_Message | BaseException | None] = queue.Queue(_HELD)
        self._silent_seconds = _SILENT_HEARTBEATS * stream.heartbeat_seconds + _SILENT_SECONDS
        stopped = threading.Event()
        self.close = weakref.finalize(self, _stop, stream, stopped)
        reading = (stream, self._ready, stopped)
        threading.Thread(target=_read, args=reading, name="timedb-follow", daemon=True).start()

    def take(self, closed: threading.Event) -> _Message | None:
        """The next message; None: there is none, or ``closed`` is set.

        Raises:
            Busy: the connection is lost, or its server has been silent for too long.
            TimeDBError: what the server says.
        """
        deadline = time.monotonic() + self._silent_seconds
        while not closed.is_set():
            try:
                found = self._ready.get(timeout=_SLICE_SECONDS)
            except queue.Empty:
                if time.monotonic() > deadline:
                    raise Busy(f"nothing came for {self._silent_seconds:g} seconds") from None
                continue
            if isinstance(found, BaseException):
                raise found
            return found
        return None


def _stop(stream: TokenStream, stopped: threading.Event) -> None:
    stopped.set()
    stream.close()


def _read(stream: TokenStream, ready: queue.Queue[_Message | BaseException | None], stopped: threading.Event) -> None:
    while True:
        found: _Message | BaseException | None
        try:
            found = next(stream, None)
        except BaseException as error:
            found = error
        while not stopped.is_set():
            try:
                ready.put(found, timeout=_SLICE_SECONDS)
                break
            except queue.Full:
                continue
        if stopped.is_set() or not isinstance(found, tuple):
            return
