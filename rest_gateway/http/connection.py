"""The gateway's one connection to the Flight server, and each caller's use of it."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pyarrow as pa
from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers

from timedb.client import Client, connect
from timedb.client.read_stream import TokenStream
from timedb.contract.errors import Busy, InvalidRequest, NotFound, TimeDBError, Unavailable
from timedb.contract.wire import (
    AccuracyCommand,
    CorrectCommand,
    FollowTicket,
    GetRun,
    ReadCommand,
    UploadCommand,
    WireModel,
)
from timedb.rest_gateway.http.errors import status_of

__all__ = ["CallerClient", "FlightConnection", "FollowedBatches", "ReadBatches", "TheCaller", "key_of"]

# What gRPC carries in a text header; anything else cannot be a key and is treated as none.
_SENDABLE_KEY = re.compile(r"[\x21-\x7e]{1,1024}")
_NO_SUCH_RUN = GetRun(run_id="-")
_log = logging.getLogger("timedb.rest")

_key_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The caller's API key.")
_bearer = HTTPBearer(auto_error=False, description="The caller's API key as a bearer token.")


class FlightConnection:
    """Connects to the Flight server at the first call, once for the whole app. Thread-safe.

    Args:
        flight_url: For example ``grpc://127.0.0.1:8815``.
        timeout: Seconds after which a call that is no stream fails; None: as every client's.
    """

    def __init__(self, flight_url: str, timeout: float | None = None) -> None:
        self._flight_url = flight_url
        self._timeout = timeout
        self._lock = threading.Lock()
        self._client: Client | None = None

    def as_caller(self, api_key: str | None, request_id: str | None = None) -> CallerClient:
        """The shared connection under the caller's key, and under no other."""
        with self._lock:
            if self._client is None:
                # The empty key keeps the client from looking for one in the environment.
                self._client = connect(self._flight_url, api_key="", timeout=self._timeout)
            return CallerClient(self._client.as_caller(api_key, request_id))

    def close(self) -> None:
        """Close the connection; a later call opens it anew."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


class CallerClient:
    """What one caller asks of the Flight server.

    Where the connection fails, the error that comes out says no more than its code does: which server that was and
    what gRPC said of it is for the log.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def call(self, action: str, message: WireModel) -> dict[str, Any]:
        """Do an action; as :meth:`timedb.client.Client.call`."""
        with _transport_hidden():
            return self._client.call(action, message)

    def send(self, command: UploadCommand | CorrectCommand, reader: pa.RecordBatchReader) -> dict[str, Any]:
        """Send an upload, or a table of corrections; as :meth:`timedb.client.Client.send`."""
        with _transport_hidden():
            return self._client.send(command, reader)

    def stream(self, read: ReadCommand | AccuracyCommand) -> ReadBatches:
        """Start a read; as :meth:`timedb.client.Client.stream`."""
        with _transport_hidden():
            return ReadBatches(self._client, read)

    def follow(self, ticket: FollowTicket) -> FollowedBatches:
        """Start to follow; as :meth:`timedb.client.Client.follow_stream`."""
        with _transport_hidden():
            return FollowedBatches(self._client.follow_stream(ticket))

    def check_access(self) -> None:
        """Ask for something that never exists, to learn whether the Flight server serves this caller.

        Raises:
            TimeDBError: it does not.
        """
        try:
            self.call("get_run", _NO_SUCH_RUN)
        except NotFound:
            return


class ReadBatches:
    """The record batches of a read. One thread reads at a time; any thread may close.

    Attributes:
        schema: Of the batches, with the metadata of the answer.
    """

    def __init__(self, client: Client, read: ReadCommand | AccuracyCommand) -> None:
        self._stream = client.stream(read)
        self.schema: pa.Schema = self._stream.schema
        self.close = self._stream.close

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            with _transport_hidden():
                batch = next(self._stream, None)
            if batch is None:
                return
            yield batch


class FollowedBatches:
    """What is followed: ``(pa.RecordBatch, token)``. One thread reads at a time; any thread may close."""

    def __init__(self, stream: TokenStream) -> None:
        self._stream = stream
        self.close = stream.close

    def __iter__(self) -> Iterator[tuple[pa.RecordBatch, str]]:
        while (message := self.next()) is not None:
            yield message

    def next(self) -> tuple[pa.RecordBatch, str] | None:
        """The next message; None: there is none."""
        with _transport_hidden():
            return next(self._stream, None)


@contextmanager
def _transport_hidden() -> Iterator[None]:
    try:
        yield
    except TimeDBError as error:
        of_address = isinstance(error, InvalidRequest) and error.detail.startswith("url: ")
        if error.request_id is not None or (status_of(error) < 500 and not of_address):
            raise  # the Flight server's own words
        _log.warning("%s: %s", error.code, error.detail)
        if of_address or isinstance(error, Busy):
            raise Unavailable("the Flight server behind this gateway cannot be reached; retry") from error
        raise type(error)() from error


def key_of(headers: Headers) -> str | None:
    """The one key that came with a call.

    Of several nobody can say which one counts, so none is passed on, and the Flight server asks for one.
    """
    given = set(headers.getlist("x-api-key"))
    for value in headers.getlist("authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            given.add(token.strip())
    given.discard("")
    chosen = given.pop() if len(given) == 1 else ""
    return chosen if _SENDABLE_KEY.fullmatch(chosen) else None


async def _caller(
    request: Request,
    _key: Annotated[str | None, Security(_key_header)],  # both for the document alone
    _token: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> CallerClient:
    connection: FlightConnection = request.app.state.connection
    return connection.as_caller(key_of(request.headers), request.state.request_id)


TheCaller = Annotated[CallerClient, Depends(_caller)]
"""Handler parameter: the Flight server under the key of whoever made this call."""
