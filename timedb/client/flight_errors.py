"""Flight errors as ours: the one place where the client learns what a failed call means.

A server says it in ``extra_info`` (JSON with a ``code``), and again in the message, which begins ``<code>: ``: the
latter is all that is left where Arrow loses the former. An error without a code comes from the transport.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyarrow import flight

from timedb.client.answering import nobody_at, wrong_scheme
from timedb.contract.errors import (
    Busy,
    Forbidden,
    Internal,
    InvalidRequest,
    OutcomeUnknown,
    TimeDBError,
    Timeout,
    Unauthenticated,
    Unavailable,
    error_classes,
    error_for_code,
)

__all__ = ["as_timedb_error", "flight_errors"]

_MAX_SHOWN_CHARS = 300
_CODES = "|".join(cls.code for cls in error_classes())
_PREFIX = r"(?:Unknown error: |(?:Flight|gRPC) returned [\w ]+ error, with message: )?"
_CODED_MESSAGE = re.compile(rf"{_PREFIX}({_CODES}): (.*)", re.DOTALL)
_TRANSPORT_TAIL = re.compile(r"\.? (?:Detail|gRPC client debug context|Client context): .*", re.DOTALL)
_NEVER_CONNECTED = re.compile(r"failed to connect|connection refused|resolv|lookup|handshake", re.IGNORECASE)
_UNTRUSTED = re.compile(r"certificate verify failed|CERTIFICATE_VERIFY_FAILED|not in peer certificate")


@contextmanager
def flight_errors(url: str, *, acted: bool = False) -> Iterator[None]:
    """Raise what pyarrow raises inside as errors of our tree.

    Args:
        url: The server, for error texts.
        acted: The server may already have done what it was asked to, so that a lost connection leaves the outcome
            unknown.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise as_timedb_error(error, url, acted=acted) from None


def as_timedb_error(error: Exception, url: str, *, acted: bool = False) -> TimeDBError:
    """The error of our tree that an Arrow or Flight error stands for; arguments as of :func:`flight_errors`."""
    return _said_by_server(error) or _of_transport(error, url, acted=acted)


def _said_by_server(error: Exception) -> TimeDBError | None:
    try:
        said = json.loads(getattr(error, "extra_info", b"") or b"null")
    except ValueError:
        said = None
    if isinstance(said, dict) and isinstance(said.get("code"), str):
        detail = said.get("detail") or said.get("message") or ""
        field = str(said.get("field") or "")
        return error_for_code(said["code"], str(detail), field=field, request_id=said.get("request_id"))
    coded = _CODED_MESSAGE.match(str(error))
    return error_for_code(coded[1], _TRANSPORT_TAIL.sub("", coded[2])) if coded else None


def _of_transport(error: Exception, url: str, *, acted: bool) -> TimeDBError:
    text = _TRANSPORT_TAIL.sub("", str(error))[:_MAX_SHOWN_CHARS]
    match error:
        case flight.FlightUnauthenticatedError():
            return Unauthenticated()
        case flight.FlightUnauthorizedError():
            return Forbidden()
        case flight.FlightUnavailableError() if _UNTRUSTED.search(str(error)):
            return InvalidRequest(
                f"url: the server at {url} shows a certificate of another name or authority; the authorities to trust "
                "are those of TIMEDB_TLS_ROOT_CERTIFICATES"
            )
        case flight.FlightUnavailableError() if (wrong := wrong_scheme(url)) is not None:
            return InvalidRequest(f"url: {wrong}")
        case flight.FlightUnavailableError() if _NEVER_CONNECTED.search(str(error)):
            # The same call may succeed once a server is there, and nothing was done.
            return Unavailable(
                nobody_at(url) or f"no Flight server answers at {url}; a REST gateway may have that port"
            )
    if acted:
        return OutcomeUnknown(f"no answer came from the Flight server at {url}: {text}")
    match error:
        case flight.FlightUnavailableError():
            return Busy(f"the connection to the Flight server at {url} was lost: {text}")
        case flight.FlightTimedOutError():
            return Timeout(f"the Flight server at {url} did not answer in time")
        case flight.FlightCancelledError():
            return Busy(f"the call to the Flight server at {url} was cancelled")
    return Internal(f"the Flight server at {url} failed: {text}")
