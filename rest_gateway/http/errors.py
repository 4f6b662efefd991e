"""Errors as HTTP: one table from the error tree to status codes, one builder for the one shape of every error body.

{"detail": "start_valid: 'x' is not an RFC 3339 time …", "code": "invalid_request", "request_id": "…"}
"""

from __future__ import annotations

import orjson
from starlette.responses import Response

from timedb.contract import errors
from timedb.contract.errors import TimeDBError

__all__ = ["REQUEST_TIMEOUT", "STATUS", "error_body", "error_for_status", "error_response", "status_of"]

STATUS: dict[type[TimeDBError], int] = {
    TimeDBError: 500,
    errors.InvalidRequest: 422,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.IncompleteUpload: 422,
    errors.TooLarge: 413,
    errors.Busy: 503,
    errors.Unavailable: 503,
    errors.Timeout: 504,
    errors.OutcomeUnknown: 503,
    errors.Unimplemented: 501,
    errors.Internal: 500,
    errors.StorageFull: 507,
    errors.StorageRefused: 503,
    errors.Damaged: 500,
}
"""The HTTP status of every class of the error tree."""

REQUEST_TIMEOUT = 408
"""Where what did not come in time is the call itself."""

_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}


def status_of(error: TimeDBError) -> int:
    """The HTTP status of an error; a class that the table lacks counts as the root."""
    return STATUS.get(type(error), STATUS[TimeDBError])


def error_body(error: TimeDBError, request_id: str) -> dict[str, str]:
    """The body of every error answer: ``detail`` (one sentence), ``code`` and ``request_id``."""
    return {"detail": error.detail, "code": error.code, "request_id": request_id}


def error_response(
    error: TimeDBError, request_id: str, *, status: int | None = None, headers: dict[str, str] | None = None
) -> Response:
    """The answer that tells of an error.

    Args:
        error: What went wrong.
        request_id: The id of this call, as in the log.
        status: Only where HTTP has a more exact status than the error's own (405, 408).
        headers: More headers.
    """
    code = status or status_of(error)
    return Response(
        orjson.dumps(error_body(error, request_id)),
        status_code=code,
        headers=_HEADERS.get(code, {}) | (headers or {}),
        media_type="application/json",
    )


def error_for_status(status: int, detail: str) -> TimeDBError:
    """The error of the tree that comes nearest to an HTTP status which the framework raised by itself."""
    if status == REQUEST_TIMEOUT:
        return errors.Timeout(detail)
    for cls, known in STATUS.items():
        if known == status and cls is not TimeDBError:
            return cls(detail)
    return errors.InvalidRequest(detail) if 400 <= status < 500 else errors.Internal()
