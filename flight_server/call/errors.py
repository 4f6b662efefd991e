"""Our errors as Flight errors: the one table, and the form that they have on the wire.

The message is ``<code>: <detail>``; ``extra_info`` is JSON ``{"code", "message", "detail", "request_id"}`` and, where
it is about one, ``"field"``. Only what a :class:`TimeDBError` says reaches a client; of any other exception it learns
the request id.
"""

from __future__ import annotations

import json

from pyarrow import flight

from timedb.contract import errors
from timedb.contract.errors import TimeDBError

__all__ = ["FLIGHT_CLASSES", "as_timedb_error", "error_body", "to_flight_error", "to_schema_error"]

FLIGHT_CLASSES: dict[type[TimeDBError], type[Exception]] = {
    TimeDBError: flight.FlightInternalError,
    errors.InvalidRequest: flight.FlightServerError,
    errors.Unauthenticated: flight.FlightUnauthenticatedError,
    errors.Forbidden: flight.FlightUnauthorizedError,
    errors.NotFound: flight.FlightServerError,
    errors.Conflict: flight.FlightServerError,
    errors.IncompleteUpload: flight.FlightServerError,
    errors.TooLarge: flight.FlightServerError,
    errors.Busy: flight.FlightUnavailableError,
    errors.Unavailable: flight.FlightUnavailableError,
    errors.Timeout: flight.FlightTimedOutError,
    errors.OutcomeUnknown: flight.FlightServerError,
    errors.Unimplemented: flight.FlightServerError,
    errors.StorageFull: flight.FlightUnavailableError,  # pyarrow cannot send RESOURCE_EXHAUSTED
    errors.StorageRefused: flight.FlightUnavailableError,
    errors.Damaged: flight.FlightInternalError,
    errors.Internal: flight.FlightInternalError,
}
"""The Flight class of every error of ours. Others do not exist without a traceback in the message."""

# An error travels in HTTP/2 trailers, three times over. From about 8 KiB of them gRPC drops some at random, and the
# client is left with "received metadata size exceeds" and no code.
_MAX_ENCODED_CHARS = 1500


def as_timedb_error(error: BaseException) -> TimeDBError:
    """The error that stands for any exception; one that is not ours says nothing of itself."""
    return error if isinstance(error, TimeDBError) else errors.Internal()


def to_flight_error(error: TimeDBError, request_id: str) -> Exception:
    """The Flight error that carries ``error`` to the client."""
    return FLIGHT_CLASSES[_listed(error)](*_wire_form(error, request_id))


class SchemaError(flight.FlightServerError, ValueError):  # type: ignore[misc]  # pyarrow ships no types
    """An error of ``get_schema``: an error of Flight that is a ``ValueError``, too."""


def to_schema_error(error: TimeDBError, request_id: str) -> Exception:
    """The error for ``get_schema``, whose glue in pyarrow 26 knows no Flight errors and sends any traceback along.

    The note cannot be encoded as UTF-8, so that formatting the traceback fails and Arrow falls back to the name of
    the class. As a ValueError it arrives as ``ArrowInvalid``, its message unchanged; ``extra_info`` is lost.
    """
    schema_error = SchemaError(*_wire_form(error, request_id))
    schema_error.add_note("\udc80")
    return schema_error


def _listed(error: TimeDBError) -> type[TimeDBError]:
    return next(cls for cls in type(error).__mro__ if cls in FLIGHT_CLASSES)


def error_body(error: TimeDBError, request_id: str) -> dict[str, str]:
    """What a client is told of an error: ``code``, ``message``, ``detail``, ``request_id``, perhaps ``field``."""
    # The detail of an internal error may have come from inside; the log has it.
    detail = error.summary if error.code == errors.Internal.code else _trimmed(error.detail)
    body = {"code": error.code, "message": error.summary, "detail": detail, "request_id": request_id}
    if error.field is not None and detail.startswith(error.field):
        body["field"] = error.field
    return body


def _wire_form(error: TimeDBError, request_id: str) -> tuple[str, bytes]:
    body = error_body(error, request_id)
    return f"{error.code}: {body['detail']}", json.dumps(body, ensure_ascii=False).encode()


def _trimmed(detail: str) -> str:
    """The detail on one line, without what UTF-8 cannot hold, cut to what trailers hold."""
    text = "".join(char if char.isprintable() else " " for char in detail)
    room = _MAX_ENCODED_CHARS
    for index, char in enumerate(text):
        # Percent-encoding, as gRPC does it.
        room -= 1 if char.isascii() and char != "%" else 3 * len(char.encode())
        if room < 0:
            return text[:index] + "…"
    return text
