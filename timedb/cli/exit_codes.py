"""What a failed command ends with: one code for each error code, so that scripts can branch."""

from __future__ import annotations

from timedb.contract import errors
from timedb.contract.errors import TimeDBError

__all__ = ["EXIT_CODES", "exit_code"]

EXIT_CODES: dict[type[TimeDBError], int] = {
    errors.Internal: 1,
    errors.InvalidRequest: 2,  # what the shell's own usage errors end with, too
    errors.Unauthenticated: 3,
    errors.Forbidden: 4,
    errors.NotFound: 5,
    errors.Conflict: 6,
    errors.IncompleteUpload: 7,
    errors.TooLarge: 8,
    errors.Busy: 9,
    errors.Timeout: 10,
    errors.OutcomeUnknown: 11,
    errors.Unimplemented: 12,
    errors.StorageFull: 13,
    errors.StorageRefused: 14,
    errors.Damaged: 15,
    errors.Unavailable: 16,
}


def exit_code(error: TimeDBError) -> int:
    """The exit code of an error; of one that this release does not know, that of ``internal``."""
    return EXIT_CODES.get(type(error), EXIT_CODES[errors.Internal])
