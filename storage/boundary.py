"""Where errors of disks and engines become errors of ours: callers of the storage package see no others."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from timedb.contract.errors import Internal, StorageFull, StorageRefused, TimeDBError

__all__ = ["our_error", "storage_error", "translating_errors"]

_log = logging.getLogger("timedb.storage")


@contextmanager
def translating_errors() -> Iterator[None]:
    """A block, or as a decorator a function, that raises no errors but classes of ``TimeDBError``.

    Raises:
        StorageFull, StorageRefused: the disk said so.
        Internal: in place of whatever else was raised; the log has it.
    """
    try:
        yield
    except (TimeDBError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # PanicException of the engines is no Exception
        raise our_error(error, "the lake could not be read or written") from error


def our_error(error: BaseException, otherwise: str) -> TimeDBError:
    """The error of our tree that stands for one of a disk or an engine; the log has the rest.

    Args:
        error: What was raised.
        otherwise: What is said where it is about neither a full disk nor one that refuses.
    """
    if isinstance(error, TimeDBError):
        return error
    found = storage_error(error)
    if found is None:
        _log.error("%s", otherwise, exc_info=error)
        return Internal(otherwise)
    _log.error("%s: %s", found, error)
    return found


def storage_error(error: BaseException) -> TimeDBError | None:
    """What a disk says that is full, read-only or gives no permission; None: the error says something else."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull()
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageRefused()
    return None
