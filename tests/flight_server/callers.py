"""Clients with keys, and what came of their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
from pyarrow import flight

from tests.flight_server.flights import command
from timedb.client.flight_errors import as_timedb_error

Headers = list[tuple[str, str]]


class _Sends(flight.ClientMiddleware):  # type: ignore[misc] # pyarrow ships no types
    def __init__(self, headers: dict[str, list[str]]) -> None:
        super().__init__()
        self._headers = headers

    def sending_headers(self) -> dict[str, list[str]]:
        return self._headers


class _SendsAlways(flight.ClientMiddlewareFactory):  # type: ignore[misc] # as above
    def __init__(self, headers: Headers) -> None:
        super().__init__()
        self._headers: dict[str, list[str]] = {}
        for name, value in headers:
            self._headers.setdefault(name, []).append(value)

    def start_call(self, info: flight.CallInfo) -> _Sends:
        return _Sends(self._headers)


@contextmanager
def calling(url: str, key: str | None = None, *headers: tuple[str, str]) -> Iterator[flight.FlightClient]:
    """A plain client that sends a key, and other headers, with every call."""
    sent = [*headers, *([("x-api-key", key)] if key is not None else [])]
    with flight.FlightClient(url, middleware=[_SendsAlways(sent)]) as client:
        yield client


def outcome(call: Callable[[], Any]) -> tuple[str, str]:
    """(code, detail) of the error that a call ends with; ``ok`` where it ends well."""
    try:
        call()
    except (pa.ArrowException, OSError) as error:
        failed = as_timedb_error(error, "-")
        return failed.code, failed.detail
    return "ok", ""


def exchange(client: flight.FlightClient, columns: dict[str, Any]) -> pa.Table:
    """Look the rows of one batch up."""
    questions = pa.table(columns).to_batches()[0]
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(command("lookup", {})))
    with suppress(pa.ArrowException, OSError):  # why it failed is what reading fails with
        writer.begin(questions.schema)
        writer.write_batch(questions)
    try:
        return pa.Table.from_batches([reader.read_chunk().data])
    finally:
        with suppress(pa.ArrowException, OSError):
            writer.close()
