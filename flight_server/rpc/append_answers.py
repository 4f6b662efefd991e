"""The answers of a stream of runs: sent from a thread of their own, as a client may be slow to take them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
from pyarrow import flight

from timedb.contract.errors import TimeDBError, TooLarge
from timedb.flight_server.call.context import CallContext
from timedb.flight_server.call.errors import error_body
from timedb.flight_server.call.messages import to_json
from timedb.flight_server.call.pieces import answers_of

__all__ = ["AppendAnswers"]


class AppendAnswers:
    """Sends what runs have become, in the order in which it is given.

    Args:
        call: The call.
        writer: To the client.
    """

    def __init__(self, call: CallContext, writer: flight.MetadataRecordBatchWriter) -> None:
        self._call = call
        self._writer = writer
        self._waiting: deque[tuple[int, dict[str, Any] | TimeDBError, Callable[[], object]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = self._gone = False
        self._sending_since: float | None = None

    def receipt(self, seq: int, receipt: dict[str, Any], sent: Callable[[], object]) -> None:
        """Answer a run that is durable; ``sent`` is called when the answer is on its way, or nobody is there for it."""
        self._put(seq, receipt, sent)

    def error(self, seq: int, error: TimeDBError, sent: Callable[[], object]) -> None:
        """Answer a run that was not written."""
        self._put(seq, error, sent)

    @property
    def stalled_seconds(self) -> float:
        """For how long the client has not taken the answer that is being sent."""
        since = self._sending_since
        return 0.0 if since is None else time.monotonic() - since

    def leave(self) -> None:
        """Nobody is there any more to take answers."""
        self._gone = True

    def close(self) -> None:
        """Send what is left. Must be called before the call ends: the thread uses its stream."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
        if self._gone:
            # pyarrow would close it while it cleans up, and write to standard error that this failed.
            with suppress(pa.ArrowException, OSError):
                self._writer.close()

    def _put(self, seq: int, answer: dict[str, Any] | TimeDBError, sent: Callable[[], object]) -> None:
        with self._changed:
            self._waiting.append((seq, answer, sent))
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_all, name="timedb-append-answers", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                seq, answer, sent = self._waiting.popleft()
            try:
                self._send(seq, answer)
            finally:
                self._sending_since = None
                sent()

    def _send(self, seq: int, answer: dict[str, Any] | TimeDBError) -> None:
        if self._gone:
            return
        try:
            for message in self._messages(seq, answer):
                self._sending_since = time.monotonic()
                self._writer.write_metadata(message)
        except (pa.ArrowException, OSError) as error:
            self._gone = True  # whoever sends the run again learns what became of it
            self._call.log.info("the client left before its answers: %s", ascii(error))
        except BaseException:  # the others of the stream are still to be counted out
            self._gone = True
            self._call.log.exception("the answers of a stream could not be sent")

    def _messages(self, seq: int, answer: dict[str, Any] | TimeDBError) -> Iterator[bytes]:
        if isinstance(answer, TimeDBError):
            yield to_json({"seq": seq, "error": error_body(answer, self._call.request_id)})
            return
        try:
            yield from answers_of(seq, answer, self._call.message_bytes)
        except TooLarge:
            short = {**answer, "series_ids": {}, "series": [], "series_omitted": True}
            yield to_json({"seq": seq, "receipt": short})
