"""What a failed command ends with: one code for each error code, so that scripts can branch."""

from __future__ import annotations

from timedb.contract.errors import (
    Busy,
    Conflict,
    Forbidden,
    IncompleteUpload,
    Internal,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    TimeDBError,
    Timeout,
    TooLarge,
    Unauthenticated,
    Unimplemented,
)

__all__ = ["EXIT_CODES", "exit_code"]

EXIT_CODES: dict[type[TimeDBError], int] = {
    Internal: 1,
    InvalidRequest: 2,  # what the shell's own usage errors end with, too
    Unauthenticated: 3,
    Forbidden: 4,
    NotFound: 5,
    Conflict: 6,
    IncompleteUpload: 7,
    TooLarge: 8,
    Busy: 9,
    Timeout: 10,
    OutcomeUnknown: 11,
    Unimplemented: 12,
}


def exit_code(error: TimeDBError) -> int:
    """The exit code of an error; of one that this release does not know, that of ``internal``."""
    return EXIT_CODES.get(type(error), EXIT_CODES[Internal])
