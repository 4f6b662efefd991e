"""The error tree: one root, one leaf a code.

    TimeDBError
     ├── InvalidRequest      invalid_request     the request is malformed or asks for the impossible
     ├── Unauthenticated     unauthenticated     no key, or not a valid one
     ├── Forbidden           forbidden           a valid key that may not do this
     ├── NotFound            not_found           what the request names does not exist
     ├── Conflict            conflict            it exists already, with other content
     ├── IncompleteUpload    incomplete_upload   the stream ended before the client said it was whole
     ├── TooLarge            too_large           over a limit that is a setting
     ├── Busy                busy                a queue is full; retry
     │    └── Unavailable    unavailable         no server answers at the address; said by whoever calls it
     ├── Timeout             timeout             over the time allowed
     ├── OutcomeUnknown      outcome_unknown     a retry with the same run_id settles it
     ├── Unimplemented       unimplemented       part of the protocol, not of this service
     ├── StorageFull         storage_full        the disk is full; nothing was written
     ├── StorageRefused      storage_refused     the disk is read-only, or gives no permission
     ├── Damaged             damaged             files of the lake are missing or damaged
     └── Internal            internal            a fault of the service

Clients branch on ``code``. Each boundary (Flight, REST, CLI) has one table that translates the classes;
an unknown code is treated as the root.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Self

__all__ = [
    "Busy",
    "Conflict",
    "Damaged",
    "Forbidden",
    "IncompleteUpload",
    "Internal",
    "InvalidRequest",
    "NotFound",
    "OutcomeUnknown",
    "StorageFull",
    "StorageRefused",
    "TimeDBError",
    "Timeout",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "error_classes",
    "error_for_code",
]


# A detail begins with the field it is about, behind which stands a colon; a sentence may begin with one, too, and is
# then told from prose by what no word of prose has.
_FIELD = re.compile(r"[A-Za-z][\w.]*(?=: )|[A-Za-z]+[._][\w.]*\w(?![\w/:-])")


class TimeDBError(Exception):
    """Root of all errors that the service and its client raise on purpose.

    Args:
        detail: One sentence for the person who reads it: names the field and the value at fault, and nothing of
            the service's inside. Empty means the code's own summary.
        field: What ``detail`` begins with, if that is the path of a field, such as ``relative.days_ahead``; left out,
            it is found there. None: the error is about no field.
        request_id: The id under which the server logged the call, once known.
    """

    code: ClassVar[str] = "internal"
    summary: ClassVar[str] = "the service failed"

    def __init__(self, detail: str = "", *, field: str | None = None, request_id: str | None = None) -> None:
        self.detail = detail or self.summary
        found = _FIELD.match(detail)
        self.field = field if field and detail.startswith(field) else found[0] if found else None
        self.request_id = request_id
        super().__init__(self.detail)

    def of_field(self, name: str) -> Self:
        """The same error in the words of a caller who calls its field so."""
        rest = self.detail[len(self.field or "") :]
        return type(self)(name + rest, field=name, request_id=self.request_id)


class InvalidRequest(TimeDBError):
    """The request is malformed or asks for the impossible."""

    code = "invalid_request"
    summary = "the request is not valid"


class Unauthenticated(TimeDBError):
    """No API key was sent, or it is not a valid one."""

    code = "unauthenticated"
    summary = "a valid API key is required: header X-API-Key over HTTP, TIMEDB_API_KEY or api_key elsewhere"


class Forbidden(TimeDBError):
    """The caller may not do this."""

    code = "forbidden"
    summary = "the caller may not do this"


class NotFound(TimeDBError):
    """What the request names does not exist."""

    code = "not_found"
    summary = "no such thing"


class Conflict(TimeDBError):
    """It exists already, with other content."""

    code = "conflict"
    summary = "it exists already, with other content"


class IncompleteUpload(TimeDBError):
    """The stream ended before the client said that it was whole; nothing was written."""

    code = "incomplete_upload"
    summary = "the upload ended before it was complete; nothing was written"


class TooLarge(TimeDBError):
    """The request is over a limit that is a setting."""

    code = "too_large"
    summary = "the request is over a limit"


class Busy(TimeDBError):
    """A queue is full; the same request may succeed later."""

    code = "busy"
    summary = "the service is busy; retry"


class Unavailable(Busy):
    """No server answers at the address: nothing was done, and the same call may succeed once one is there."""

    code = "unavailable"
    summary = "no server answers at the address"


class Timeout(TimeDBError):
    """The call took longer than allowed."""

    code = "timeout"
    summary = "the call took longer than allowed"


class OutcomeUnknown(TimeDBError):
    """It is not known whether the write took place; a retry with the same run_id settles it."""

    code = "outcome_unknown"
    summary = "the outcome is unknown; a retry with the same run_id settles it"


class Unimplemented(TimeDBError):
    """Part of the protocol, but not of this service."""

    code = "unimplemented"
    summary = "not implemented"


class StorageFull(TimeDBError):
    """The lake's disk, or its quota, is full: nothing was written, and reads go on."""

    code = "storage_full"
    summary = "the disk of the lake is full; nothing was written, and reads go on"


class StorageRefused(TimeDBError):
    """The lake's storage is read-only, or gives no permission."""

    code = "storage_refused"
    summary = "the storage of the lake is read-only or gives no permission"


class Damaged(TimeDBError):
    """Files of the lake are missing or damaged; ``detail`` names the table, the file and the remedy."""

    code = "damaged"
    summary = "files of the lake are missing or damaged; timedb doctor says which"


class Internal(TimeDBError):
    """A fault of the service; its log has the rest under the request id."""

    code = "internal"
    summary = "the service failed"


def error_classes(root: type[TimeDBError] = TimeDBError) -> Iterator[type[TimeDBError]]:
    """Every class of the tree that has a code of its own."""
    for child in root.__subclasses__():
        yield child
        yield from error_classes(child)


_BY_CODE: dict[str, type[TimeDBError]] = {cls.code: cls for cls in error_classes()}


def error_for_code(
    code: str, detail: str = "", *, field: str | None = None, request_id: str | None = None
) -> TimeDBError:
    """Build the error that a code from the wire stands for; an unknown code gives the root class."""
    return _BY_CODE.get(code, TimeDBError)(detail, field=field, request_id=request_id)
